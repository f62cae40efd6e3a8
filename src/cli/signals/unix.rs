//! SIGINT, SIGTERM and SIGHUP, which end a session in good order.

use tokio::signal::unix::{Signal, SignalKind, signal};

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Listens from the moment it is made. A signal that the system does not let us listen to keeps its
/// own way of ending the process.
pub struct Termination {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Termination {
    /// Starts to listen. Must be called within a tokio runtime.
    #[must_use]
    pub fn listen() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup: signal(SignalKind::hangup()).ok(),
        }
    }

    /// Waits for the next of them and gives its number.
    pub async fn received(&mut self) -> u8 {
        tokio::select! {
            () = one(self.interrupt.as_mut()) => SIGINT,
            () = one(self.terminate.as_mut()) => SIGTERM,
            () = one(self.hangup.as_mut()) => SIGHUP,
        }
    }
}

async fn one(signals: Option<&mut Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}
