//! Logs: to standard error or a file, never to standard output, which belongs to the protocol.

use std::fs::OpenOptions;
use std::io;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::exit::Failure;
use crate::config::{LogSettings, Settings};

/// Who else tells of what fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// Nobody but a client that may keep it to itself: the log is where it is looked for.
    Log,
    /// A command, on standard error, before it ends. It is not said twice.
    Command,
}

/// Changes what is logged while the process runs.
pub struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    silent: &'static [&'static str],
}

impl Filter {
    /// Follows the settings until they are gone.
    pub async fn follow(self, mut settings: watch::Receiver<Arc<Settings>>) {
        let mut current = settings.borrow_and_update().log.filter.clone();
        while settings.changed().await.is_ok() {
            let wanted = settings.borrow_and_update().log.filter.clone();
            if wanted != current {
                // Does not fail: the subscriber lives as long as the process.
                let _ = self.handle.reload(filter_of(&wanted, self.silent));
                current = wanted;
            }
        }
    }
}

/// Starts logging, once a process. Colours only for a person (`colours`). What `teller` tells by itself
/// is logged only where the log is a file, or more is to be logged than is by default.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(settings: &LogSettings, colours: bool, teller: Teller) -> Result<Filter, Failure> {
    let silent: &[_] = match teller {
        Teller::Command if *settings == LogSettings::default() => &TOLD,
        Teller::Command | Teller::Log => &[],
    };
    let (writer, colours) = match &settings.file {
        None => (BoxMakeWriter::new(io::stderr), colours),
        Some(path) => {
            let opened = path
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| OpenOptions::new().create(true).append(true).open(path));
            let file = opened.map_err(|error| {
                Failure::usage(format!(
                    "{}: the log file cannot be opened: {error}. Correct `log.file`, or leave it \
                     out to log to standard error.",
                    path.display()
                ))
            })?;
            (BoxMakeWriter::new(Mutex::new(file)), false)
        }
    };
    let (filter, handle) = reload::Layer::new(filter_of(&settings.filter, silent));
    let lines = fmt::layer().with_writer(writer).with_ansi(colours);
    // Fails only where a subscriber stands already, as in tests that share a process.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(Filter { handle, silent })
}

/// Crates that, at `debug`, log what passes through them: whole requests and answers, with the
/// user's text, or a connection's headers. They stay silent unless a filter names a module of theirs.
const TALKATIVE: [&str; 6] = [
    "rmcp=error",
    "tower_lsp=error",
    "h2=warn",
    "hyper=warn",
    "hyper_util=warn",
    "reqwest=warn",
];

/// Where it is logged that a backend failed. Commands tell that with their answer or their error.
const TOLD: [&str; 3] = [
    "tandem::router::attempt=off",
    "tandem::backend::local::queue=off",
    "tandem::backend::local::named=off",
];

/// The filter that a text means, without what is `silent`. The text was checked when the configuration was
/// read.
fn filter_of(text: &str, silent: &[&str]) -> EnvFilter {
    let filter = EnvFilter::try_new(text).unwrap_or_default();
    TALKATIVE
        .iter()
        .chain(silent)
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive)
}

/// A panic's message may quote the user's text (a string that was cut inside a character, say), so
/// it is for those who ask for it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map_or_else(|| "somewhere".to_owned(), ToString::to_string);
    tracing::error!(
        place,
        "a defect in Tandem; what it was doing is lost, the rest goes on. Please report this line"
    );
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::debug!(place, message, "the defect's own words");
}
