//! The command line: parse, build, do, and say how it went.

mod args;
mod ask;
mod complete;
mod configuration;
mod daemon;
mod doctor;
mod edge;
mod exit;
mod generate;
mod install;
mod language;
mod logging;
mod model;
mod output;
mod place;
mod progress;
mod schemas;
mod serve;
#[cfg_attr(unix, path = "signals/unix.rs")]
#[cfg_attr(not(unix), path = "signals/other.rs")]
mod signals;
mod status;

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use tokio::runtime::Runtime;
use tokio_util::task::AbortOnDropHandle;

use self::args::{Cli, Command, ConfigCommand, DaemonCommand, Globals};
use self::edge::Surroundings;
use self::exit::{Exit, Failure};
use self::logging::Teller;
use self::signals::Termination;
use crate::app::{App, ScriptedAnswer, Sharing};
use crate::backend::local::threads;
use crate::config::Layers;
use crate::daemon::Build;

/// Threads for protocols and sockets. Arithmetic has its own, and a session has one client.
const ASYNC_THREADS: usize = 2;

/// Parses the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(&line) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes; clap knows which stream each belongs to.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            let _ = error.print();
            return exit.into();
        }
    };
    let surroundings = Surroundings::of_process();
    match dispatch(cli, &surroundings) {
        Ok(exit) => exit.into(),
        Err(Failure::Unread) => Exit::Done.into(),
        Err(Failure::Told(exit, message)) => {
            // Nothing can be told where standard error is closed.
            let _ = writeln!(io::stderr(), "tandem: {message}");
            exit.into()
        }
    }
}

fn dispatch(cli: Cli, surroundings: &Surroundings) -> Result<Exit, Failure> {
    let Cli { command, globals } = cli;
    match command {
        None if surroundings.stdin_is_terminal => help(),
        None => session("session", &globals, surroundings, serve::detected),
        Some(Command::Lsp) => session("lsp", &globals, surroundings, serve::lsp),
        Some(Command::Mcp(args)) => session("mcp", &globals, surroundings, |app, surroundings| {
            serve::mcp(app, surroundings, args)
        }),
        Some(Command::Complete(args)) => {
            let sharing = Models::SharedIfRunning("complete");
            command_with(sharing, &globals, surroundings, |app| {
                complete::run(app, surroundings, args)
            })
        }
        Some(Command::Ask(args)) => {
            let sharing = Models::SharedIfRunning("ask");
            command_with(sharing, &globals, surroundings, |app| {
                ask::run(app, surroundings, args)
            })
        }
        Some(Command::Doctor(args)) => doctor::run(&globals, surroundings, &args),
        Some(Command::Generate(args)) => generate::run(&globals, surroundings, &args),
        Some(Command::Status(args)) => command_with(Models::Own, &globals, surroundings, |app| {
            status::run(app, surroundings, &globals, args)
        }),
        Some(Command::Model(command)) => command_with(Models::Own, &globals, surroundings, |app| {
            model::run(app, surroundings, command)
        }),
        Some(Command::Daemon(DaemonCommand::Run(args))) => {
            daemon::run::run(&args, &globals, surroundings)
        }
        Some(Command::Daemon(DaemonCommand::Status { json })) => {
            daemon::control::status(surroundings, json)
        }
        Some(Command::Daemon(DaemonCommand::Stop)) => daemon::control::stop(surroundings),
        Some(Command::Daemon(DaemonCommand::Logs { lines, follow })) => {
            daemon::control::logs(surroundings, lines, follow)
        }
        Some(Command::Config(ConfigCommand::Show { json })) => {
            configuration::show(&globals, surroundings, json)
        }
        Some(Command::Config(ConfigCommand::Schema { project })) => {
            schemas::print(if project { "project" } else { "config" })
        }
        Some(Command::Config(ConfigCommand::Init { stdout })) => {
            configuration::init(&globals, surroundings, stdout)
        }
        Some(Command::Config(ConfigCommand::Path)) => configuration::path(&globals, surroundings),
        Some(Command::Schema { name, write }) => match (name, write) {
            (_, Some(folder)) => schemas::write(&surroundings.folder.join(folder)),
            (Some(name), None) => schemas::print(&name),
            (None, None) => schemas::list(),
        },
        Some(Command::Install(into)) => install::install(surroundings, &into),
        Some(Command::Uninstall(from)) => install::uninstall(surroundings, &from),
        Some(Command::Completions { shell }) => completions(shell),
    }
}

