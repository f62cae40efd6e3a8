//! What a client that gave a progress token is told while it waits.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;
use tokio::time::Instant;

/// The shortest time between two notifications, and before the first: fast enough for a person, slow
/// enough for a host that draws each of them. An answer that comes sooner needs no progress.
const SHORTEST_GAP: Duration = Duration::from_millis(250);

/// The longest time without a notification: hosts that count progress as a sign of life (the
/// official SDKs can) give up after tens of seconds.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// Progress of one call. Without a token it says nothing.
pub(super) struct Progress {
    client: Option<(Peer<RoleServer>, ProgressToken)>,
    last: Instant,
    sent: f64,
}

impl Progress {
    pub(super) fn new(peer: Peer<RoleServer>, token: Option<ProgressToken>) -> Self {
        Self {
            client: token.map(|token| (peer, token)),
            last: Instant::now(),
            sent: 0.0,
        }
    }

    /// Waits until a sign of life is due; for ever where nobody wants one.
    pub(super) async fn silence(&self) {
        if self.client.is_some() {
            let first = self.sent == 0.0;
            let gap = if first { SHORTEST_GAP } else { LONGEST_GAP };
            tokio::time::sleep_until(self.last + gap).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a notification may be sent now.
    pub(super) fn is_due(&self) -> bool {
        self.client.is_some() && self.last.elapsed() >= SHORTEST_GAP
    }

    /// Says that `done` is done. The number sent grows each time, as the protocol demands, even if
    /// `done` does not.
    pub(super) async fn say(&mut self, done: usize, message: String) {
        let Some((peer, token)) = &self.client else {
            return;
        };
        self.last = Instant::now();
        self.sent = (done as f64).max(self.sent + 1.0);
        let note = ProgressNotificationParam::new(token.clone(), self.sent).with_message(message);
        // A client that is gone needs no progress.
        let _ = peer.notify_progress(note).await;
    }
}
