//! An inference server's health: what its answers say, and nothing else. It is healthy when it has
//! generated; that it listens or lists models says little.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::inference::{ErrorKind, GenerateError, Health};

/// A refused key is tried again after this, as Claude's.
const REFUSED_LIMIT: Duration = Duration::from_mins(5);

/// A server that cannot be reached, or does not answer in time, is left alone for so long: whoever types
/// meanwhile is served by somebody else at once, instead of waiting for a limit at every pause.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(15);

/// What an outcome tells of the server's health; `None` leaves it as it is.
pub fn after(outcome: Result<(), &GenerateError>) -> Option<Health> {
    let error = match outcome {
        Ok(()) => return Some(Health::Healthy { speed: None }),
        Err(error) => error,
    };
    let failed = |limit| Health::Failed {
        error: error.to_string(),
        retry_after: Some(limit),
    };
    match error.kind {
        ErrorKind::Unauthorized => Some(failed(REFUSED_LIMIT)),
        ErrorKind::Timeout | ErrorKind::Backend => Some(failed(UNREACHABLE_LIMIT)),
        // It is there and does something else than was thought, for this kind of request at least.
        ErrorKind::Unavailable => Some(Health::Degraded {
            why: error.to_string(),
        }),
        ErrorKind::InvalidRequest
        | ErrorKind::TooLong
        | ErrorKind::RateLimited
        | ErrorKind::SpendCap
        | ErrorKind::Denied
        | ErrorKind::Refused
        | ErrorKind::Cancelled => None,
    }
}

/// Lets a server that failed be asked again after a while. Ends with the backend, which aborts it.
pub async fn forgive(health: Arc<watch::Sender<Health>>) {
    let mut seen = health.subscribe();
    loop {
        let failed_for = match *seen.borrow_and_update() {
            Health::Failed { retry_after, .. } => retry_after,
            _ => None,
        };
        let forgiven = async {
            match failed_for {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Never an error: this task holds the sender.
            _ = seen.changed() => {}
            () = forgiven => {
                health.send_replace(Health::Unloaded);
            }
        }
    }
}
