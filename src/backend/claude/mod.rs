//! Claude over the Messages API: the one backend that leaves the machine by itself.
//!
//! A request is rendered ([`crate::prompt::chat`]), checked against the context and the day's spend
//! cap, and sent; what comes back is parsed ([`super::http`]), understood ([`answer`]) and passed on. All of
//! it follows the settings as they change.

mod answer;
mod call;
mod failure;
mod format;
mod health;
mod messages;
mod models;
mod spend;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ClaudeSettings, Settings};
use crate::inference::{
    Backend, BackendKind, ChatTask, Descriptor, Effort, ErrorKind, EventSender, Finish,
    GenerateError, GenerateRequest, Health, Task, TokenStream,
};
use crate::prompt::chat;
use crate::prompt::context::estimate_tokens;

use super::http::client::{self, Clients};
use super::http::{self, Peer};

use self::call::{Call, Tally};
use self::health::Access;
use self::messages::{Body, Wanted};
use self::models::NanoDollars;
use self::spend::{Ledger, SpendFault};

/// Tokens that every Claude model takes, prompt and answer together. The current ones take five
/// times as many; nobody waits for that much in an editor, and it would be dear.
const CONTEXT_TOKENS: usize = 200_000;

/// Claude, in words.
const PEER: Peer = Peer {
    name: "Claude",
    group: "claude",
    api: "the Messages API",
    check_url: "Check that `claude.base_url` (or ANTHROPIC_BASE_URL) leads to a server for the \
                Messages API.",
    unreachable: "Check your network and proxy, then try again.",
    try_again: "Try again in a moment; https://status.claude.com tells of outages.",
};

/// See the module.
pub struct ClaudeBackend {
    descriptor: Descriptor,
    inner: Arc<Inner>,
    _follow: AbortOnDropHandle<()>,
}

struct Inner {
    settings: watch::Receiver<Arc<Settings>>,
    health: Arc<watch::Sender<Health>>,
    ledger: Arc<Ledger>,
    clients: Clients,
}

impl ClaudeBackend {
    /// A backend that follows `settings`. What is spent is kept in `state_dir`, for all sessions of
    /// the user together; without one, for this process alone. Connects to nothing.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>, state_dir: Option<PathBuf>) -> Self {
        let now = Arc::clone(&settings.borrow());
        let access = Access::of(&now);
        let health = Arc::new(watch::Sender::new(access.health()));
        let follow = tokio::spawn(health::follow(
            access,
            settings.clone(),
            Arc::clone(&health),
        ));
        Self {
            descriptor: Descriptor {
                kind: BackendKind::Claude,
                model: now.claude.fast_model.clone(),
                context_tokens: CONTEXT_TOKENS,
            },
            inner: Arc::new(Inner {
                settings,
                health,
                ledger: Arc::new(Ledger::new(state_dir)),
                clients: Clients::default(),
            }),
            _follow: AbortOnDropHandle::new(follow),
        }
    }
}

impl Backend for ClaudeBackend {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.subscribe()
    }

    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        let (events, stream) = TokenStream::channel(cancel.clone());
        let inner = Arc::clone(&self.inner);
        // Ends with the answer, or with the token, which the stream's drop cancels.
        tokio::spawn(async move {
            match inner.answer(&request, &events, &cancel).await {
                Ok(finish) => events.finish(finish).await,
                Err(error) => events.fail(error).await,
            }
        });
        stream
    }
}

impl Inner {
    async fn answer(
        &self,
        request: &GenerateRequest,
        events: &EventSender,
        cancel: &CancellationToken,
    ) -> Result<Finish, GenerateError> {
        let settings = Arc::clone(&self.settings.borrow());
        let settings = &settings.claude;
        let outcome = self.checked(request, settings, events, cancel).await;
        // It would quote the schema, and another backend may take it.
        let outcome = outcome.map_err(|error| match (&request.task, error.kind) {
            (Task::Chat(task), ErrorKind::InvalidRequest) if task.schema.is_some() => {
                failure::schema("finds the request or its JSON Schema invalid")
            }
            _ => error,
        });
        let cancelled = cancel.is_cancelled();
        // A key that was replaced meanwhile is not to be blamed for the one before.
        let same_key = self.settings.borrow().claude.api_key == settings.api_key;
        if !cancelled
            && same_key
            && settings.api_key.is_some()
            && let Some(now) = health::after(outcome.as_ref().map(|_| ()))
        {
            self.health.send_if_modified(|health| {
                let changed = *health != now;
                *health = now;
                changed
            });
        }
        outcome
    }

