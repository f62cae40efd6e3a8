//! VS Code: the extension, installed by VS Code's own command, and the setting that tells it where this
//! program is.

mod program;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use self::program::Program;
use super::edit::{self, Broken, Node};
use super::file::ConfigFile;
use super::{Change, broken, is_on_path, make_folder, note_if_built_in_place, without};
use crate::cli::args::{ExtensionArgs, InstallExtensionArgs};
use crate::cli::edge::Surroundings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;

/// The extension: its publisher and name in editors/vscode/package.json.
const EXTENSION: &str = "tandem.tandem";

/// Where a release puts the packaged extension: beside the program.
const VSIX: &str = "tandem.vsix";

/// One name, with a dot in it.
const SETTING: &[&str] = &["tandem.path"];

const NEXT: &str = "\
Next: in windows that are open, run the command \"Developer: Reload Window\". Then type in a file of a
programming language; suggestions come as ghost text, Tab accepts. Tandem's item in the status bar tells
who answers, and its menu what to do when nothing comes.
";

/// Installs the extension and tells it where this program is.
pub fn install(surroundings: &Surroundings, args: &InstallExtensionArgs) -> Result<Exit, Failure> {
    let extension = &args.extension;
    let ours = super::program()?;
    let vsix = package(surroundings, args.vsix.as_deref(), &ours)?;
    let program = Program::find(surroundings, extension.program.as_deref())?;
    let file = settings(surroundings, extension, &program)?;
    let is_needed = !is_on_path(surroundings, &ours);
    let change = match &file {
        Some(file) => addition(file, &ours, is_needed)?,
        None if is_needed => {
            return Err(Failure::usage(format!(
                "{}: where this program keeps its settings is not known. Name the file with --file, or \
                 put {ours} on your PATH.",
                program.path.display()
            )));
        }
        None => None,
    };
    note_if_built_in_place(&ours);
    let arguments = ["--install-extension".as_ref(), vsix.as_os_str()];
    if extension.dry_run {
        return show(&program, &arguments, change.as_ref());
    }
    if let Some(change) = &change {
        change.file.writable()?;
    }
    output::note(&format!("running {}", program.line(&arguments)));
    program.run(&arguments, surroundings)?;
    let mut text = format!("Installed: {EXTENSION} in {}\n", program.path.display());
    match &file {
        Some(file) if is_needed || change.is_some() => {
            let kept = change.as_ref().map(make).transpose()?.flatten();
            let _ = writeln!(text, "{} says that it starts {ours}", file.path.display());
            tell_kept(&mut text, kept);
        }
        _ => text.push_str("It starts `tandem` from your PATH\n"),
    }
    text.push_str(NEXT);
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Takes both back.
pub fn uninstall(surroundings: &Surroundings, args: &ExtensionArgs) -> Result<Exit, Failure> {
    let program = Program::find(surroundings, args.program.as_deref())?;
    let file = settings(surroundings, args, &program)?;
    let backup = file.as_ref().and_then(ConfigFile::backup);
    let change = match &file {
        Some(file) => removal(file, backup.as_ref())?,
        None => None,
    };
    let arguments = ["--uninstall-extension".as_ref(), EXTENSION.as_ref()];
    if args.dry_run {
        return show(&program, &arguments, change.as_ref());
    }
    if let Some(change) = &change {
        change.file.writable()?;
    }
    let listed = program.run(&["--list-extensions".as_ref()], surroundings)?;
    let is_installed = listed
        .lines()
        .any(|line| line.trim().eq_ignore_ascii_case(EXTENSION));
    let shown = program.path.display();
    if !is_installed && change.is_none() {
        let text = format!("Not installed: {shown} does not list {EXTENSION}\n");
        output::print_bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    if is_installed {
        output::note(&format!("running {}", program.line(&arguments)));
        program.run(&arguments, surroundings)?;
        let _ = writeln!(text, "Uninstalled: {EXTENSION} from {shown}");
    }
    if let Some(change) = &change {
        let kept = make(change)?;
        let _ = writeln!(
            text,
            "{} names no program any more",
            change.file.path.display()
        );
        if backup.is_some_and(|backup| backup.whole() == change.after) {
            change.file.drop_backup();
        } else {
            tell_kept(&mut text, kept);
        }
    }
    text.push_str(
        "Next: in windows that are open, run the command \"Developer: Reload Window\".\n",
    );
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

fn show(
    program: &Program,
    arguments: &[&OsStr],
    change: Option<&Change<'_>>,
) -> Result<Exit, Failure> {
    let text = format!("Would run: {}\n", program.line(arguments));
    output::print_bytes(text.as_bytes())?;
    if let Some(change) = change {
        change.show()?;
    }
    Ok(Exit::Done)
}

/// What the settings become, if they have to change.
fn addition<'a>(
    file: &'a ConfigFile,
    program: &str,
    is_needed: bool,
) -> Result<Option<Change<'a>>, Failure> {
    let after = with_path(file.text(), program, is_needed).map_err(|error| broken(file, &error))?;
    let is_change = after != file.text();
    let after = file.with_mark(&after);
    Ok(is_change.then_some(Change { file, after }))
}

/// The same for taking it back.
fn removal<'a>(
    file: &'a ConfigFile,
    backup: Option<&ConfigFile>,
) -> Result<Option<Change<'a>>, Failure> {
    let after = without_path(file.text(), backup.map(ConfigFile::text))
        .map_err(|error| broken(file, &error))?;
    let after = after.map(|after| file.with_mark(&after));
    Ok(after.map(|after| Change { file, after }))
}

