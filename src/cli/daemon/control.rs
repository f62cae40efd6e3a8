//! `tandem daemon status`, `stop` and `logs`: what a person does with a daemon that runs. None of
//! them starts one, and none needs a configuration.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::cli::exit::{Exit, Failure};
use crate::cli::signals::Termination;
use crate::cli::{edge::Surroundings, output, runtime, status};
use crate::daemon::client::{self, ClientError};
use crate::daemon::{Build, Place};

/// How often a log is looked at for more: often enough to read along.
const LOG_PACE: Duration = Duration::from_millis(250);

/// Bytes from the end of the log in which its last lines are looked for.
const LOG_TAIL: u64 = 1 << 20;

/// `tandem daemon status`. The exit code tells a script whether one runs.
pub fn status(surroundings: &Surroundings, json: bool) -> Result<Exit, Failure> {
    let place = place(surroundings)?;
    let status = ask(client::status(&place, &Build::of_this_program()))?;
    if json {
        output::print_json(&json!({
            "running": status.is_some(),
            "socket": place.socket(),
            "log": place.log(),
            "daemon": status,
        }))?;
    } else if let Some(status) = &status {
        output::print_styled(&status::daemon::text(status))?;
    } else {
        output::note(
            "no daemon runs. The first session that needs a model starts one; `tandem daemon run` \
             starts one here.",
        );
    }
    Ok(if status.is_some() {
        Exit::Done
    } else {
        Exit::Unavailable
    })
}

/// `tandem daemon stop`.
pub fn stop(surroundings: &Surroundings) -> Result<Exit, Failure> {
    let place = place(surroundings)?;
    match ask(client::drain(&place, &Build::of_this_program()))? {
        Some(process) => output::note(&format!(
            "the daemon (process {process}) has answered what it had begun, and ended."
        )),
        None => output::note("no daemon runs."),
    }
    Ok(Exit::Done)
}

/// `tandem daemon logs`.
pub fn logs(surroundings: &Surroundings, lines: usize, follow: bool) -> Result<Exit, Failure> {
    let place = place(surroundings)?;
    let path = place.log();
    let mut log = match File::open(path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::Told(
                Exit::Unavailable,
                format!(
                    "{}: no session has started a daemon yet, so there is no log. One that you run \
                     by hand logs to its terminal.",
                    path.display()
                ),
            ));
        }
        Err(error) => return Err(unreadable(path, &error)),
    };
    let text = tail(&mut log, lines).map_err(|error| unreadable(path, &error))?;
    output::print_bytes(text.as_bytes())?;
    if !follow {
        return Ok(Exit::Done);
    }
    runtime()?.block_on(async {
        let mut termination = Termination::listen();
        let following = async {
            loop {
                tokio::time::sleep(LOG_PACE).await;
                let mut more = Vec::new();
                log.read_to_end(&mut more)
                    .map_err(|error| unreadable(path, &error))?;
                output::print_bytes(harmless(&more).as_bytes())?;
            }
        };
        tokio::select! {
            ended = following => ended,
            _ = termination.received() => Ok(Exit::Done),
        }
    })
}

fn place(surroundings: &Surroundings) -> Result<Place, Failure> {
    surroundings
        .daemon_place()
        .map_err(|error| Failure::Told(Exit::Unavailable, error.to_string()))
}

fn ask<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
    runtime()?
        .block_on(answer)
        .map_err(|error| Failure::failed(error.to_string()))
}

/// The last `lines` lines; the log is then at its end.
fn tail(log: &mut File, lines: usize) -> io::Result<String> {
    let start = log.metadata()?.len().saturating_sub(LOG_TAIL);
    log.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    let text = harmless(&bytes);
    let first = text.lines().count().saturating_sub(lines);
    Ok(text.split_inclusive('\n').skip(first).collect())
}

fn harmless(bytes: &[u8]) -> String {
    output::harmless(&String::from_utf8_lossy(bytes))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!(
        "{}: the log cannot be read: {error}. Check who owns it.",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_reading_goes_on_behind_them() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\ntwo\n\x1b[2Jthree").unwrap();
        let mut log = File::open(file.path()).unwrap();
        assert_eq!(tail(&mut log, 2).unwrap(), "two\n[2Jthree");
        file.write_all(b"\nfour\n").unwrap();
        let mut more = String::new();
        log.read_to_string(&mut more).unwrap();
        assert_eq!(more, "\nfour\n");
        assert_eq!(tail(&mut log, 99).unwrap().lines().count(), 4);
        assert_eq!(tail(&mut log, 0).unwrap(), "");
    }
}