    async fn checked(
        &self,
        request: &GenerateRequest,
        settings: &ClaudeSettings,
        events: &EventSender,
        cancel: &CancellationToken,
    ) -> Result<Finish, GenerateError> {
        let Some(key) = &settings.api_key else {
            return Err(failure::no_key());
        };
        let url = client::url(&settings.base_url, &["v1", "messages"])
            .ok_or_else(|| http::failure::bad_url(&PEER))?;
        let prompt = chat::render(&request.task)?;
        let (name, effort) = model_for(request, settings);
        let model = models::lookup(name);
        // A tagged answer is not yet the text that the stop sequences are meant for.
        let server_stops = if prompt.stop.is_some() {
            &[]
        } else {
            request.stop.as_slice()
        };
        let schema = format_of(&request.task)?;
        let body = Body::new(
            &prompt,
            Wanted {
                model: name,
                thinking: model.thinking,
                effort,
                max_tokens: request.max_tokens.min(settings.max_tokens),
                stop: server_stops,
                schema: schema.as_ref(),
            },
        );
        let max_tokens = body.max_tokens;
        let prompt_tokens = prompt.estimated_tokens() + tokens_of(schema.as_ref());
        if prompt_tokens + max_tokens > CONTEXT_TOKENS {
            return Err(failure::too_long(
                prompt_tokens + max_tokens,
                CONTEXT_TOKENS,
            ));
        }
        let body = serde_json::to_vec(&body).map_err(|error| {
            http::failure::not_the_api(&PEER, format_args!("no request ({error})"))
        })?;

        let ready = async {
            let key = key.expose().await.map_err(|error| {
                GenerateError::new(
                    ErrorKind::Unauthorized,
                    error.to_string(),
                    error.next_step("claude.api_key_command", "ANTHROPIC_API_KEY"),
                )
            })?;
            let client = self
                .clients
                .get(&PEER, &url, settings.connect_timeout)
                .await?;
            Ok::<_, GenerateError>((key, client))
        };
        let (key, client) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(GenerateError::cancelled()),
            ready = ready => ready?,
        };

        let highest = model.highest_cost(prompt_tokens as u64, max_tokens as u64);
        let cap_usd = settings.daily_spend_cap_usd;
        let cap = nano_dollars(cap_usd);
        let reservation = self
            .with_ledger(move |ledger| ledger.reserve(highest, cap, SystemTime::now()))
            .await
            .map_err(|fault| failure::spend(&fault, cap_usd))?;

        let mut tally = Tally::new(model, prompt_tokens as u64);
        let call = Call {
            client: &client,
            url,
            key: &key,
            body,
            max_tokens,
            prompt: &prompt,
            stop: &request.stop,
            settings,
        };
        let outcome = tokio::select! {
            biased;
            // Dropping the call closes its connection.
            () = cancel.cancelled() => Err(GenerateError::cancelled()),
            outcome = call.run(events, &mut tally) => outcome,
        };
        let cost = tally.cost();
        tracing::debug!(
            request = request.id.0,
            model = name,
            nano_usd = cost,
            "settled"
        );
        let settled = self
            .with_ledger(move |ledger| ledger.settle(&reservation, cost, SystemTime::now()))
            .await;
        if let Err(fault) = settled {
            // The reservation stands for it until it is counted as spent.
            tracing::warn!(?fault, "what was spent on Claude was not recorded");
        }
        outcome
    }

    /// Files block; the runtime's threads must not.
    async fn with_ledger<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<R, SpendFault> + Send + 'static,
    ) -> Result<R, SpendFault> {
        let ledger = Arc::clone(&self.ledger);
        tokio::task::spawn_blocking(move || work(&ledger))
            .await
            .unwrap_or_else(|error| Err(SpendFault::File(PathBuf::new(), error.to_string())))
    }
}

/// The schema that the answer is held to, as Claude takes it.
fn format_of(task: &Task) -> Result<Option<Value>, GenerateError> {
    let Task::Chat(ChatTask {
        schema: Some(schema),
        ..
    }) = task
    else {
        return Ok(None);
    };
    format::accepted(schema.json()).map(Some).ok_or_else(|| {
        failure::schema("cannot be held to an object whose `properties` are not named")
    })
}

/// Tokens of the schema, from above.
fn tokens_of(schema: Option<&Value>) -> usize {
    schema.map_or(0, |schema| estimate_tokens(&schema.to_string()))
}

/// Completions and light work go to the fast model: who waits for them waits with the cursor.
fn model_for<'a>(request: &GenerateRequest, settings: &'a ClaudeSettings) -> (&'a str, Effort) {
    match (&request.task, request.effort) {
        (Task::Complete(_), _) | (_, Effort::Low) => (&settings.fast_model, Effort::Low),
        (Task::Chat(_) | Task::Edit(_), Effort::High) => (&settings.strong_model, Effort::High),
    }
}

/// A cap that is no amount of money lets nothing through; one without end lets all through.
fn nano_dollars(usd: f64) -> NanoDollars {
    // `as` takes what is not a number, or below nothing, for zero, and stops at the largest.
    (usd * 1e9) as NanoDollars
}