/// Changes the settings. Returns where the old ones are kept, if they are since now.
fn make(change: &Change<'_>) -> Result<Option<PathBuf>, Failure> {
    if let Some(folder) = change.file.path.parent() {
        make_folder(folder)?;
    }
    change.make()
}

fn tell_kept(text: &mut String, backup: Option<PathBuf>) {
    if let Some(backup) = backup {
        let _ = writeln!(text, "As it was before: {}", backup.display());
    }
}

/// The packaged extension.
fn package(
    surroundings: &Surroundings,
    named: Option<&Path>,
    ours: &str,
) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        let path = surroundings.folder.join(named);
        if path.is_file() {
            return Ok(path);
        }
        return Err(Failure::usage(format!(
            "{}: there is no such file. Correct --vsix.",
            path.display()
        )));
    }
    let beside = Path::new(ours).with_file_name(VSIX);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::usage(format!(
        "{}: the extension is not beside this program. Build it with `npm ci && npm run package` in \
         editors/vscode of Tandem's source, and name the file, dist/tandem.vsix, with --vsix.",
        beside.display()
    )))
}

/// The settings to edit; `None` where nobody said and the program is none that we know.
fn settings(
    surroundings: &Surroundings,
    args: &ExtensionArgs,
    program: &Program,
) -> Result<Option<ConfigFile>, Failure> {
    let named = args
        .file
        .as_ref()
        .map(|file| surroundings.folder.join(file));
    let path = named.or_else(|| program.settings.clone());
    path.map(|path| ConfigFile::open(&path)).transpose()
}

/// `text` with this program's path, where it is `needed` or another one is there.
pub(super) fn with_path(text: &str, program: &str, is_needed: bool) -> Result<String, Broken> {
    let program = Node::Text(program.to_owned());
    match edit::read(text, SETTING)? {
        None if !is_needed => Ok(text.to_owned()),
        Some(there) if there == program => Ok(text.to_owned()),
        _ => edit::set(text, SETTING, program),
    }
}

/// `text` without it; `None` where it has none.
pub(super) fn without_path(text: &str, backup: Option<&str>) -> Result<Option<String>, Broken> {
    without(text, SETTING, backup, |backup| {
        match edit::read(text, SETTING)? {
            Some(Node::Text(program)) => with_path(backup, &program, true),
            _ => Ok(backup.to_owned()),
        }
    })
}
