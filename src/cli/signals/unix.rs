//! SIGINT, SIGTERM and SIGHUP, which end a session in good order.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for one of them and gives its number. Must be called within a tokio runtime.
pub async fn termination() -> u8 {
    const SIGHUP: u8 = 1;
    const SIGINT: u8 = 2;
    const SIGTERM: u8 = 15;
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // The system's own way of ending the process is still there.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => SIGINT,
        () = wait(SignalKind::terminate()) => SIGTERM,
        () = wait(SignalKind::hangup()) => SIGHUP,
    }
}
