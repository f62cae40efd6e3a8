//! What became of suggestions: shown, accepted, accepted in part.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_lsp::lsp_types::Command;

/// The command that an accepted item runs.
pub const ACCEPTED: &str = "tandem.accepted";

/// Suggestions whose fate may still be told. A client tells it within seconds, so this is many
/// minutes of typing.
const REMEMBERED: usize = 512;

/// Counts over the session, none of which hold text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptanceCounts {
    /// Suggestions that were sent to the client, each counted once: what is left of one after a key
    /// is the same.
    pub offered: u64,
    /// Completions for which nobody was asked, since what was suggested before still held.
    pub from_cache: u64,
    /// Suggestions the client says it has shown, each counted once.
    pub shown: u64,
    /// Suggestions accepted whole, each counted once.
    pub accepted: u64,
    /// Suggestions of which a part was accepted, each counted once.
    pub partially_accepted: u64,
}

/// Keeps [`AcceptanceCounts`].
#[derive(Debug, Default)]
pub struct Acceptance {
    next: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: AcceptanceCounts,
    recent: VecDeque<Fate>,
}

#[derive(Debug)]
struct Fate {
    id: u64,
    shown: bool,
    accepted: bool,
    partially: bool,
}

/// `textDocument/didShowCompletion`, after the convention of Copilot's language server.
#[derive(Debug, Deserialize)]
pub struct ShownParams {
    /// The item as it was sent.
    pub item: OfferedItem,
}

/// `textDocument/didPartiallyAcceptCompletion`, after the same.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialAcceptParams {
    /// The item as it was sent.
    pub item: OfferedItem,
    /// How much of its text was taken so far, in UTF-16 units.
    pub accepted_length: u64,
}

/// What identifies an item that comes back.
#[derive(Debug, Deserialize)]
pub struct OfferedItem {
    /// As it was sent.
    pub command: Option<Command>,
}

impl Acceptance {
    /// The command for a new suggestion, by which its fate will be known.
    pub fn offer(&self) -> Command {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut inner = self.lock();
        inner.counts.offered += 1;
        if inner.recent.len() == REMEMBERED {
            inner.recent.pop_front();
        }
        inner.recent.push_back(Fate {
            id,
            shown: false,
            accepted: false,
            partially: false,
        });
        Command {
            title: "Tell Tandem that this was accepted".to_owned(),
            command: ACCEPTED.to_owned(),
            arguments: Some(vec![json!({ "id": id })]),
        }
    }

    /// What was suggested before answered again.
    pub fn recalled(&self) {
        self.lock().counts.from_cache += 1;
    }

    /// A suggestion was shown.
    pub fn shown(&self, params: &ShownParams) {
        self.update(params.item.id(), |fate, counts| {
            counts.shown += u64::from(!std::mem::replace(&mut fate.shown, true));
        });
    }

    /// A part of a suggestion was accepted.
    pub fn partially_accepted(&self, params: &PartialAcceptParams) {
        if params.accepted_length == 0 {
            return;
        }
        self.update(params.item.id(), |fate, counts| {
            counts.partially_accepted += u64::from(!std::mem::replace(&mut fate.partially, true));
        });
    }

    /// A suggestion was accepted. Says whether it was one of ours.
    pub fn accepted(&self, arguments: &[Value]) -> bool {
        self.update(id(arguments), |fate, counts| {
            counts.accepted += u64::from(!std::mem::replace(&mut fate.accepted, true));
        })
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> AcceptanceCounts {
        self.lock().counts
    }

    fn update(
        &self,
        id: Option<u64>,
        change: impl FnOnce(&mut Fate, &mut AcceptanceCounts),
    ) -> bool {
        let mut inner = self.lock();
        let Inner { counts, recent } = &mut *inner;
        let fate = id.and_then(|id| recent.iter_mut().rev().find(|fate| fate.id == id));
        let Some(fate) = fate else {
            tracing::debug!(?id, "news of a suggestion that is not remembered");
            return false;
        };
        change(fate, counts);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfferedItem {
    fn id(&self) -> Option<u64> {
        id(self.command.as_ref()?.arguments.as_deref()?)
    }
}

fn id(arguments: &[Value]) -> Option<u64> {
    arguments.first()?["id"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_is_counted_once() {
        let acceptance = Acceptance::default();
        let command = acceptance.offer();
        let arguments = command.arguments.clone().unwrap();
        let item = || OfferedItem {
            command: Some(command.clone()),
        };
        for _ in 0..2 {
            acceptance.shown(&ShownParams { item: item() });
            for accepted_length in [0, 3] {
                acceptance.partially_accepted(&PartialAcceptParams {
                    item: item(),
                    accepted_length,
                });
            }
            assert!(acceptance.accepted(&arguments));
        }
        let expected = AcceptanceCounts {
            offered: 1,
            from_cache: 0,
            shown: 1,
            accepted: 1,
            partially_accepted: 1,
        };
        assert_eq!(acceptance.counts(), expected);
    }

    #[test]
    fn strangers_are_not_counted() {
        let acceptance = Acceptance::default();
        for arguments in [vec![], vec![json!({"id": 9})], vec![json!("x")]] {
            assert!(!acceptance.accepted(&arguments));
        }
        for _ in 0..=REMEMBERED {
            acceptance.offer();
        }
        assert!(!acceptance.accepted(&[json!({"id": 1})]));
        assert!(acceptance.accepted(&[json!({"id": REMEMBERED})]));
    }
}
