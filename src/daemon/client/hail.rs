//! The first words with a daemon: who both are, and whether they understand each other.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::reach::{self, NotConnected, Peer, Stream};
use crate::daemon::wire::{DaemonHello, FromDaemon, PROTOCOLS, SessionHello, ToDaemon};
use crate::daemon::{Build, Frame, FrameError, HELLO_LIMIT, Place, frame};

/// Who calls, and how.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) place: Place,
    pub(super) build: Build,
    /// What it is, for people.
    pub(super) name: String,
    /// Whether it asks for models.
    pub(super) works: bool,
    /// How long the daemon may take to say who it is.
    pub(super) patience: Duration,
}

/// A daemon that has said who it is.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) daemon: DaemonHello,
}

/// Why nobody has.
#[derive(Debug)]
pub(super) enum NotGreeted {
    /// Nobody could be connected to.
    NotConnected(NotConnected),
    /// It hung up before a word: it is about to end, or just ended.
    Vanished,
    /// It ends, and takes no requests.
    Draining(Build),
    /// It said nothing in time.
    Silent(Peer),
    /// It does not want us, or does not understand us.
    Refused {
        /// What happened, without a closing full stop.
        why: String,
        /// The next step.
        next_step: String,
    },
}

impl Caller {
    /// Connects, and exchanges names.
    pub(super) async fn hail(&self) -> Result<Greeted, NotGreeted> {
        let (mut stream, peer) =
            reach::connect(&self.place)
                .await
                .map_err(|error| match error {
                    NotConnected::Busy(Some(peer)) => NotGreeted::Silent(peer),
                    error => NotGreeted::NotConnected(error),
                })?;
        let greeting = tokio::time::timeout(self.patience, self.greet(&mut stream));
        let daemon = match greeting.await {
            Err(_) => return Err(NotGreeted::Silent(peer)),
            Ok(greeted) => greeted?,
        };
        if daemon.draining && self.works {
            return Err(NotGreeted::Draining(daemon.build));
        }
        Ok(Greeted {
            stream,
            peer,
            daemon,
        })
    }

    async fn greet<S>(&self, stream: &mut S) -> Result<DaemonHello, NotGreeted>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = ToDaemon::Hello(SessionHello {
            protocols: PROTOCOLS,
            build: self.build.clone(),
            pid: std::process::id(),
            name: self.name.clone(),
            works: self.works,
        });
        let frame = Frame::new(&hello).map_err(|error| unclear(&error))?;
        // A daemon that ends may have hung up, and may have said why before that: so it is read anyway.
        let _ = stream.write_all(frame.bytes()).await;
        let daemon = match frame::read(stream, HELLO_LIMIT).await {
            Ok(Some(FromDaemon::Hello(daemon))) => daemon,
            Ok(Some(FromDaemon::Refused { why, next_step })) => {
                return Err(NotGreeted::Refused { why, next_step });
            }
            Ok(None) | Err(FrameError::Io(_) | FrameError::CutShort) => {
                return Err(NotGreeted::Vanished);
            }
            Ok(Some(_)) => return Err(unclear(&"it did not say who it is")),
            Err(error) => return Err(unclear(&error)),
        };
        if (PROTOCOLS.min..=PROTOCOLS.max).contains(&daemon.protocol) {
            Ok(daemon)
        } else {
            Err(unclear(&format!("it speaks protocol {}", daemon.protocol)))
        }
    }
}

fn unclear(why: &impl std::fmt::Display) -> NotGreeted {
    NotGreeted::Refused {
        why: format!("the daemon is not understood: {why}"),
        next_step: "Run `tandem daemon stop`; sessions start one of their own build.".to_owned(),
    }
}
