//! `tandem status`: who could answer now, and why; and what the daemon holds for whom.

pub mod daemon;

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::{Globals, StatusArgs};
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::output::{self, styled};
use crate::app::App;
use crate::config::ConfigError;
use crate::daemon::wire::DaemonStatus;
use crate::daemon::{Build, client};
use crate::inference::{BackendKind, Health};
use crate::router::BackendStatus;

/// How often `--watch` looks again: each look is a question to the daemon and a screenful.
const PACE: Duration = Duration::from_secs(1);

/// See the module.
pub async fn run(
    app: App,
    surroundings: &Surroundings,
    globals: &Globals,
    args: StatusArgs,
) -> Result<Exit, Failure> {
    // What governs the current folder; a mistake there is shown below, like any other.
    let _ = app
        .configuration
        .set_folders(std::slice::from_ref(&surroundings.folder));
    if args.watch {
        return watch(&app, surroundings, globals, args.json).await;
    }
    let seen = Seen::now(&app, surroundings, globals).await;
    if args.json {
        output::print_json(&seen.json())?;
    } else {
        output::print_styled(&seen.text())?;
    }
    Ok(seen.exit())
}

/// Shows the status until it is interrupted: redrawn in its place on a terminal, one after the other
/// elsewhere (as JSON: one line each).
async fn watch(
    app: &App,
    surroundings: &Surroundings,
    globals: &Globals,
    json: bool,
) -> Result<Exit, Failure> {
    let redraw = surroundings.stdout_is_terminal && !json;
    let target = if redraw {
        ProgressDrawTarget::stdout()
    } else {
        ProgressDrawTarget::hidden()
    };
    let screen = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        screen.set_style(style);
    }
    loop {
        let seen = Seen::now(app, surroundings, globals).await;
        if json {
            output::print_bytes(format!("{}\n", seen.json()).as_bytes())?;
        } else if redraw {
            screen.set_message(output::for_stdout(&seen.text()));
            screen.tick();
        } else {
            output::print_styled(&format!("{}\n", seen.text()))?;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Everything that is shown.
struct Seen {
    mode: String,
    backends: Vec<BackendStatus>,
    daemon: Option<DaemonStatus>,
    /// Why nothing is known of a daemon, where that is not because none runs.
    daemon_trouble: Option<String>,
    daemon_enabled: bool,
    key: Option<String>,
    server: Option<String>,
    server_key: Option<String>,
    user_file: Option<std::path::PathBuf>,
    user_file_exists: bool,
    projects: Vec<String>,
    problems: Vec<String>,
}

impl Seen {
    async fn now(app: &App, surroundings: &Surroundings, globals: &Globals) -> Self {
        let settings = app.router.settings();
        let layers = app.configuration.layers();
        let (daemon, daemon_trouble) = match surroundings.daemon_place() {
            Ok(place) => match client::status(&place, &Build::of_this_program()).await {
                Ok(daemon) => (daemon, None),
                Err(error) => (None, Some(error.to_string())),
            },
            Err(error) => (None, Some(error.to_string())),
        };
        let mut backends = app.router.status();
        if let Some(daemon) = &daemon {
            for backend in &mut backends {
                told_by(daemon, backend);
            }
        }
        let mode = serde_json::to_value(settings.mode).unwrap_or_default();
        Self {
            mode: mode.as_str().unwrap_or_default().to_owned(),
            backends,
            daemon,
            daemon_trouble,
            daemon_enabled: settings.daemon.enabled,
            key: layers.key_origin().map(|origin| origin.to_string()),
            server: settings.server.base_url.clone(),
            server_key: layers.server_key_origin().map(|origin| origin.to_string()),
            user_file: surroundings.user_file(globals).map(|(file, _)| file),
            user_file_exists: layers.user.is_some(),
            projects: layers
                .projects
                .iter()
                .map(|layer| layer.place.clone())
                .collect(),
            problems: layers.problems.iter().flat_map(lines).collect(),
        }
    }

    fn exit(&self) -> Exit {
        if self.problems.is_empty() {
            Exit::Done
        } else {
            Exit::Usage
        }
    }

    fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.mode,
            "backends": self.backends,
            "daemon": self.daemon,
            "daemon_problem": self.daemon_trouble,
            "claude_key": self.key,
            "server": self.server,
            "server_key": self.server_key,
            "user_file": self.user_file,
            "user_file_exists": self.user_file_exists,
            "project_files": self.projects,
            "problems": self.problems,
        })
    }

    fn text(&self) -> String {
        let bold = Style::new().bold();
        let dim = Style::new().dimmed();
        let mut text = format!(
            "tandem {}, mode {}\n",
            env!("CARGO_PKG_VERSION"),
            styled(bold, &self.mode)
        );
        for backend in &self.backends {
            let (colour, state) = match (backend.kind, &backend.health) {
                // There is nothing to load, and it is not asked to show how it is.
                (BackendKind::Server, Health::Unloaded) => {
                    (AnsiColor::Green.on_default(), "not asked yet".to_owned())
                }
                (_, health) => described(health),
            };
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
        let daemon = match (&self.daemon, &self.daemon_trouble) {
            (Some(daemon), _) => daemon::text(daemon),
            (None, Some(trouble)) => format!("{}\n", styled(AnsiColor::Red.on_default(), trouble)),
            (None, None) if !self.daemon_enabled => {
                "switched off; each session loads its own model\n".to_owned()
            }
            (None, None) => "none runs; a session starts one on first need\n".to_owned(),
        };
        let _ = write!(text, "Daemon: {daemon}");
        let key = self.key.as_ref().map_or_else(
            || {
                "none: set ANTHROPIC_API_KEY, or `claude.api_key_command` in your own file"
                    .to_owned()
            },
            |origin| format!("from {origin}"),
        );
        let _ = writeln!(text, "Claude's key: {key}");
        if let Some(server) = &self.server {
            let key = self.server_key.as_ref();
            let key = key.map_or_else(|| "no key".to_owned(), |from| format!("key from {from}"));
            let _ = writeln!(text, "Inference server: {server}, {key}");
        }
        let file = match &self.user_file {
            None => "nowhere: there is no home folder".to_owned(),
            Some(file) if self.user_file_exists => file.display().to_string(),
            Some(file) => format!(
                "{} {}",
                file.display(),
                styled(dim, "(not there, which is fine)")
            ),
        };
        let _ = writeln!(text, "Configuration: {file}");
        for project in &self.projects {
            let _ = writeln!(text, "Project: {project}");
        }
        let red = AnsiColor::Red.on_default();
        for problem in &self.problems {
            let _ = writeln!(
                text,
                "{} {problem}",
                styled(red, "Nothing leaves this machine:")
            );
        }
        text
    }
}

/// Each mistake on its own.
fn lines(problem: &ConfigError) -> Vec<String> {
    problem.to_string().lines().map(str::to_owned).collect()
}

/// A model that the daemon holds is as the daemon says: this process has only just begun.
fn told_by(daemon: &DaemonStatus, backend: &mut BackendStatus) {
    let held = daemon
        .models
        .iter()
        .find(|model| model.kind == backend.kind && model.name == backend.model);
    if let Some(held) = held {
        backend.health = held.health.clone().into();
        backend.placement = held.placement.clone().map(Into::into);
    }
}

/// A state in words, and its colour.
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
                "healthy, admitted for completions: first token in {:.0} ms, then {:.0} tokens/s",
                speed.first_token_ms, speed.tokens_per_second
            ),
        ),
        Health::Degraded { why } => (yellow, format!("degraded: {why}")),
        Health::Failed { error, .. } => (red, format!("failed: {error}")),
    }
}
