//! One question to a daemon that runs, for the command line: how it is, or to leave.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Limits;
use super::hail::{Caller, Greeted, NotGreeted};
use super::reach::NotConnected;
use crate::daemon::wire::{DaemonStatus, FromDaemon, ToDaemon};
use crate::daemon::{Build, Frame, FrameError, LIMIT, Place, PlaceError, frame};

/// Until a daemon that was asked to leave has: it may answer for a minute what is in flight.
const LEAVING: Duration = Duration::from_secs(65);

/// Why the daemon did not answer. Ends with the next step.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The folder is not safe, or cannot be looked at.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Somebody of another user listens in our folder.
    #[error("the daemon's socket is held by {holder}. Remove it; the daemon makes it anew.")]
    Foreign {
        /// Who, for people.
        holder: String,
    },
    /// The daemon does not want us.
    #[error("{why}. {next_step}")]
    Refused {
        /// What happened.
        why: String,
        /// The next step.
        next_step: String,
    },
    /// It does not answer.
    #[error(
        "the daemon does not react. Try again; if it stays so, end its process: a session starts a new one on need."
    )]
    Silent,
    /// The connection broke.
    #[error("the daemon went away in the middle: {0}. Try again.")]
    Broken(#[from] FrameError),
}

/// How the daemon in `place` is; `None` where none runs. Starts none.
///
/// # Errors
/// [`ClientError`].
pub async fn status(place: &Place, build: &Build) -> Result<Option<DaemonStatus>, ClientError> {
    let Some(mut daemon) = greet(place, build).await? else {
        return Ok(None);
    };
    let asked = tokio::time::timeout(Limits::default().hello, async {
        say(&mut daemon, &ToDaemon::Status).await?;
        loop {
            match hear(&mut daemon).await? {
                None => return Ok(None),
                Some(FromDaemon::Status(status)) => return Ok(Some(*status)),
                Some(_) => {}
            }
        }
    });
    asked.await.map_err(|_| ClientError::Silent)?
}

/// Asks the daemon in `place` to leave: it answers what is in flight, takes nothing new, and ends.
/// Returns when it has hung up, with its process; `None` where none runs.
///
/// # Errors
/// [`ClientError`]; [`ClientError::Silent`] also where it has not left after a minute.
pub async fn drain(place: &Place, build: &Build) -> Result<Option<u32>, ClientError> {
    let Some(mut daemon) = greet(place, build).await? else {
        return Ok(None);
    };
    let asked = tokio::time::timeout(LEAVING, async {
        // One that does not take the question is leaving already; one that is killed has left too.
        if say(&mut daemon, &ToDaemon::Drain).await.is_ok() {
            while let Ok(Some(_)) = hear(&mut daemon).await {}
        }
    });
    asked.await.map_err(|_| ClientError::Silent)?;
    Ok(Some(daemon.daemon.pid))
}

async fn greet(place: &Place, build: &Build) -> Result<Option<Greeted>, ClientError> {
    let caller = Caller {
        place: place.clone(),
        build: build.clone(),
        name: "command".to_owned(),
        works: false,
        patience: Limits::default().hello,
    };
    let refused = match caller.hail().await {
        Ok(greeted) => return Ok(Some(greeted)),
        Err(refused) => refused,
    };
    match refused {
        NotGreeted::Vanished | NotGreeted::Draining(_) => Ok(None),
        NotGreeted::Silent(_) => Err(ClientError::Silent),
        NotGreeted::Refused { why, next_step } => Err(ClientError::Refused { why, next_step }),
        NotGreeted::NotConnected(error) => match error {
            NotConnected::NoneRuns => Ok(None),
            NotConnected::Busy(_) => Err(ClientError::Silent),
            NotConnected::Place(error) => Err(error.into()),
            NotConnected::Foreign { holder } => Err(ClientError::Foreign { holder }),
            NotConnected::Io(error) => Err(FrameError::Io(error).into()),
        },
    }
}

async fn say(daemon: &mut Greeted, message: &ToDaemon) -> Result<(), FrameError> {
    let frame = Frame::new(message)?;
    Ok(daemon.stream.write_all(frame.bytes()).await?)
}

async fn hear(daemon: &mut Greeted) -> Result<Option<FromDaemon>, FrameError> {
    frame::read(&mut daemon.stream, LIMIT).await
}
