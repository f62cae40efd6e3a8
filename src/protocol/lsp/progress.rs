//! Work-done progress: a bar while a model is downloaded or loaded, and while a command works.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_lsp::lsp_types::notification::Progress;
use tower_lsp::lsp_types::request::WorkDoneProgressCreate;
use tower_lsp::lsp_types::{
    ProgressParams, ProgressParamsValue, ProgressToken, WorkDoneProgress, WorkDoneProgressBegin,
    WorkDoneProgressCreateParams, WorkDoneProgressEnd, WorkDoneProgressReport,
};

use crate::inference::{BackendKind, Health};

use super::client::Client;
use super::server::Server;

/// How long a client may take to make a bar. The work does not wait longer for a decoration.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows the backends' health for the life of the session: the status says it, and a bar shows
/// while one of them downloads or loads.
pub async fn follow(server: Arc<Server>) {
    let mut changes = server.session.router.watch_status();
    let mut bars: HashMap<(BackendKind, String), Bar> = HashMap::new();
    let mut before = None;
    loop {
        let status = server.session.router.status();
        let words: Vec<_> = status
            .iter()
            .map(|backend| (backend.health.word(), backend.breaker))
            .collect();
        if before
            .replace(words.clone())
            .is_some_and(|before| before != words)
        {
            // Whoever is asked first now may be another.
            server.suggestions.forget_stopgaps();
        }
        server.status.announce().await;
        for backend in status {
            let key = (backend.kind, backend.model);
            match Step::of(&backend.health) {
                Some(step) => {
                    if !bars.contains_key(&key) {
                        let title = format!("Tandem: {}", key.1);
                        if let Some(bar) = Bar::create(&server, title, None).await {
                            bars.insert(key.clone(), bar);
                        }
                    }
                    if let Some(bar) = bars.get(&key) {
                        bar.report(step.message, step.percentage).await;
                    }
                }
                None => {
                    if let Some(bar) = bars.remove(&key) {
                        bar.end(backend.health.word().to_owned()).await;
                    }
                }
            }
        }
        changes.changed().await;
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    message: String,
    percentage: Option<u32>,
}

impl Step {
    fn of(health: &Health) -> Option<Self> {
        let plain = |message: &str| {
            Some(Self {
                message: message.to_owned(),
                percentage: None,
            })
        };
        match health {
            Health::Downloading { bytes, total } => {
                let total = total.filter(|total| *total > 0);
                let percentage = total.map(|total| {
                    let share = u128::from(*bytes) * 100 / u128::from(total);
                    share.min(100) as u32
                });
                let of = total.map_or(String::new(), |total| format!(" of {}", mebibytes(total)));
                Some(Self {
                    message: format!("downloading, {}{of}", mebibytes(*bytes)),
                    percentage,
                })
            }
            Health::Loading => plain("loading"),
            Health::Probing => plain("trying it out"),
            Health::Absent { .. }
            | Health::Unloaded
            | Health::Healthy { .. }
            | Health::Degraded { .. }
            | Health::Failed { .. } => None,
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A bar that the client shows. Ends when dropped, if it has not before.
pub struct Bar {
    client: Client,
    token: ProgressToken,
    ended: bool,
}

impl Bar {
    /// A bar under the client's `token`, or, without one, under a new one of ours if the client
    /// shows such bars.
    pub async fn create(
        server: &Server,
        title: String,
        token: Option<ProgressToken>,
    ) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let client = server.client.clone();
        let token = match token {
            Some(token) => token,
            None if server.capabilities().progress => {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let token = ProgressToken::String(format!("tandem/{number}"));
                let params = WorkDoneProgressCreateParams {
                    token: token.clone(),
                };
                let created = client.request::<WorkDoneProgressCreate>(params);
                match tokio::time::timeout(PATIENCE, created).await {
                    Ok(Ok(())) => token,
                    refused => {
                        tracing::debug!(?refused, "no progress bar");
                        return None;
                    }
                }
            }
            None => return None,
        };
        let bar = Self {
            client,
            token,
            ended: false,
        };
        let begin = WorkDoneProgress::Begin(WorkDoneProgressBegin {
            title,
            cancellable: Some(false),
            message: None,
            percentage: None,
        });
        bar.client.notify::<Progress>(bar.value(begin)).await;
        Some(bar)
    }

    /// Moves the bar.
    pub async fn report(&self, message: String, percentage: Option<u32>) {
        let report = WorkDoneProgress::Report(WorkDoneProgressReport {
            cancellable: None,
            message: Some(message),
            percentage,
        });
        self.client.notify::<Progress>(self.value(report)).await;
    }

    /// Ends the bar.
    pub async fn end(mut self, message: String) {
        self.ended = true;
        let end = WorkDoneProgress::End(WorkDoneProgressEnd {
            message: Some(message),
        });
        self.client.notify::<Progress>(self.value(end)).await;
    }

    fn value(&self, value: WorkDoneProgress) -> ProgressParams {
        ProgressParams {
            token: self.token.clone(),
            value: ProgressParamsValue::WorkDone(value),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if !self.ended {
            let end = WorkDoneProgress::End(WorkDoneProgressEnd { message: None });
            self.client.notify_now::<Progress>(self.value(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_nothing_and_all() {
        for (bytes, total, percentage) in [
            (0, Some(10), Some(0)),
            (5, Some(10), Some(50)),
            (20, Some(10), Some(100)),
            (u64::MAX, Some(u64::MAX), Some(100)),
            (5, Some(0), None),
            (5, None, None),
        ] {
            let step = Step::of(&Health::Downloading { bytes, total }).unwrap();
            assert_eq!(step.percentage, percentage);
        }
        assert_eq!(Step::of(&Health::Unloaded), None);
    }
}