fn help() -> Result<Exit, Failure> {
    Cli::command()
        .print_help()
        .map_err(|error| Failure::write(&error))?;
    Ok(Exit::Done)
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tandem", &mut script);
    output::print_bytes(&script)?;
    Ok(Exit::Done)
}

/// Runs a session that lives as long as its client. It starts whatever the configuration says: a
/// mistake there closes the way out and is told, and the rest works.
fn session<F: Future<Output = Result<Exit, Failure>>>(
    name: &'static str,
    globals: &Globals,
    surroundings: &Surroundings,
    serve: impl FnOnce(App, Surroundings) -> F,
) -> Result<Exit, Failure> {
    let layers = surroundings.layers(globals)?;
    with_app(Models::Shared(name), layers, globals, surroundings, |app| {
        serve(app, surroundings.clone())
    })
}

/// Runs a command that a person waits for, in the projects that govern the current folder.
fn command_with<F: Future<Output = Result<Exit, Failure>>>(
    models: Models,
    globals: &Globals,
    surroundings: &Surroundings,
    command: impl FnOnce(App) -> F,
) -> Result<Exit, Failure> {
    let layers = surroundings.layers(globals)?;
    edge::sound(&layers)?;
    with_app(models, layers, globals, surroundings, command)
}

/// Whose models a command uses. The name is the command's, for people.
#[derive(Debug, Clone, Copy)]
enum Models {
    /// Those of the daemon, which is started on first need.
    Shared(&'static str),
    /// Those of the daemon if one runs: a command that ends at once leaves no process behind.
    SharedIfRunning(&'static str),
    /// Its own.
    Own,
}

impl Models {
    /// How to come by them. `None`, too, where there is no place to share them.
    fn sharing(self, layers: &Layers, surroundings: &Surroundings) -> Option<Sharing> {
        let (name, starts) = match self {
            Self::Shared(name) => (name, true),
            Self::SharedIfRunning(name) => (name, false),
            Self::Own => return None,
        };
        let place = surroundings
            .daemon_place()
            .inspect_err(|error| tracing::debug!(%error, "models are not shared"))
            .ok()?;
        Some(Sharing {
            place,
            build: Build::of_this_program(),
            name,
            start: starts
                .then(|| surroundings.start_daemon(&layers.settings()))
                .flatten(),
        })
    }
}

fn with_app<F: Future<Output = Result<Exit, Failure>>>(
    models: Models,
    layers: Layers,
    globals: &Globals,
    surroundings: &Surroundings,
    work: impl FnOnce(App) -> F,
) -> Result<Exit, Failure> {
    // SAFETY: commands run on the main thread, and no other is started before this point.
    unsafe { threads::limit(layers.settings().local.threads) };
    let teller = match models {
        Models::Shared(_) => Teller::Log,
        Models::SharedIfRunning(_) | Models::Own => Teller::Command,
    };
    let log = &layers.settings().log;
    let filter = logging::start(log, surroundings.stderr_is_terminal, teller)?;
    for problem in &layers.problems {
        tracing::error!("{problem} Nothing leaves this machine until then.");
    }
    // The key for Claude is in it, and the user's text.
    daemon::detach::keep_memory_private();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        // Before any work: a client may end us as soon as it has its first answer.
        let mut termination = Termination::listen();
        let sharing = models.sharing(&layers, surroundings);
        let app = App::build(layers, surroundings.places(), scripted(globals), sharing);
        let app = app.map_err(|error| {
            Failure::failed(format!("{error:#}. Free some memory and try again."))
        })?;
        let _follows =
            AbortOnDropHandle::new(tokio::spawn(filter.follow(app.configuration.settings())));
        tokio::select! {
            outcome = work(app) => outcome,
            signal = termination.received() => Ok(Exit::Signal(signal)),
        }
    });
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn scripted(globals: &Globals) -> Option<ScriptedAnswer> {
    let text = globals.scripted_answer.clone()?;
    let pause = Duration::from_millis(globals.scripted_ms);
    Some(ScriptedAnswer { text, pause })
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .thread_name("tandem-io")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::failed(format!(
                "the system refuses a thread: {error}. End other programs and try again."
            ))
        })
}
