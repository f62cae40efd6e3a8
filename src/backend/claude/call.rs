//! One request to Claude: its tries, its limits of time, and its answer as it comes.

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::config::ClaudeSettings;
use crate::inference::{EventSender, Finish, FinishReason, GenerateError, Usage};
use crate::prompt::chat::ChatPrompt;

use super::answer::{Answer, ApiError, Ending, Step, TokenCounts};
use super::failure::{self, Failure};
use super::models::{Model, NanoDollars};
use super::retry;
use super::sse::SseParser;
use super::stop::StopSequences;

/// The API's version that this client is written for. Its fields are kept for good; the version of
/// October 2026 only takes away what is not used here.
const API_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// The longest a whole answer may take: what the API and its official SDKs set.
pub const ANSWER_LIMIT: Duration = Duration::from_mins(10);

/// Signs of life (pings, comments, parts of an event) carry an answer over so many idle limits, no
/// further: a server could send them without end.
const IDLE_LIMITS_WITHOUT_PROGRESS: u32 = 3;

/// What is read of an error's body.
const ERROR_BODY_BYTES: usize = 64 << 10;

/// Bytes of a stream a token may take at most on average, its event's JSON included; an answer of
/// more is not the one that was asked for.
const STREAM_BYTES_A_TOKEN: usize = 1024;
/// Bytes of a stream besides the tokens.
const STREAM_BYTES_BESIDES: usize = 1 << 20;

/// A request that is ready to be sent.
pub struct Call<'a> {
    /// Connections.
    pub client: &'a Client,
    /// Where to.
    pub url: Url,
    /// Goes into one header and nowhere else.
    pub key: &'a str,
    /// JSON.
    pub body: Vec<u8>,
    /// The longest answer, in tokens, thinking included.
    pub max_tokens: usize,
    /// What the body was made of.
    pub prompt: &'a ChatPrompt,
    /// Stop sequences for the text that is passed on.
    pub stop: &'a [String],
    /// Limits.
    pub settings: &'a ClaudeSettings,
}

/// What a request has cost so far, whatever becomes of it.
#[derive(Debug)]
pub struct Tally {
    model: Model,
    prompt_tokens: u64,
    past: NanoDollars,
    current: Option<TokenCounts>,
    output_seen: u64,
}

impl Tally {
    /// Nothing yet, for a prompt of about so many tokens.
    pub fn new(model: Model, prompt_tokens: u64) -> Self {
        Self {
            model,
            prompt_tokens,
            past: 0,
            current: None,
            output_seen: 0,
        }
    }

    /// Dollars. Estimated from above for a try that did not come to its end.
    pub fn cost(&self) -> NanoDollars {
        let current = self.current.map_or(0, |counts| {
            let output = counts.output.max(self.output_seen);
            self.model.cost(&TokenCounts { output, ..counts })
        });
        self.past.saturating_add(current)
    }

    fn begin(&mut self) {
        self.past = self.cost();
        self.current = Some(TokenCounts {
            input: self.prompt_tokens,
            ..TokenCounts::default()
        });
        self.output_seen = 0;
    }

    /// The try was turned away, which costs nothing.
    fn turned_away(&mut self) {
        self.current = None;
    }

    fn see(&mut self, step: &Step, data: &str, counts: TokenCounts) {
        // From above: a delta has at least a token, and thinking is shown as a shorter summary.
        self.output_seen += match step {
            Step::Text(text) => 1 + text.len() as u64 / 2,
            Step::Progress => data.len() as u64 / 8,
            Step::Nothing | Step::End(_) => 0,
        };
        if matches!(step, Step::End(_)) {
            self.output_seen = 0;
        }
        self.current = Some(counts);
    }
}

