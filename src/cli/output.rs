//! Writing to standard output: all of it, or quietly nothing where nobody reads any more.

use std::io::{self, Write};

use anstyle::Style;
use serde::Serialize;

use super::exit::Failure;

/// Writes bytes.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::write(&error))
}

/// Writes text that may hold styles, which are dropped where they do not belong (a pipe, `NO_COLOR`).
pub fn print_styled(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::write(&error))
}

/// `text`, which may hold styles, as standard output takes it: for who draws there by other means.
pub fn for_stdout(text: &str) -> String {
    if anstream::AutoStream::choice(&io::stdout()) == anstream::ColorChoice::Never {
        anstream::adapter::strip_str(text).to_string()
    } else {
        text.to_owned()
    }
}

/// Tells something on standard error that is no failure.
pub fn note(text: &str) {
    // Nothing can be told where standard error is closed.
    let _ = writeln!(io::stderr(), "tandem: {text}");
}

/// Writes JSON for people and programs.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("this cannot be written as JSON: {error}.")))?;
    text.push('\n');
    print_bytes(text.as_bytes())
}

/// `text` in a style.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text of a model or a file as it may be sent to a terminal: without the control characters that
/// move its cursor or change its state.
pub fn harmless(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}
