//! `tandem config`: what is configured, where it comes from, and a file to start with.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anstyle::Style;
use serde_json::{Value, json};

use super::args::Globals;
use super::edge::{self, Surroundings};
use super::exit::{Exit, Failure};
use super::output::{self, styled};
use crate::config::{Configuration, Layers, starting_file};

/// Every key, its value and its origin. Keys for Claude and the server are never shown.
pub fn show(globals: &Globals, surroundings: &Surroundings, json: bool) -> Result<Exit, Failure> {
    let layers = governed(globals, surroundings)?;
    if json {
        output::print_json(&explained(&layers))?;
        return Ok(Exit::Done);
    }
    let explained = layers.explain();
    let dim = Style::new().dimmed();
    let mut text = String::new();
    for line in &explained {
        let value = match &line.value {
            serde_json::Value::Null => "none".to_owned(),
            serde_json::Value::String(value) => value.clone(),
            value => value.to_string(),
        };
        let origins: Vec<_> = line.origins.iter().map(ToString::to_string).collect();
        let origins = styled(dim, &format!("# {}", origins.join(", ")));
        let _ = writeln!(text, "{}: {value}  {origins}", line.key);
    }
    for (whose, key) in [
        ("Claude's", layers.key_origin()),
        ("The inference server's", layers.server_key_origin()),
    ] {
        let key = key.map_or_else(
            || "none".to_owned(),
            |origin| format!("hidden, from {origin}"),
        );
        let _ = writeln!(text, "{whose} key: {key}");
    }
    output::print_styled(&text)?;
    Ok(Exit::Done)
}

/// Every key, its value and its origin, and where the keys for others come from.
pub fn explained(layers: &Layers) -> Value {
    let keys: serde_json::Map<_, _> = layers
        .explain()
        .iter()
        .map(|line| {
            let origins: Vec<_> = line.origins.iter().map(ToString::to_string).collect();
            let entry = json!({ "value": line.value, "origins": origins });
            (line.key.clone(), entry)
        })
        .collect();
    json!({
        "keys": keys,
        "claude_key": layers.key_origin().map(|origin| origin.to_string()),
        "server_key": layers.server_key_origin().map(|origin| origin.to_string()),
    })
}

/// Where the configuration is read from, one file a line: the user's own first, then the projects'.
pub fn path(globals: &Globals, surroundings: &Surroundings) -> Result<Exit, Failure> {
    let mut text = format!("{}\n", user_file(globals, surroundings)?.display());
    let configuration = Configuration::new(Layers::default());
    // A mistake in a project's file does not change where it is.
    let _ = configuration.set_folders(std::slice::from_ref(&surroundings.folder));
    for project in configuration.layers().projects {
        let _ = writeln!(text, "{}", project.place);
    }
    output::print_bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Writes a file to start from, unless there is one.
pub fn init(globals: &Globals, surroundings: &Surroundings, stdout: bool) -> Result<Exit, Failure> {
    if stdout {
        output::print_bytes(starting_file().as_bytes())?;
        return Ok(Exit::Done);
    }
    let file = user_file(globals, surroundings)?;
    let shown = file.display();
    let created = file
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::File::create_new(&file));
    match created.and_then(|mut created| created.write_all(starting_file().as_bytes())) {
        Ok(()) => {
            output::print_bytes(format!("Wrote {shown}\n").as_bytes())?;
            Ok(Exit::Done)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::failed(format!(
                "{shown}: there is one already. Edit it, or see `tandem config init --stdout`."
            )))
        }
        Err(error) => Err(Failure::failed(format!(
            "{shown}: cannot be written: {error}. Check the folder's permissions."
        ))),
    }
}

fn user_file(globals: &Globals, surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    let (file, _) = surroundings.user_file(globals).ok_or_else(|| {
        Failure::usage(
            "there is no home folder to keep a configuration in. Set HOME, or say --config.",
        )
    })?;
    Ok(file)
}

fn governed(globals: &Globals, surroundings: &Surroundings) -> Result<Layers, Failure> {
    let layers = surroundings.layers(globals)?;
    edge::sound(&layers)?;
    let configuration = Configuration::new(layers);
    let _ = configuration.set_folders(std::slice::from_ref(&surroundings.folder));
    let layers = configuration.layers();
    edge::sound(&layers)?;
    Ok(layers)
}