impl Call<'_> {
    /// Sends the request, and again after a failure that may pass, until the first text has come.
    pub async fn run(
        &self,
        events: &EventSender,
        tally: &mut Tally,
    ) -> Result<Finish, GenerateError> {
        let limit = bounded(self.settings.first_byte_timeout);
        let deadline = Instant::now() + limit;
        let mut failures = 0;
        loop {
            let mut has_text = false;
            tally.begin();
            let failure = match self.attempt(deadline, events, tally, &mut has_text).await {
                Ok(finish) => return Ok(finish),
                Err(failure) => failure,
            };
            failures += 1;
            let error = failure.error;
            tracing::debug!(attempt = failures, kind = ?error.kind, "a try at Claude failed");
            if has_text || !failure.may_pass || failures > self.settings.retries {
                return Err(error);
            }
            let pause = error
                .retry_after
                .unwrap_or_else(|| retry::pause(failures, limit, rand::random()));
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        deadline: Instant,
        events: &EventSender,
        tally: &mut Tally,
        has_text: &mut bool,
    ) -> Result<Finish, Failure> {
        let started = Instant::now();
        let host = self.url.host_str().unwrap_or_default();
        let sending = self
            .client
            .post(self.url.clone())
            .headers(self.headers()?)
            .body(self.body.clone())
            .send();
        let response = match timeout_at(deadline, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                if error.is_connect() {
                    tally.turned_away();
                }
                return Err(Failure::passing(failure::connection(host, error)));
            }
            Err(_) => {
                let limit = bounded(self.settings.first_byte_timeout);
                return Err(Failure::lasting(failure::too_slow("no answer", limit)));
            }
        };
        tracing::debug!(
            status = response.status().as_u16(),
            request_id = response
                .headers()
                .get("request-id")
                .and_then(|id| id.to_str().ok()),
            "Claude answers"
        );
        if response.status() != StatusCode::OK {
            tally.turned_away();
            return Err(self.turned_away(response).await);
        }
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("nothing");
        if !content_type
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("text/event-stream")
        {
            let error = failure::not_the_api("no event stream");
            return Err(Failure::lasting(error));
        }
        self.read(response, started, events, tally, has_text).await
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut key = HeaderValue::from_str(self.key)
            .map_err(|_| Failure::lasting(failure::malformed_key()))?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", key);
        headers.insert("anthropic-version", API_VERSION);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(headers)
    }

    async fn turned_away(&self, mut response: Response) -> Failure {
        #[derive(Deserialize)]
        struct Envelope {
            error: ApiError,
        }
        let status = response.status();
        let may_pass = retry::may_pass(status, response.headers());
        let retry_after = retry::wish(response.headers(), SystemTime::now());
        let deadline = Instant::now() + bounded(self.settings.idle_timeout);
        let mut body = Vec::new();
        while body.len() < ERROR_BODY_BYTES
            && let Ok(Ok(Some(bytes))) = timeout_at(deadline, response.chunk()).await
        {
            body.extend_from_slice(&bytes);
        }
        let body = serde_json::from_slice::<Envelope>(&body).ok();
        let body = body.map(|body| body.error);
        let mut error = failure::status(status, body.as_ref(), self.prompt, self.key);
        error.retry_after = retry_after;
        Failure { error, may_pass }
    }

    async fn read(
        &self,
        mut response: Response,
        started: Instant,
        events: &EventSender,
        tally: &mut Tally,
        has_text: &mut bool,
    ) -> Result<Finish, Failure> {
        let idle = bounded(self.settings.idle_timeout);
        let most_bytes = self.max_tokens * STREAM_BYTES_A_TOKEN + STREAM_BYTES_BESIDES;
        let mut bytes_read = 0;
        let mut parser = SseParser::default();
        let mut arrived = Vec::new();
        let mut answer = Answer::default();
        let mut extractor = self.prompt.extractor.clone();
        let mut stops = StopSequences::new(self.stop);
        let mut progress = Instant::now();
        loop {
            let deadline = (Instant::now() + idle)
                .min(progress + idle * IDLE_LIMITS_WITHOUT_PROGRESS)
                .min(started + ANSWER_LIMIT);
            let bytes = match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None) | Err(_)) => return Err(Failure::passing(failure::cut_off())),
                Err(_) if Instant::now() >= started + ANSWER_LIMIT => {
                    let error = failure::too_slow("no whole answer", ANSWER_LIMIT);
                    return Err(Failure::lasting(error));
                }
                Err(_) => {
                    let error = failure::too_slow("nothing more", progress.elapsed());
                    return Err(Failure::lasting(error));
                }
            };
            bytes_read += bytes.len();
            if bytes_read > most_bytes {
                let error = failure::not_the_api("it is far longer than asked for");
                return Err(Failure::lasting(error));
            }
            parser
                .push(&bytes, &mut arrived)
                .map_err(|fault| Failure::lasting(failure::not_the_api(fault)))?;
            for event in arrived.drain(..) {
                let step = answer
                    .take(&event.data)
                    .map_err(|fault| failure::event(fault, self.prompt, self.key))?;
                if answer.has_begun() {
                    tally.see(&step, &event.data, answer.counts);
                    events.count(usage(&answer, tally));
                }
                let ending = match step {
                    Step::Nothing => continue,
                    Step::Progress => {
                        progress = Instant::now();
                        continue;
                    }
                    Step::Text(text) => {
                        *has_text = true;
                        let passed = stops.push(&extractor.push(&text));
                        pass(events, passed.text).await?;
                        progress = Instant::now();
                        if !passed.stopped {
                            continue;
                        }
                        Ending::Finished(FinishReason::Stop)
                    }
                    Step::End(ending) => ending,
                };
                let reason = match ending {
                    Ending::Finished(reason) => reason,
                    Ending::Refused(category) => {
                        return Err(Failure::lasting(failure::refused(category.as_deref())));
                    }
                };
                let passed = stops.push(&extractor.finish());
                let rest = if passed.stopped {
                    passed.text
                } else {
                    passed.text + &stops.finish()
                };
                pass(events, rest).await?;
                return Ok(finish(reason, &answer, tally));
            }
        }
    }
}

/// A limit as configured, which may be longer than any clock goes.
fn bounded(limit: Duration) -> Duration {
    limit.min(ANSWER_LIMIT)
}

async fn pass(events: &EventSender, text: String) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    events
        .delta(text)
        .await
        .map_err(|_| Failure::lasting(GenerateError::cancelled()))
}

fn finish(reason: FinishReason, answer: &Answer, tally: &Tally) -> Finish {
    Finish {
        reason,
        usage: usage(answer, tally),
        model: answer.model.clone(),
    }
}

fn usage(answer: &Answer, tally: &Tally) -> Usage {
    let counts = answer.counts;
    Usage {
        prompt_tokens: counts.prompt() as usize,
        cached_tokens: counts.cache_read as usize,
        completion_tokens: counts.output.max(tally.output_seen) as usize,
    }
}
