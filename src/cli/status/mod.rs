//! `tandem status`: who could answer now, and why.

mod daemon;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::args::Globals;
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::output::{self, styled};
use crate::app::App;
use crate::inference::Health;

/// See the module.
pub fn run(
    app: &App,
    surroundings: &Surroundings,
    globals: &Globals,
    json: bool,
) -> Result<Exit, Failure> {
    // What governs the current folder; a mistake there is shown below, like any other.
    let _ = app
        .configuration
        .set_folders(std::slice::from_ref(&surroundings.folder));
    let settings = app.router.settings();
    let layers = app.configuration.layers();
    let backends = app.router.status();
    let user_file = surroundings.user_file(globals).map(|(file, _)| file);
    let projects: Vec<&str> = layers
        .projects
        .iter()
        .map(|layer| layer.place.as_str())
        .collect();
    let problems: Vec<String> = layers.problems.iter().map(ToString::to_string).collect();
    let key = layers.key_origin();
    if json {
        output::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "mode": settings.mode,
            "backends": backends,
            "claude_key": key.as_ref().map(ToString::to_string),
            "user_file": user_file,
            "user_file_exists": layers.user.is_some(),
            "project_files": projects,
            "problems": problems,
        }))?;
        return Ok(exit(&problems));
    }
    let bold = Style::new().bold();
    let dim = Style::new().dimmed();
    let mut text = String::new();
    let mode = serde_json::to_value(settings.mode).unwrap_or_default();
    let _ = writeln!(
        text,
        "tandem {}, mode {}",
        env!("CARGO_PKG_VERSION"),
        styled(bold, mode.as_str().unwrap_or_default())
    );
    for backend in &backends {
        let (colour, state) = described(&backend.health);
        let name = format!("{} · {}", backend.kind, backend.model);
        let _ = write!(text, "  {name:<36} {}", styled(colour, &state));
        if backend.breaker != "closed" {
            let _ = write!(text, " (breaker {})", backend.breaker);
        }
        text.push('\n');
        if let Some(placement) = &backend.placement {
            let _ = writeln!(
                text,
                "    {}",
                styled(dim, &format!("hardware: {placement}"))
            );
        }
    }
    let key = key.map_or_else(
        || "none: set ANTHROPIC_API_KEY, or `claude.api_key_command` in your own file".to_owned(),
        |origin| format!("from {origin}"),
    );
    let _ = writeln!(text, "Claude's key: {key}");
    let file = user_file.map_or_else(
        || "nowhere: there is no home folder".to_owned(),
        |file| match &layers.user {
            Some(_) => file.display().to_string(),
            None => format!(
                "{} {}",
                file.display(),
                styled(dim, "(not there, which is fine)")
            ),
        },
    );
    let _ = writeln!(text, "Configuration: {file}");
    for project in projects {
        let _ = writeln!(text, "Project: {project}");
    }
    let red = AnsiColor::Red.on_default();
    for problem in &problems {
        let _ = writeln!(
            text,
            "{} {problem}",
            styled(red, "Nothing leaves this machine:")
        );
    }
    output::print_styled(&text)?;
    Ok(exit(&problems))
}

fn exit(problems: &[String]) -> Exit {
    if problems.is_empty() {
        Exit::Done
    } else {
        Exit::Usage
    }
}

fn described(health: &Health) -> (Style, String) {
    let green = AnsiColor::Green.on_default();
    let yellow = AnsiColor::Yellow.on_default();
    let red = AnsiColor::Red.on_default();
    match health {
        Health::Absent { why } => (yellow, format!("absent: {why}")),
        Health::Downloading { bytes, total } => {
            let total = total.map_or_else(String::new, |total| format!(" of {}", total >> 20));
            (yellow, format!("downloading: {}{total} MiB", bytes >> 20))
        }
        Health::Unloaded => (green, "ready: loads on first need".to_owned()),
        Health::Loading => (yellow, "loading".to_owned()),
        Health::Probing => (yellow, "loaded, being probed".to_owned()),
        Health::Healthy { speed: None } => (green, "ready".to_owned()),
        Health::Healthy { speed: Some(speed) } => (
            green,
            format!(
                "healthy: first token in {:.0} ms, then {:.0} tokens/s",
                speed.first_token_ms, speed.tokens_per_second
            ),
        ),
        Health::Degraded { why } => (yellow, format!("degraded: {why}")),
        Health::Failed { error, .. } => (red, format!("failed: {error}")),
    }
}
