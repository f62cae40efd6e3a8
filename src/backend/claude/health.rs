//! Claude's health: there is a key or none, and the key was refused lately or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{ApiKey, Settings};
use crate::inference::{ErrorKind, GenerateError, Health};

use super::failure;

/// A refused key is tried again after this: keys are seldom repaired where they are, but an account
/// may be.
const REFUSED_LIMIT: Duration = Duration::from_mins(5);

/// What health depends on besides the answers.
#[derive(PartialEq)]
pub struct Access {
    key: Option<ApiKey>,
    base_url: String,
}

impl Access {
    /// As `settings` have it.
    pub fn of(settings: &Settings) -> Self {
        Self {
            key: settings.claude.api_key.clone(),
            base_url: settings.claude.base_url.clone(),
        }
    }

    /// The health as long as nothing else is known.
    pub fn health(&self) -> Health {
        match self.key {
            Some(_) => Health::Healthy { speed: None },
            None => Health::Absent {
                why: failure::no_key().to_string(),
            },
        }
    }
}

/// What an outcome tells of Claude's health; `None` leaves it as it is.
pub fn after(outcome: Result<(), &GenerateError>) -> Option<Health> {
    match outcome {
        Ok(()) => Some(Health::Healthy { speed: None }),
        Err(error) if error.kind == ErrorKind::Unauthorized => Some(Health::Failed {
            error: error.to_string(),
            retry_after: Some(REFUSED_LIMIT),
        }),
        Err(_) => None,
    }
}

/// Follows the settings from when `access` was taken from them: another key, or another address,
/// begins anew. Ends with the settings.
pub async fn follow(
    mut access: Access,
    mut settings: watch::Receiver<Arc<Settings>>,
    health: Arc<watch::Sender<Health>>,
) {
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
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = Access::of(&settings.borrow_and_update());
                if now != access {
                    access = now;
                    health.send_replace(access.health());
                }
            }
            // Never an error: this task holds the sender.
            _ = seen.changed() => {}
            () = forgiven => {
                health.send_replace(access.health());
            }
        }
    }
}
