//! `tandem daemon run`: the daemon itself, before a person's eyes or started by a session.
//!
//! It reads no configuration, no key and no token: what a model needs, a session says.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::detach;
use crate::app::open_model;
use crate::backend::local::threads;
use crate::cli::args::{DaemonRunArgs, Globals};
use crate::cli::edge::Surroundings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::signals::Termination;
use crate::cli::{logging, output, runtime, scripted};
use crate::config::{LogFilter, LogSettings};
use crate::daemon::server::{Claim, ClaimError, Ended, Limits, OpenModel, ServerOptions, serve};
use crate::daemon::{Build, Place, Readiness};

/// A log that is longer, in bytes, is put aside at the next start.
const LONGEST_LOG: u64 = 4 << 20;

/// Runs the daemon to its end.
pub fn run(
    args: &DaemonRunArgs,
    globals: &Globals,
    surroundings: &Surroundings,
) -> Result<Exit, Failure> {
    // SAFETY: commands run on the main thread, and no other is started before this point.
    unsafe { threads::limit(args.threads.map(usize::from)) };
    // Before anything else, since the program's file may be replaced at any time.
    let build = Build::of_this_program();
    let place = surroundings.daemon_place();
    if args.detached {
        detach::leave_session();
    }
    detach::keep_memory_private();
    detach::make_room();
    let outcome = place
        .map_err(|error| Failure::failed(error.to_string()))
        .and_then(|place| {
            start_log(args, globals, surroundings, &place)?;
            let open = scripted(globals).map_or_else(open_model, |answer| answer.open_model());
            let options = ServerOptions {
                build,
                idle_exit: args.idle_exit,
                limits: Limits::default(),
            };
            work(args.detached, &place, open, options)
        });
    if let (true, Err(failure)) = (args.detached, &outcome) {
        tell(&Readiness::Failed(failure.to_string()));
    }
    outcome
}

fn work(
    detached: bool,
    place: &Place,
    open: OpenModel,
    options: ServerOptions,
) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        // Before anyone knows of us, and so can end us.
        let termination = Termination::listen();
        let claim = match Claim::take(place) {
            Ok(claim) => claim,
            Err(ClaimError::Another) if detached => {
                tell(&Readiness::Another);
                return Ok(Exit::Done);
            }
            Err(error) => return Err(Failure::failed(error.to_string())),
        };
        tracing::info!(version = %options.build, pid = std::process::id(), "listens");
        if detached {
            tell(&Readiness::Ready);
            detach::leave_pipes();
        } else {
            let socket = place.socket();
            output::note(&format!(
                "the daemon listens at {}. Ctrl-C ends it, as soon as all is answered; a second \
                 one at once.",
                socket.display()
            ));
        }
        Ok(until_ended(claim, open, options, termination).await)
    });
    // A model that is being loaded must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn until_ended(
    claim: Claim,
    open: OpenModel,
    options: ServerOptions,
    mut termination: Termination,
) -> Exit {
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut last = 0;
    let signals = async {
        termination.received().await;
        tracing::info!("a signal: ends as soon as all is answered");
        drain.cancel();
        last = termination.received().await;
        tracing::info!("a second signal: ends at once");
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = serve(claim, open, options, drain.clone(), stop.clone()) => ended,
        () = signals => Ended::Stopped,
    };
    tracing::info!(?ended, "ends");
    match ended {
        Ended::Drained | Ended::Idle => Exit::Done,
        Ended::Stopped => Exit::Signal(last),
    }
}

/// Tells whoever started the process; nobody may be left to read it.
fn tell(readiness: &Readiness) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(&readiness.bytes())
        .and_then(|()| stdout.flush());
}

fn start_log(
    args: &DaemonRunArgs,
    globals: &Globals,
    surroundings: &Surroundings,
    place: &Place,
) -> Result<(), Failure> {
    let mut log = LogSettings {
        // A few lines for each daemon and model; sessions would fill it, so they are told at `debug`.
        filter: "info".to_owned(),
        file: None,
    };
    if let Some(file) = &globals.log_file {
        log.file = Some(surroundings.folder.join(file));
    } else if args.detached {
        // Where there can be no log, the daemon serves without.
        match prepare_log(place.log()) {
            Ok(()) => log.file = Some(place.log().to_owned()),
            Err(error) => output::note(&format!("{}: {error}", place.log().display())),
        }
    }
    if let Some(filter) = &globals.log {
        let filter = LogFilter::new(filter).ok_or_else(|| {
            Failure::usage(format!(
                "--log: `{filter}` is no filter. Write a level such as `info`."
            ))
        })?;
        log.filter = filter.into_string();
    }
    logging::start(&log, surroundings.stderr_is_terminal, logging::Teller::Log)?;
    Ok(())
}

/// Puts a long log aside, and makes the log a file that only this user can read.
fn prepare_log(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if path.metadata().is_ok_and(|log| log.len() > LONGEST_LOG) {
        fs::rename(path, path.with_extension("log.old"))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}
