//! A deterministic backend for tests and benches: it answers as it was told, at the pace it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inference::{
    Backend, BackendKind, Descriptor, Finish, FinishReason, GenerateError, GenerateRequest, Health,
    TokenStream, Usage,
};

/// What the backend does with a request.
#[derive(Debug, Clone)]
pub struct Script {
    /// The pieces of the answer.
    pub pieces: Vec<String>,
    /// The pause before each piece.
    pub pause: Duration,
    /// After the pieces: an end as wanted (`None`), or this failure.
    pub failure: Option<GenerateError>,
    /// After the pieces, never end (until cancelled).
    pub hang: bool,
}

impl Script {
    /// Answers `text` at once, in one piece.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            pieces: vec![text.into()],
            pause: Duration::ZERO,
            failure: None,
            hang: false,
        }
    }

    /// Fails at once.
    #[must_use]
    pub fn failure(error: GenerateError) -> Self {
        Self {
            pieces: Vec::new(),
            pause: Duration::ZERO,
            failure: Some(error),
            hang: false,
        }
    }
}

/// What happened to a scripted backend, for assertions.
#[derive(Debug, Default)]
pub struct Observed {
    /// Requests that arrived.
    pub started: AtomicUsize,
    /// Requests that were cancelled before their end.
    pub cancelled: AtomicUsize,
    /// Pieces that were produced, over all requests.
    pub pieces: AtomicUsize,
}

type Choose = dyn Fn(&GenerateRequest) -> Script + Send + Sync;

/// See the module.
pub struct ScriptedBackend {
    descriptor: Descriptor,
    health: watch::Sender<Health>,
    choose: Box<Choose>,
    observed: Arc<Observed>,
}

impl ScriptedBackend {
    /// A healthy backend of `kind` that asks `choose` what to do with each request.
    pub fn new(
        kind: BackendKind,
        choose: impl Fn(&GenerateRequest) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self {
            descriptor: Descriptor {
                kind,
                model: format!("scripted-{kind}"),
                context_tokens: 4096,
            },
            health: watch::Sender::new(Health::Healthy { speed: None }),
            choose: Box::new(choose),
            observed: Arc::default(),
        }
    }

    /// A backend that answers the same text always.
    #[must_use]
    pub fn saying(kind: BackendKind, text: &str) -> Self {
        let script = Script::text(text);
        Self::new(kind, move |_| script.clone())
    }

    /// The same with another context size.
    #[must_use]
    pub fn with_context_tokens(mut self, tokens: usize) -> Self {
        self.descriptor.context_tokens = tokens;
        self
    }

    /// Publishes another health.
    pub fn publish(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// What happened so far and from now on.
    #[must_use]
    pub fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observed)
    }
}

impl Backend for ScriptedBackend {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        let script = (self.choose)(&request);
        let observed = self.observed();
        observed.started.fetch_add(1, Ordering::SeqCst);
        let (sender, stream) = TokenStream::channel(cancel.clone());
        // The task ends with the script, or with the stream's own token.
        tokio::spawn(async move {
            let work = async {
                for piece in &script.pieces {
                    if !script.pause.is_zero() {
                        tokio::time::sleep(script.pause).await;
                    }
                    observed.pieces.fetch_add(1, Ordering::SeqCst);
                    if sender.delta(piece.clone()).await.is_err() {
                        return Err(sender);
                    }
                }
                if script.hang {
                    std::future::pending::<()>().await;
                }
                Ok(sender)
            };
            let sender = tokio::select! {
                biased;
                done = work => done,
                () = cancel.cancelled() => {
                    observed.cancelled.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            };
            match (sender, script.failure) {
                (Err(_), _) => {
                    observed.cancelled.fetch_add(1, Ordering::SeqCst);
                }
                (Ok(sender), Some(error)) => sender.fail(error).await,
                (Ok(sender), None) => {
                    let usage = Usage {
                        completion_tokens: script.pieces.len(),
                        ..Usage::default()
                    };
                    sender
                        .finish(Finish {
                            reason: FinishReason::Stop,
                            usage,
                            model: None,
                        })
                        .await;
                }
            }
        });
        stream
    }
}
