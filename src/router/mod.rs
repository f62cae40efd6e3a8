//! The way of a request: admission, policy, one backend after another until the first text, and
//! the record of who answered and why.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::Settings;
use crate::inference::{
    Attribution, Backend, BackendKind, EmptyReason, ErrorKind, Event, Finish, GenerateError,
    GenerateRequest, Health, RouteReason,
};
use crate::telemetry::{Decision, Decisions};

/// As in [`crate::inference::TokenStream`]: more than a second of any engine's work.
const UNREAD_EVENTS: usize = 256;

/// The backends that exist in this process.
#[derive(Clone, Default)]
pub struct Backends {
    /// The on-device model the user chose.
    pub local: Option<Arc<dyn Backend>>,
    /// `tandem-mini`.
    pub embedded: Option<Arc<dyn Backend>>,
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
    /// The workspace's folder, where there is one.
    pub workspace: Option<PathBuf>,
    /// The document, by any name that is stable while it is open: the latest automatic request for
    /// a document wins over earlier ones.
    pub document: Option<String>,
    /// Whether the request started by itself, while typing.
    pub automatic: bool,
}

/// One thing that happens to a routed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum RoutedEvent {
    /// Who answers from here on. Precedes the first text.
    Attributed(Attribution),
    /// Text.
    Delta(String),
    /// The end, as wanted. Terminal.
    Done(Finish),
    /// The end, for a completion that came to nothing. Terminal.
    Empty(EmptyReason),
    /// The end, by failure. Terminal.
    Failed(GenerateError),
}

/// A routed answer as it comes. Dropping it cancels the work.
#[derive(Debug)]
pub struct RoutedStream {
    events: mpsc::Receiver<RoutedEvent>,
    _cancel_on_drop: DropGuard,
}

/// A whole answer, and who gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text, after post-processing. Not empty for a completion.
    pub text: String,
    /// Who gave it.
    pub attribution: Attribution,
    /// How it ended; `None` when it was cut at a deadline.
    pub finish: Option<Finish>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct NoAnswer {
    /// For a completion: the reason. Other tasks have none.
    pub empty: Option<EmptyReason>,
    /// What failed; `None` where nothing did and there was simply nothing to say.
    pub error: Option<GenerateError>,
    /// Who was asked last; `None` if nobody was.
    pub attribution: Option<Attribution>,
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
}

/// Routes requests. One a session; cheap to share behind an [`Arc`].
pub struct Router {
    settings: watch::Receiver<Arc<Settings>>,
    backends: Backends,
    decisions: Decisions,
}

impl Router {
    /// A router over `backends` that follows `settings` as they change.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>, backends: Backends) -> Self {
        Self {
            settings,
            backends,
            decisions: Decisions::default(),
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
        let (events, receiver) = mpsc::channel(UNREAD_EVENTS);
        let router = Arc::clone(self);
        let guard = cancel.clone().drop_guard();
        // Ends with the attempt, which ends with its token, which the stream's drop cancels.
        tokio::spawn(async move { router.attempt(request, cancel, events).await });
        RoutedStream {
            events: receiver,
            _cancel_on_drop: guard,
        }
    }

    async fn attempt(
        &self,
        request: RouteRequest,
        cancel: CancellationToken,
        events: mpsc::Sender<RoutedEvent>,
    ) {
        let Some(backend) = self
            .backends
            .local
            .as_ref()
            .or(self.backends.embedded.as_ref())
            .or(self.backends.claude.as_ref())
        else {
            let _ = events
                .send(RoutedEvent::Empty(EmptyReason::NoBackend))
                .await;
            return;
        };
        let descriptor = backend.descriptor();
        let attribution = Attribution {
            backend: descriptor.kind,
            model: descriptor.model.clone(),
            reason: RouteReason::LocalHealthy,
        };
        let mut stream = backend.generate(request.generate, cancel);
        let _ = events.send(RoutedEvent::Attributed(attribution)).await;
        while let Some(event) = stream.next().await {
            let event = match event {
                Event::Delta(text) => RoutedEvent::Delta(text),
                Event::Done(finish) => RoutedEvent::Done(finish),
                Event::Failed(error) => RoutedEvent::Failed(error),
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// The backends and their states, local first.
    #[must_use]
    pub fn status(&self) -> Vec<BackendStatus> {
        Vec::new()
    }

    /// The last decisions, newest last.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.decisions.all()
    }
}

impl RoutedStream {
    /// The next event, `None` after the terminal one.
    pub async fn next(&mut self) -> Option<RoutedEvent> {
        self.events.recv().await
    }

    /// Reads to the end, handing each piece of text to `on_text` as it comes, or until `limit` has
    /// passed: the answer then has no [`Answer::finish`], and the work behind it is cancelled.
    ///
    /// # Errors
    /// [`NoAnswer`] when there is no text to show; a limit that passes before the first text is
    /// [`ErrorKind::Timeout`].
    pub async fn collect_within(
        mut self,
        limit: Duration,
        mut on_text: impl FnMut(&str),
    ) -> Result<Answer, NoAnswer> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut text = String::new();
        let mut attribution = None;
        loop {
            let Ok(event) = tokio::time::timeout_at(deadline, self.next()).await else {
                return match attribution {
                    Some(attribution) if !text.is_empty() => Ok(Answer {
                        text,
                        attribution,
                        finish: None,
                    }),
                    attribution => {
                        let error = GenerateError::new(
                            ErrorKind::Timeout,
                            format!("no answer within {} s", limit.as_secs()),
                            "Ask for less at once, or try again when the backend is less busy.",
                        );
                        Err(NoAnswer {
                            empty: None,
                            error: Some(error),
                            attribution,
                        })
                    }
                };
            };
            match event {
                Some(RoutedEvent::Attributed(who)) => attribution = Some(who),
                Some(RoutedEvent::Delta(piece)) => {
                    on_text(&piece);
                    text.push_str(&piece);
                }
                Some(RoutedEvent::Done(finish)) => {
                    return match attribution {
                        Some(attribution) => Ok(Answer {
                            text,
                            attribution,
                            finish: Some(finish),
                        }),
                        None => Err(NoAnswer {
                            empty: None,
                            error: Some(unattributed()),
                            attribution: None,
                        }),
                    };
                }
                Some(RoutedEvent::Empty(reason)) => {
                    return Err(NoAnswer {
                        empty: Some(reason),
                        error: None,
                        attribution,
                    });
                }
                Some(RoutedEvent::Failed(error)) => {
                    return Err(NoAnswer {
                        empty: None,
                        error: Some(error),
                        attribution,
                    });
                }
                None => {
                    return Err(NoAnswer {
                        empty: None,
                        error: Some(unattributed()),
                        attribution,
                    });
                }
            }
        }
    }
}

fn unattributed() -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        "the answer ended without saying who gave it",
        "This is a defect in Tandem: please report it with the log.",
    )
}
