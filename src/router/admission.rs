//! Who may start now: rest before automatic requests, latest wins for a document, a bounded number
//! at once, and a bounded queue in order of priority.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::inference::Priority;

/// How many requests may wait. Far more than any editor or host sends at once; whoever is behind
/// so many is better told so than kept waiting.
const QUEUE: usize = 64;

/// A request at the door.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who waits for it.
    pub priority: Priority,
    /// How many may run at once.
    pub concurrency: usize,
    /// What it displaces and what may displace it; `None` for requests that stand alone.
    pub claim: Option<Claim>,
}

/// What a completion says about its document.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The document.
    pub document: String,
    /// For a request that started by itself: how long typing must rest first. Only such requests
    /// can be displaced.
    pub automatic: Option<Duration>,
    /// Whether it was begun ahead of need: then it displaces nobody, and any other displaces it.
    pub ahead: bool,
}

/// Why a request may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Its token was cancelled.
    Cancelled,
    /// Too many are waiting.
    Busy,
}

/// The door. Cheap to clone.
#[derive(Clone, Default)]
pub struct Admission {
    inner: Arc<Mutex<Inner>>,
}

/// A request's standing for its document, from arrival to its end.
pub struct Standing {
    admission: Admission,
    document: Option<String>,
    number: u64,
    superseded: Arc<AtomicBool>,
}

/// One of the places to run at once. Dropping it lets the next one in.
pub struct Place(Admission);

#[derive(Default)]
struct Inner {
    running: usize,
    next: u64,
    waiting: BTreeMap<(Priority, u64), Waiter>,
    latest: HashMap<String, Latest>,
}

struct Waiter {
    concurrency: usize,
    admit: oneshot::Sender<Result<Place, NotAdmitted>>,
}

struct Latest {
    number: u64,
    ahead: bool,
    cancel: CancellationToken,
    superseded: Arc<AtomicBool>,
}

impl Admission {
    /// Notes that a request has arrived, and ends the older automatic one for its document by
    /// cancelling its token. `cancel` is this request's token, and is cancelled if the older one goes
    /// before.
    #[must_use]
    pub fn arrive(&self, ask: &Ask, cancel: &CancellationToken) -> Standing {
        let mut inner = self.lock();
        let number = inner.number();
        let superseded = Arc::new(AtomicBool::new(false));
        let mut document = None;
        if let Some(claim) = &ask.claim {
            let goes_before = |older: &Latest| claim.ahead && !older.ahead;
            let older = if inner.latest.get(&claim.document).is_some_and(goes_before) {
                superseded.store(true, Ordering::Release);
                cancel.cancel();
                None
            } else if claim.automatic.is_some() {
                document = Some(claim.document.clone());
                inner.latest.insert(
                    claim.document.clone(),
                    Latest {
                        number,
                        ahead: claim.ahead,
                        cancel: cancel.clone(),
                        superseded: Arc::clone(&superseded),
                    },
                )
            } else {
                inner.latest.remove(&claim.document)
            };
            drop(inner);
            if let Some(older) = older {
                older.displace();
            }
        }
        Standing {
            admission: self.clone(),
            document,
            number,
            superseded,
        }
    }

    /// Ends the automatic request for `document`, if there is one, for something newer that needs no
    /// place. What is computed ahead goes on: it is for what comes after that.
    pub fn displace(&self, document: &str) {
        let mut inner = self.lock();
        let older = match inner.latest.get(document) {
            Some(older) if !older.ahead => inner.latest.remove(document),
            _ => None,
        };
        drop(inner);
        if let Some(older) = older {
            older.displace();
        }
    }

    /// Waits until typing has rested and a place is free.
    ///
    /// # Errors
    /// When `cancel` is cancelled, or too many wait.
    pub async fn enter(&self, ask: &Ask, cancel: &CancellationToken) -> Result<Place, NotAdmitted> {
        let rest = ask.claim.as_ref().and_then(|claim| claim.automatic);
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(NotAdmitted::Cancelled),
                () = tokio::time::sleep(rest) => {}
            }
        }
        if cancel.is_cancelled() {
            return Err(NotAdmitted::Cancelled);
        }
        let (key, admitted) = {
            let mut inner = self.lock();
            if inner.has_room(ask.priority, ask.concurrency) {
                inner.running += 1;
                return Ok(Place(self.clone()));
            }
            if inner.waiting.len() >= QUEUE {
                // Whoever matters less gives way, the latest of them first.
                let least = inner.waiting.last_key_value().map(|(key, _)| *key);
                match least {
                    Some(least) if least.0 > ask.priority => {
                        if let Some(waiter) = inner.waiting.remove(&least) {
                            let _ = waiter.admit.send(Err(NotAdmitted::Busy));
                        }
                    }
                    _ => return Err(NotAdmitted::Busy),
                }
            }
            let key = (ask.priority, inner.number());
            let (admit, admitted) = oneshot::channel();
            let concurrency = ask.concurrency;
            inner.waiting.insert(key, Waiter { concurrency, admit });
            (key, admitted)
        };
        let _leaves = LeavesQueue {
            admission: self,
            key,
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(NotAdmitted::Cancelled),
            // The sender lives in the queue until it has sent.
            admitted = admitted => admitted.unwrap_or(Err(NotAdmitted::Busy)),
        }
    }

    fn leave(&self) {
        let mut inner = self.lock();
        inner.running = inner.running.saturating_sub(1);
        while let Some(entry) = inner.waiting.first_entry() {
            let (priority, concurrency) = (entry.key().0, entry.get().concurrency);
            if !inner.has_room(priority, concurrency) {
                return;
            }
            let Some((_, waiter)) = inner.waiting.pop_first() else {
                return;
            };
            inner.running += 1;
            // A place that nobody takes any more comes back here by its drop, which needs the lock.
            drop(inner);
            let _ = waiter.admit.send(Ok(Place(self.clone())));
            inner = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    fn displace(self) {
        self.superseded.store(true, Ordering::Release);
        self.cancel.cancel();
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Tools may not take the last place, nor background work the last two, so that a person at
    /// the cursor never waits for a long answer to end.
    fn has_room(&self, priority: Priority, concurrency: usize) -> bool {
        let kept_free = match priority {
            Priority::Inline => 0,
            Priority::Tool => 1,
            Priority::Background => 2,
        };
        self.running < concurrency.saturating_sub(kept_free).max(1)
    }
}

impl Standing {
    /// Whether a newer request took this one's place.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let Some(document) = &self.document else {
            return;
        };
        let mut inner = self.admission.lock();
        if inner
            .latest
            .get(document)
            .is_some_and(|latest| latest.number == self.number)
        {
            inner.latest.remove(document);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Takes a request out of the queue when it no longer waits, for whatever reason.
struct LeavesQueue<'a> {
    admission: &'a Admission,
    key: (Priority, u64),
}

impl Drop for LeavesQueue<'_> {
    fn drop(&mut self) {
        self.admission.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests;
