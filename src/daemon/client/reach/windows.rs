//! On Windows: the pipe that the notice in the folder names, and whose process is at its other end.
//! Type-checked, and never run on Windows itself.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient};
use tokio::time::{Instant, sleep};

use super::NotConnected;
use crate::daemon::Place;
use crate::daemon::pipe::{
    Examined, LONGEST_NOTICE, Notice, PIPE_BUSY, Process, process_of_server,
};

/// Between two tries to connect while somebody else does: the daemon waits again within microseconds.
const AGAIN: Duration = Duration::from_millis(10);

/// A daemon that waits for nobody for so long does not react.
const BUSY: Duration = Duration::from_secs(3);

/// A connection that nothing has been said over.
pub type Stream = NamedPipeClient;

/// The process at the other end, of our user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(Process);

/// Connects to whoever listens in `place`, whose folder was checked, and checks the user.
pub async fn connect(place: &Place) -> Result<(Stream, Peer), NotConnected> {
    let give_up = Instant::now() + BUSY;
    let stream = loop {
        // Each time anew: another daemon may have come.
        let notice = notice(place)?;
        match ClientOptions::new().open(notice.pipe()) {
            Ok(stream) => break stream,
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                if Instant::now() > give_up {
                    let Notice { pid, created, .. } = notice;
                    return Err(NotConnected::Busy(Some(Peer(Process { pid, created }))));
                }
                sleep(AGAIN).await;
            }
            Err(error) => {
                return Err(match error.kind() {
                    // A daemon that was killed leaves its notice.
                    io::ErrorKind::NotFound => NotConnected::NoneRuns,
                    io::ErrorKind::PermissionDenied => foreign(),
                    _ => NotConnected::Io(error),
                });
            }
        }
    };
    match process_of_server(&stream) {
        Ok(Examined::Ours(process)) => Ok((stream, Peer(process))),
        Ok(Examined::Foreign) => Err(foreign()),
        Err(error) => Err(NotConnected::Io(error)),
    }
}

/// Ends a process that does not react. Says whether it was told to.
pub fn kill(Peer(process): Peer) -> bool {
    // A daemon inside this very process is one of the tests'.
    process.pid != std::process::id() && process.end().unwrap_or(false)
}

fn notice(place: &Place) -> Result<Notice, NotConnected> {
    let mut text = String::new();
    let read = File::open(place.socket())
        .and_then(|file| file.take(LONGEST_NOTICE).read_to_string(&mut text));
    match read {
        // The daemon of one that makes no sense writes it anew within a second.
        Ok(_) => Notice::read(&text).ok_or(NotConnected::NoneRuns),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => NotConnected::NoneRuns,
            _ => NotConnected::Io(error),
        }),
    }
}

fn foreign() -> NotConnected {
    NotConnected::Foreign {
        holder: "another user's process".to_owned(),
    }
}
