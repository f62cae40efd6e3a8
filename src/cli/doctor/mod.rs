//! `tandem doctor`: tries every backend and tells what was seen.

mod archive;

use std::fmt::Write as _;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use tokio::sync::watch;

use super::args::{DoctorArgs, Globals};
use super::edge::{self, Surroundings};
use super::exit::{Exit, Failure};
use super::output::{self, styled};
use super::{configuration, logging, model, runtime};
use crate::backend::local::probe::Floor;
use crate::backend::local::threads;
use crate::backend::server::ServerBackend;
use crate::config::{Mode, Settings};
use crate::daemon::wire::DaemonStatus;
use crate::daemon::{Build, client};
use crate::doctor::{Check, DaemonSeen, Examination, Outcome, Report, ServerSeen, Step};

/// See the module.
pub fn run(
    globals: &Globals,
    surroundings: &Surroundings,
    args: &DoctorArgs,
) -> Result<Exit, Failure> {
    let layers = surroundings.layers(globals)?;
    edge::sound(&layers)?;
    let settings = layers.settings();
    // SAFETY: commands run on the main thread, and no other is started before this point.
    unsafe { threads::limit(settings.local.threads) };
    let _filter = logging::start(
        &settings.log,
        surroundings.stderr_is_terminal,
        logging::Teller::Command,
    )?;
    let asked = args
        .runtime
        .map_or(settings.local.runtime.into(), |runtime| {
            runtime.of_components()
        });
    let named = settings.local.model.as_deref();
    let path = named.map(|named| model::path_of(named, surroundings, &settings.local));
    let model = path.transpose()?;
    let report = Examination {
        model: model.as_deref(),
        runtime: asked,
        weights: args.weights.as_deref(),
        device: settings.local.device,
        engine: settings.local.engine,
        floor: Floor::from(&settings.local),
        embedded: settings.local.embedded,
        claude_key: layers.key_origin().map(|origin| origin.to_string()),
        claude_allowed: settings.mode != Mode::LocalOnly,
        server: server_seen(&settings)?,
        daemon: daemon_seen(surroundings, settings.daemon.enabled),
    }
    .report();
    if let Some(place) = &args.report {
        let report = serde_json::to_value(&report)
            .map_err(|error| Failure::failed(format!("the report is no JSON: {error}.")))?;
        let contents = archive::Contents {
            report: &report,
            configuration: &configuration::explained(&layers),
            log: settings.log.file.as_deref(),
            home: surroundings.home.as_deref(),
        };
        archive::write(&surroundings.folder.join(place), &contents)?;
    }
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print_styled(&in_words(&report))?;
    }
    Ok(match report.verdict {
        Outcome::Failed => Exit::Failed,
        Outcome::Passed | Outcome::Warned | Outcome::Skipped => Exit::Done,
    })
}

fn server_seen(settings: &Settings) -> Result<ServerSeen, Failure> {
    if settings.server.base_url.is_none() {
        return Ok(ServerSeen::None);
    }
    if settings.mode != Mode::Auto {
        return Ok(ServerSeen::NotAllowed);
    }
    let (_changes, settings) = watch::channel(Arc::new(settings.clone()));
    let tried = runtime()?.block_on(async {
        match ServerBackend::new(settings) {
            Some(server) => ServerSeen::Tried(server.tried().await),
            None => ServerSeen::None,
        }
    });
    Ok(tried)
}

fn daemon_seen(surroundings: &Surroundings, enabled: bool) -> DaemonSeen {
    if !enabled {
        return DaemonSeen::Off;
    }
    let asked = || -> Result<Option<DaemonStatus>, String> {
        let place = surroundings
            .daemon_place()
            .map_err(|error| error.to_string())?;
        // Made where it is missing: whether it can be is what sessions need.
        place.prepare().map_err(|error| error.to_string())?;
        let runtime = runtime().map_err(|failure| failure.to_string())?;
        let build = Build::of_this_program();
        let status = runtime.block_on(client::status(&place, &build));
        status.map_err(|error| error.to_string())
    };
    match asked() {
        Err(trouble) => DaemonSeen::Unusable(trouble),
        Ok(None) => DaemonSeen::NoneRuns,
        Ok(Some(status)) => DaemonSeen::Runs {
            version: status.build.version,
            process: status.pid,
            sessions: status.sessions.len(),
        },
    }
}

fn in_words(report: &Report) -> String {
    let mut text = format!(
        "tandem {} on {} {}, {} processors\n",
        report.version, report.machine.os, report.machine.architecture, report.machine.processors
    );
    for row in &report.rows {
        let name: Vec<&str> = [
            Some(row.backend.as_str()),
            row.runtime.as_deref(),
            row.model.as_deref(),
        ]
        .into_iter()
        .flatten()
        .collect();
        let _ = writeln!(text, "\n{}", styled(Style::new().bold(), &name.join(" · ")));
        if let Some(requested) = &row.requested {
            let observed = row.observed.as_deref().unwrap_or("not to be seen here");
            let _ = writeln!(text, "  requested {requested}; observed: {observed}");
        }
        if let Some(prompts) = &row.prompts {
            let _ = writeln!(text, "  prompted as {prompts}");
        }
        for check in &row.checks {
            check_in_words(&mut text, check);
        }
    }
    let _ = match report.verdict {
        Outcome::Failed => writeln!(
            text,
            "\n{}",
            styled(
                AnsiColor::Red.on_default(),
                "Something that is configured does not work."
            )
        ),
        Outcome::Warned => writeln!(
            text,
            "\n{}",
            styled(
                AnsiColor::Yellow.on_default(),
                "What is configured works, and something should be looked at."
            )
        ),
        Outcome::Passed | Outcome::Skipped => writeln!(text, "\nWhat is configured works."),
    };
    text
}

fn check_in_words(text: &mut String, check: &Check) {
    let (colour, mark) = match check.outcome {
        Outcome::Passed => (AnsiColor::Green, "ok"),
        Outcome::Warned => (AnsiColor::Yellow, "look"),
        Outcome::Failed => (AnsiColor::Red, "fails"),
        Outcome::Skipped => (AnsiColor::BrightBlack, "not tried"),
    };
    let took = check
        .milliseconds
        .map_or_else(String::new, |took| format!(" ({took:.1} ms)"));
    let _ = writeln!(
        text,
        "  {} {:<14} {}{took}",
        // Padded first: a style's characters take no room on a terminal.
        styled(colour.on_default(), &format!("{mark:<9}")),
        name(check.step),
        output::harmless(&check.seen)
    );
    if let Some(next) = check.next_step.as_deref().filter(|next| !next.is_empty()) {
        let _ = writeln!(text, "  {:<24} {next}", "");
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Download => "download",
        Step::Configuration => "configuration",
        Step::Components => "components",
        Step::TensorSpecs => "tensor specs",
        Step::Initialization => "initialization",
        Step::Generation => "generation",
        Step::RuntimeErrors => "runtime errors",
        Step::OutputQuality => "output quality",
        Step::Speed => "speed",
    }
}
