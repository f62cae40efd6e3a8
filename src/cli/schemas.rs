//! `tandem schema`: the JSON Schemas of the configuration and of the MCP tools.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::exit::{Exit, Failure};
use super::output;
use crate::config::{config_schema, editor_schema, project_schema};
use crate::model::catalogue_schema;
use crate::protocol::mcp;

/// Every schema by its name; the file below `schemas/` is the name with `.json`.
fn all() -> BTreeMap<String, Value> {
    let tools = mcp::schemas()
        .into_iter()
        .map(|(name, schema)| (format!("tools/{name}"), schema.to_value()));
    let mut all: BTreeMap<String, Value> = [
        ("config.schema".to_owned(), config_schema()),
        ("project.schema".to_owned(), project_schema()),
        ("editor.schema".to_owned(), editor_schema()),
        ("catalogue.schema".to_owned(), catalogue_schema()),
    ]
    .into_iter()
    .chain(tools)
    .collect();
    // In an order that nothing but their content changes.
    all.values_mut().for_each(Value::sort_all_objects);
    all
}

/// Prints the names.
pub fn list() -> Result<Exit, Failure> {
    let names: String = all().into_keys().fold(String::new(), |names, name| {
        names + name.trim_end_matches(".schema") + "\n"
    });
    output::print_bytes(names.as_bytes())?;
    Ok(Exit::Done)
}

/// Prints one.
pub fn print(name: &str) -> Result<Exit, Failure> {
    let mut all = all();
    let schema = all
        .remove(name)
        .or_else(|| all.remove(&format!("{name}.schema")));
    match schema {
        Some(schema) => {
            output::print_json(&schema)?;
            Ok(Exit::Done)
        }
        None => Err(Failure::usage(format!(
            "there is no schema `{name}`. `tandem schema` lists their names."
        ))),
    }
}

/// Writes all below `folder`.
pub fn write(folder: &Path) -> Result<Exit, Failure> {
    for (name, schema) in all() {
        let file = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&schema)
            .map_err(|error| Failure::failed(format!("{name}: {error}.")))?;
        file.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&file, text + "\n"))
            .map_err(|error| {
                Failure::failed(format!(
                    "{}: cannot be written: {error}. Check the folder's permissions.",
                    file.display()
                ))
            })?;
    }
    Ok(Exit::Done)
}
