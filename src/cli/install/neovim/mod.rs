//! Neovim: the plugin, in a package that Neovim loads by itself.

mod folder;
mod plugin;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

use self::folder::Folder;
use super::{note_if_built_in_place, program};
use crate::cli::args::PluginArgs;
use crate::cli::edge::Surroundings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;

/// Where the plugin goes in Neovim's data folder: a package's plugins below `start` are loaded at each
/// start (`:help packages`).
const PACKAGE: [&str; 5] = ["site", "pack", "tandem", "start", "tandem"];

const NEXT: &str = "\
Next: start Neovim and type in a file of a programming language; suggestions come as ghost text. No key
is taken. In your init.lua, choose one to accept with:
  vim.keymap.set('i', '<C-l>', '<Plug>(tandem-accept)')
When nothing comes, `:checkhealth tandem` tells why. `:help tandem` is there after `:helptags ALL`.
";

/// Where the plugin is to be.
struct Location {
    folder: PathBuf,
    /// The uppermost folder that goes when it is empty.
    top: PathBuf,
}

/// Writes the plugin, or brings it up to date.
pub fn install(surroundings: &Surroundings, args: &PluginArgs) -> Result<Exit, Failure> {
    let location = locate(surroundings, args)?;
    let shown = location.folder.display();
    if let Some(target) = link(&location.folder)? {
        let text = format!(
            "Already installed: {shown} is a link to {}, which stays as it is\n",
            target.display()
        );
        output::print_bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let program = program()?;
    let folder = Folder::open(location.folder.clone())?;
    let is_known = args.folder.is_some()
        || surroundings.program("nvim").is_some()
        || location.top.parent().is_some_and(Path::is_dir);
    if !is_known {
        return Err(Failure::failed(format!(
            "Neovim seems not to be installed: there is no `nvim` on your PATH, nor its data folder \
             above {shown}. Install it, or name the plugin's folder with --folder."
        )));
    }
    let mut files: BTreeMap<_, _> = plugin::FILES
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    files.insert(plugin::INSTALLED, plugin::installed(&program));
    let plan = folder.installation(&files)?;
    note_if_built_in_place(&program);
    if plan.is_empty() {
        let text = format!("Already installed: {shown}, which starts {program}\n");
        output::print_bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    if args.dry_run {
        plan.show()?;
        return Ok(Exit::Done);
    }
    plan.carry_out()?;
    let mut text = format!(
        "Installed: {shown}\nIt starts `tandem` where that is on Neovim's PATH, else {program}\n"
    );
    tell_kept(&mut text, &plan.kept);
    text.push_str(NEXT);
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Removes what was written and nobody changed.
pub fn uninstall(surroundings: &Surroundings, args: &PluginArgs) -> Result<Exit, Failure> {
    let location = locate(surroundings, args)?;
    let shown = location.folder.display();
    if let Some(target) = link(&location.folder)? {
        return Err(Failure::failed(format!(
            "{shown}: is a link to {}, which Tandem did not make. Nothing was changed. Remove the link \
             yourself.",
            target.display()
        )));
    }
    let folder = Folder::open(location.folder.clone())?;
    if !folder.is_installed() {
        if folder.is_there() {
            return Err(Failure::failed(format!(
                "{shown}: does not say that Tandem put it there. Nothing was changed. Remove the folder \
                 yourself."
            )));
        }
        let text = format!("Not installed: there is no {shown}\n");
        output::print_bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let plan = folder.removal()?;
    if args.dry_run {
        plan.show()?;
        return Ok(Exit::Done);
    }
    plan.carry_out()?;
    folder.tidy(&location.top);
    let mut text = format!("Uninstalled: {shown}\n");
    tell_kept(&mut text, &plan.kept);
    text.push_str("Next: start Neovim anew.\n");
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

fn tell_kept(text: &mut String, kept: &[String]) {
    if !kept.is_empty() {
        let _ = writeln!(
            text,
            "Left there, since they were changed: {}",
            kept.join(", ")
        );
    }
}

/// What the plugin's folder is a link to, as people make it who have the source.
fn link(folder: &Path) -> Result<Option<PathBuf>, Failure> {
    if !folder.is_symlink() {
        return Ok(None);
    }
    match fs::canonicalize(folder) {
        Ok(target) => Ok(Some(target)),
        Err(error) => Err(Failure::failed(format!(
            "{}: is a link that leads nowhere: {error}. Correct or remove the link.",
            folder.display()
        ))),
    }
}

fn locate(surroundings: &Surroundings, args: &PluginArgs) -> Result<Location, Failure> {
    if let Some(folder) = &args.folder {
        let folder = surroundings.folder.join(folder);
        return Ok(Location {
            top: folder.clone(),
            folder,
        });
    }
    let data = data_folder(surroundings)?;
    Ok(Location {
        folder: PACKAGE
            .iter()
            .fold(data.clone(), |path, name| path.join(name)),
        top: data.join(PACKAGE[0]),
    })
}

/// Neovim's `stdpath('data')`: `:help standard-path` and `:help $NVIM_APPNAME`.
fn data_folder(surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    let variable = |name: &str| {
        surroundings
            .variable(name)
            .filter(|value| !value.is_empty())
    };
    let home = || {
        surroundings.home.clone().ok_or_else(|| {
            Failure::usage(
                "there is no home folder to look for Neovim's data in. Set HOME, or name the plugin's \
                 folder with --folder.",
            )
        })
    };
    let local = |name: &str| variable(name).map(|folder| surroundings.folder.join(folder));
    let data = match local("XDG_DATA_HOME") {
        Some(folder) => folder,
        None if cfg!(windows) => match local("LOCALAPPDATA") {
            Some(folder) => folder,
            None => home()?.join("AppData").join("Local"),
        },
        None => home()?.join(".local").join("share"),
    };
    let application = variable("NVIM_APPNAME").unwrap_or(OsStr::new("nvim"));
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !Path::new(application).components().all(is_name) {
        return Err(Failure::usage(format!(
            "NVIM_APPNAME: `{}` is no name, and Neovim does not start with it. Correct it, or unset it.",
            application.display()
        )));
    }
    let mut name = application.to_owned();
    if cfg!(windows) {
        name.push("-data");
    }
    Ok(data.join(name))
}
