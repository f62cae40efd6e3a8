//! Commits of a repository: the texts of what they modified, before and after.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A commit's modified files.
#[derive(Debug)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The files that are code.
    pub files: Vec<Modified>,
}

/// A file that a commit modified.
#[derive(Debug)]
pub struct Modified {
    /// Its path in the repository.
    pub path: String,
    /// The blobs before and after.
    pub blobs: [String; 2],
}

/// LSP's identifier of a file's language, where it is one that is measured.
#[must_use]
pub fn language(path: &str) -> Option<&'static str> {
    let (_, extension) = path.rsplit_once('.')?;
    Some(match extension {
        "rs" => "rust",
        "py" | "pyi" => "python",
        "ts" | "mts" | "cts" => "typescript",
        "tsx" => "typescriptreact",
        "js" | "mjs" | "cjs" => "javascript",
        "jsx" => "javascriptreact",
        "go" => "go",
        "c" | "h" => "c",
        "cc" | "cpp" | "hpp" => "cpp",
        "java" => "java",
        "lua" => "lua",
        "rb" => "ruby",
        "swift" => "swift",
        "kt" => "kotlin",
        "cs" => "csharp",
        "php" => "php",
        _ => return None,
    })
}

fn git(repository: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(arguments)
        .output()
        .context("git cannot be run. Install it.")?;
    ensure!(
        output.status.success(),
        "git {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The commits of a repository that modify code, the newest first.
pub fn commits(repository: &Path) -> Result<Vec<Commit>> {
    let log = git(
        repository,
        &[
            "log",
            "--no-merges",
            "--raw",
            "--no-renames",
            "--no-abbrev",
            "--diff-filter=M",
            "--format=commit %H",
        ],
    )?;
    let mut commits: Vec<Commit> = Vec::new();
    for line in log.lines() {
        if let Some(id) = line.strip_prefix("commit ") {
            commits.push(Commit {
                id: id.to_owned(),
                files: Vec::new(),
            });
        } else if let Some((fields, path)) = line.strip_prefix(':').and_then(|l| l.split_once('\t'))
        {
            let fields: Vec<&str> = fields.split(' ').collect();
            let (Some(commit), [mode, _, old, new, _]) = (commits.last_mut(), &fields[..]) else {
                continue;
            };
            if matches!(*mode, "100644" | "100755") && language(path).is_some() {
                commit.files.push(Modified {
                    path: path.to_owned(),
                    blobs: [(*old).to_owned(), (*new).to_owned()],
                });
            }
        }
    }
    commits.retain(|commit| !commit.files.is_empty());
    Ok(commits)
}

/// Files beside `path` before `commit`, as path and blob.
pub fn beside(repository: &Path, commit: &str, path: &str) -> Result<Vec<(String, String)>> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let listed = git(repository, &["ls-tree", &format!("{commit}^:{folder}")])?;
    let files = listed.lines().filter_map(|line| {
        let (fields, name) = line.split_once('\t')?;
        let mut fields = fields.split(' ');
        (fields.nth(1)? == "blob").then_some(())?;
        let path = if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        };
        Some((path, fields.next()?.to_owned()))
    });
    Ok(files.collect())
}

/// `git cat-file --batch`, asked for one text after another.
pub struct Texts {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Texts {
    /// Starts it.
    pub fn of(repository: &Path) -> Result<Self> {
        let mut child = Command::new("git")
            .arg("-C")
            .arg(repository)
            .args(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("git cannot be run. Install it.")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("git has no pipes");
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// The text of a blob; `None` where it is not there or not UTF-8.
    pub fn get(&mut self, blob: &str) -> Result<Option<String>> {
        writeln!(self.input, "{blob}")?;
        self.input.flush()?;
        let mut header = String::new();
        self.output.read_line(&mut header)?;
        let Some(length) = header
            .trim()
            .strip_prefix(blob)
            .and_then(|rest| rest.strip_prefix(" blob "))
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; length.parse::<usize>()? + 1];
        self.output.read_exact(&mut bytes)?;
        bytes.pop();
        Ok(String::from_utf8(bytes).ok())
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
