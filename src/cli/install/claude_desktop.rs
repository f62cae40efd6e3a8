//! Claude Desktop: `mcpServers.tandem` in its `claude_desktop_config.json`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::edit::{self, Broken, Node};
use super::file::ConfigFile;
use super::{Change, broken, make_folder, note_if_built_in_place, program, without};
use crate::cli::args::EditArgs;
use crate::cli::edge::Surroundings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;

const FILE: &str = "claude_desktop_config.json";

const ENTRY: &[&str] = &["mcpServers", "tandem"];
const COMMAND: &[&str] = &["mcpServers", "tandem", "command"];
const ARGUMENTS: &[&str] = &["mcpServers", "tandem", "args"];

/// What Claude Desktop starts Tandem with.
const ARGUMENT: &str = "mcp";

/// The environment: servers get little more of it than `HOME` and `PATH`, says MCP's guide to debugging.
const NEXT: &str = "\
Next: quit Claude Desktop completely and start it again; Tandem is then among its tools.
Tandem answers from the model on this machine. To have Claude behind it, set
`claude.api_key_command` in Tandem's own configuration (`tandem config path` says where that is).
The key does not belong into Claude Desktop's file, and ANTHROPIC_API_KEY counts only where Claude
Desktop passes it on: it gives servers little of its environment, and nothing of a shell's.
";

/// Adds the entry, or corrects it.
pub fn install(surroundings: &Surroundings, args: &EditArgs) -> Result<Exit, Failure> {
    let file = ConfigFile::open(&locate(surroundings, args)?)?;
    let program = program()?;
    let has_folder = file.path.parent().is_some_and(Path::is_dir);
    if !file.is_there() && !has_folder && args.file.is_none() {
        return Err(Failure::failed(format!(
            "{}: Claude Desktop seems not to be installed, since it has no folder there. Install and \
             start it once, or name its configuration with --file.",
            file.path.display()
        )));
    }
    let after = with_entry(file.text(), &program).map_err(|error| broken(&file, &error))?;
    let shown = file.path.display();
    note_if_built_in_place(&program);
    if after == file.text() {
        let text = format!("Already installed: {shown} starts {program}\n");
        output::print_bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let after = file.with_mark(&after);
    let change = Change { file: &file, after };
    if args.dry_run {
        change.show()?;
        return Ok(Exit::Done);
    }
    if let Some(folder) = file.path.parent().filter(|_| !has_folder) {
        make_folder(folder)?;
    }
    let kept = change.make()?;
    let mut text = format!("Installed: {shown} starts {program}\n");
    if let Some(backup) = kept {
        let _ = writeln!(text, "As it was before: {}", backup.display());
    }
    text.push_str(NEXT);
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Removes the entry.
pub fn uninstall(surroundings: &Surroundings, args: &EditArgs) -> Result<Exit, Failure> {
    let file = ConfigFile::open(&locate(surroundings, args)?)?;
    let backup = file.backup();
    let after = without_entry(file.text(), backup.as_ref().map(ConfigFile::text));
    let shown = file.path.display();
    let Some(after) = after.map_err(|error| broken(&file, &error))? else {
        let text = format!("Not installed: {shown} does not start Tandem\n");
        output::print_bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    };
    let after = file.with_mark(&after);
    let is_as_before = backup.is_some_and(|backup| backup.whole() == after);
    let change = Change { file: &file, after };
    if args.dry_run {
        change.show()?;
        return Ok(Exit::Done);
    }
    let kept = change.make()?;
    let mut text = format!("Uninstalled: {shown} no longer starts Tandem\n");
    if is_as_before {
        file.drop_backup();
    } else if let Some(backup) = kept {
        let _ = writeln!(text, "As it was before: {}", backup.display());
    }
    text.push_str("Next: quit Claude Desktop completely and start it again.\n");
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

fn locate(surroundings: &Surroundings, args: &EditArgs) -> Result<PathBuf, Failure> {
    if let Some(file) = &args.file {
        return Ok(surroundings.folder.join(file));
    }
    let folder = surroundings.application_folder().ok_or_else(|| {
        Failure::usage(
            "there is no home folder to look for Claude Desktop in. Set HOME, or name its \
             configuration with --file.",
        )
    })?;
    Ok(folder.join("Claude").join(FILE))
}

/// `text` with an entry that starts `program`. Of an entry that is there, what people add stays: its
/// environment, and flags after our argument.
pub(super) fn with_entry(text: &str, program: &str) -> Result<String, Broken> {
    let command = Node::Text(program.to_owned());
    let arguments = Node::List(vec![ARGUMENT.to_owned()]);
    if !matches!(edit::read(text, ENTRY)?, Some(Node::Members(_))) {
        let entry = Node::Members(vec![
            ("command".to_owned(), command),
            ("args".to_owned(), arguments),
        ]);
        return edit::set(text, ENTRY, entry);
    }
    let mut text = text.to_owned();
    if edit::read(&text, COMMAND)?.as_ref() != Some(&command) {
        text = edit::set(&text, COMMAND, command)?;
    }
    let is_served = match edit::read(&text, ARGUMENTS)? {
        Some(Node::List(there)) => there.iter().any(|argument| argument == ARGUMENT),
        _ => false,
    };
    if !is_served {
        text = edit::set(&text, ARGUMENTS, arguments)?;
    }
    Ok(text)
}

/// `text` without the entry; `None` where it has none. Where adding it to `backup` gives `text`, that
/// is what comes back, to the byte.
pub(super) fn without_entry(text: &str, backup: Option<&str>) -> Result<Option<String>, Broken> {
    without(text, ENTRY, backup, |backup| {
        match edit::read(text, COMMAND)? {
            Some(Node::Text(program)) => with_entry(backup, &program),
            // Not as we write it.
            _ => Ok(backup.to_owned()),
        }
    })
}
