//! The way of a request: admission, policy, one backend after another until the first text, and
//! the record of who answered and why.

mod admission;
mod attempt;
mod breaker;
mod disclosure;
mod lanes;
mod policy;
mod refusal;
mod stream;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::inference::{
    Attribution, Backend, BackendKind, GenerateRequest, Health, Placement, RequestId, Task, Usage,
};
use crate::telemetry::{Decision, Decisions, Outcome};

use admission::Admission;
use attempt::Serving;
use breaker::{Clock, SystemClock};
use disclosure::Examiner;
use lanes::Lanes;
use policy::Situation;

pub use lanes::StatusChanges;
pub use stream::{Answer, NoAnswer, RoutedEvent, RoutedStream};

/// How long Claude is not asked again after it reported the day's spend cap reached without saying
/// for how long: short enough that a raised cap is noticed soon.
const CAP_HOLD: Duration = Duration::from_mins(1);

/// The backends that exist in this process.
#[derive(Clone, Default)]
pub struct Backends {
    /// The on-device model the user chose.
    pub local: Option<Arc<dyn Backend>>,
    /// `tandem-mini`.
    pub embedded: Option<Arc<dyn Backend>>,
    /// The user's inference server.
    pub server: Option<Arc<dyn Backend>>,
    /// Claude.
    pub claude: Option<Arc<dyn Backend>>,
}

/// A request and where it comes from.
#[derive(Debug, Clone)]
pub struct RouteRequest {
    /// What to generate.
    pub generate: GenerateRequest,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a request comes from, for admission and privacy.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The document's file, where there is one.
    pub file: Option<PathBuf>,
    /// What the document is called, which counts where it is in no file.
    pub name: Option<String>,
    /// Other files of which the request holds text, such as those that a diff changes: if one of
    /// them must not leave the machine, nothing does.
    pub also: Vec<PathBuf>,
    /// The workspace's folder, where there is one.
    pub workspace: Option<PathBuf>,
    /// The document, by any name that is stable while it is open: the latest automatic request for
    /// a document wins over earlier ones.
    pub document: Option<String>,
    /// Whether the request started by itself, while typing.
    pub automatic: bool,
    /// How long typing must rest before an automatic request is begun.
    pub rest: Duration,
    /// Whether nobody has asked for it yet: it is for models of this machine, and gives way to
    /// whatever is asked about its document.
    pub ahead: bool,
}

/// The state of one backend, for people.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BackendStatus {
    /// The engine.
    pub kind: BackendKind,
    /// Its model.
    pub model: String,
    /// Its health.
    pub health: Health,
    /// Its breaker: `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// Where its model was asked to run and where it was seen to; none for one on another machine.
    pub placement: Option<Placement>,
}

/// Routes requests. One a session; cheap to share behind an [`Arc`].
pub struct Router {
    settings: watch::Receiver<Arc<Settings>>,
    lanes: Lanes,
    clock: Arc<dyn Clock>,
    admission: Admission,
    examiner: Arc<Examiner>,
    decisions: Decisions,
    /// Until when the day's spend cap is known to be reached.
    capped_until: Mutex<Option<Instant>>,
}

impl Router {
    /// A router over `backends` that follows `settings` as they change.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>, backends: Backends) -> Self {
        Self::with_clock(settings, backends, Arc::new(SystemClock))
    }

    fn with_clock(
        settings: watch::Receiver<Arc<Settings>>,
        backends: Backends,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            settings,
            lanes: Lanes::new(backends, &clock),
            clock,
            admission: Admission::default(),
            examiner: Arc::default(),
            decisions: Decisions::default(),
            capped_until: Mutex::new(None),
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Routes a request. Returns at once; must be called within a tokio runtime.
    pub fn route(
        self: &Arc<Self>,
        request: RouteRequest,
        cancel: &CancellationToken,
    ) -> RoutedStream {
        let cancel = cancel.child_token();
        let completion = matches!(request.generate.task, Task::Complete(_));
        let (outlet, stream) = RoutedStream::channel(completion, cancel.clone().drop_guard());
        let ask = attempt::ask(&request, &self.settings());
        // At once and not in the task, so that requests supersede each other in the order of their
        // arrival.
        let standing = self.admission.arrive(&ask, &cancel);
        let serving = Serving::new(Arc::clone(self), request, cancel, outlet);
        // Ends with the request, which ends with its token, which the stream's drop cancels.
        tokio::spawn(serving.run(ask, standing));
        stream
    }

    /// Notes that a completion for `document` needs nobody, since an answer that was given before
    /// holds again. Ends an older automatic request for the document, as any newer request does.
    pub fn note_recalled(
        &self,
        document: &str,
        automatic: bool,
        attribution: Option<Attribution>,
        outcome: Outcome,
    ) {
        self.admission.displace(document);
        self.decisions.record(Decision {
            id: RequestId::next(),
            at: SystemTime::now(),
            task: "complete",
            automatic,
            cached: true,
            attribution,
            outcome,
            why: None,
            failed_attempts: Vec::new(),
            took: Duration::ZERO,
            first_token: None,
            usage: Usage::default(),
        });
    }

    /// Asks the on-device models to load, without waiting, as far as the mode may need them.
    pub fn warm_up(&self) {
        let settings = self.settings();
        if settings.mode != crate::config::Mode::ClaudeOnly {
            if let Some(local) = &self.lanes.local {
                local.gate.warm_up();
            }
            if let Some(embedded) = self
                .lanes
                .embedded
                .as_ref()
                .filter(|_| settings.local.embedded)
            {
                embedded.gate.warm_up();
            }
        }
    }

    /// Asks the local model to load and waits until it has, or cannot, or `patience` is at its end;
    /// where an inference server is asked first, nobody waits. For who asks one thing only: a session answers from elsewhere while its model loads, but a
    /// process that ends after one answer would never hear the model it was given.
    pub async fn local_decided(&self, patience: Duration) {
        let mode = self.settings().mode;
        let server_first = mode == crate::config::Mode::Auto && self.lanes.server.is_some();
        if mode == crate::config::Mode::ClaudeOnly || server_first {
            return;
        }
        if let Some(local) = &self.lanes.local {
            local.gate.warm_up();
            // Where that is not enough, the router decides by what is known then.
            let _ = tokio::time::timeout(patience, local.decided()).await;
        }
    }

    /// The backends and their states, the first choice for a light request first.
    #[must_use]
    pub fn status(&self) -> Vec<BackendStatus> {
        self.lanes.status()
    }

    /// A way to wait until [`Self::status`] says something else.
    #[must_use]
    pub fn watch_status(&self) -> StatusChanges {
        self.lanes.watch()
    }

    /// The last decisions, newest last.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.decisions.all()
    }

    /// What a request's route depends on, as far as it is known without looking at its text.
    fn situation(&self, request: &RouteRequest, settings: &Settings) -> Situation {
        let capped = {
            let until = self.capped_until.lock();
            until
                .unwrap_or_else(PoisonError::into_inner)
                .is_some_and(|until| self.clock.now() < until)
        };
        self.lanes.situation(request, settings, capped)
    }

    /// Claude reported the day's spend cap reached.
    fn note_cap(&self, retry_after: Option<Duration>) {
        let hold = retry_after.unwrap_or(CAP_HOLD).min(CAP_HOLD);
        let until = self.clock.now() + hold;
        let mut capped = self
            .capped_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *capped = Some(until);
    }

    fn breakers_changed(&self) {
        self.lanes.breakers_changed();
    }
}
