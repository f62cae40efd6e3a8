//! A user of their own: a home folder, the sessions in it, and what the system says about them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tandem::daemon::client;
use tandem::daemon::wire::DaemonStatus;
use tandem::daemon::{Build, Place};
use tempfile::TempDir;

use crate::client::{Answer, Client};

/// The program that is measured.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");

/// A document whose last line waits to be completed.
const TEXT: &str = "def total(items):\n    result = 0\n    for item in items:\n        result += ";

/// Where [`TEXT`] waits.
const PLACE: (u32, u32) = (3, 18);

/// A user. What they started ends with them.
pub struct Home {
    folder: TempDir,
    asks: tokio::runtime::Runtime,
}

/// Memory of processes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident, counted anew for each process.
    pub resident: u64,
    /// Resident, what processes share counted once.
    pub proportional: u64,
}

impl Home {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            asks: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// The program with `arguments`, in this home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path());
        command
    }

    /// A session with an open document.
    pub fn session(&self, arguments: &[&str]) -> anyhow::Result<Client> {
        let mut client = Client::start(&mut self.command(&[&["lsp"], arguments].concat()))?;
        client.initialize("file:///bench", &Value::Null)?;
        client.notify("textDocument/didOpen", &opened())?;
        Ok(client)
    }

    pub fn place(&self) -> anyhow::Result<Place> {
        let state = self.folder.path().join(".local/state/tandem");
        Ok(Place::choose(None, Some(&state))?)
    }

    /// How the daemon is; `None` where none runs.
    pub fn daemon(&self) -> anyhow::Result<Option<DaemonStatus>> {
        let (place, build) = (self.place()?, Build::of_this_program());
        Ok(self.asks.block_on(client::status(&place, &build))?)
    }

    /// Ends the daemon and gives the processes that are left.
    pub fn end(&self) -> anyhow::Result<Vec<u32>> {
        let ended = self.command(&["daemon", "stop"]).output()?;
        if !ended.status.success() {
            bail!("daemon stop: {}", String::from_utf8_lossy(&ended.stderr));
        }
        // The last step of an end is the system's.
        for _ in 0..100 {
            if self.processes()?.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.processes()
    }

    /// The processes of this home that have not ended.
    pub fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let home = format!("HOME={}", self.folder.path().display()).into_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("this needs /proc")? {
            let entry = entry?;
            let Some(process) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|one| one == home) {
                found.push(process);
            }
        }
        Ok(found)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.command(&["daemon", "stop"]).output();
    }
}

/// The parameters of `didOpen`.
pub fn opened() -> Value {
    json!({"textDocument": {
        "uri": "untitled:a", "languageId": "python", "version": 1, "text": TEXT,
    }})
}

/// The parameters of a `didChange` that types one character into a comment far from the cursor's
/// line end, so that prompts differ and places stay.
pub fn keystroke(version: u64) -> Value {
    let letter = char::from(b'a' + (version % 26) as u8).to_string();
    json!({
        "textDocument": {"uri": "untitled:a", "version": version},
        "contentChanges": [{
            "range": {
                "start": {"line": 1, "character": 4},
                "end": {"line": 1, "character": 5},
            },
            "text": letter,
        }],
    })
}

/// The parameters of a completion that was asked for by hand.
pub fn completion() -> Value {
    json!({
        "textDocument": {"uri": "untitled:a"},
        "position": {"line": PLACE.0, "character": PLACE.1},
        "context": {"triggerKind": 1},
    })
}

/// Types a character and waits for the completion.
pub fn complete(client: &mut Client, version: u64) -> anyhow::Result<Answer> {
    client.change_and_request(
        &keystroke(version),
        "textDocument/inlineCompletion",
        &completion(),
    )
}

/// Memory of all of `processes`.
pub fn memory(processes: &[u32]) -> anyhow::Result<Memory> {
    let mut memory = Memory::default();
    for process in processes {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            kilobytes.unwrap_or(0_u64) * 1024
        };
        memory.resident += field("Rss:");
        memory.proportional += field("Pss:");
    }
    Ok(memory)
}

/// Open file descriptors of a process; `None` once it has ended.
pub fn descriptors(process: u32) -> Option<usize> {
    Some(
        fs::read_dir(PathBuf::from(format!("/proc/{process}/fd")))
            .ok()?
            .count(),
    )
}
