//! One request to Claude: its tries, its limits of time, and its answer as it comes.

use std::time::SystemTime;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::config::ClaudeSettings;
use crate::inference::{EventSender, Finish, FinishReason, GenerateError, Usage};
use crate::prompt::chat::ChatPrompt;

use crate::backend::http::failure::{Failure, connection, cut_off, too_slow};
use crate::backend::http::read::{self, Events, Framing};
use crate::backend::http::retry::{self, Tries};
use crate::backend::http::stop::StopSequences;

use super::PEER;
use super::answer::{Answer, ApiError, Ending, Step, TokenCounts};
use super::failure;
use super::models::{Model, NanoDollars};

/// The API's version that this client is written for. Its fields are kept for good; the version of
/// October 2026 only takes away what is not used here.
const API_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

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
        let tries = Tries::within(self.settings.first_byte_timeout, self.settings.retries);
        let mut failures = 0;
        loop {
            let mut has_text = false;
            tally.begin();
            let failure = match self.attempt(&tries, events, tally, &mut has_text).await {
                Ok(finish) => return Ok(finish),
                Err(failure) => failure,
            };
            failures += 1;
            tracing::debug!(attempt = failures, kind = ?failure.error.kind, "a try at Claude failed");
            let pause = retry::another(&failure, failures, &tries);
            let Some(pause) = pause.filter(|_| !has_text) else {
                return Err(failure.error);
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        tries: &Tries,
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
        let response = match timeout_at(tries.deadline, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                if error.is_connect() {
                    tally.turned_away();
                }
                return Err(Failure::passing(connection(&PEER, host, error)));
            }
            Err(_) => {
                let error = too_slow(&PEER, "no answer", tries.limit);
                return Err(Failure::lasting(error));
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
        let idle = self.settings.idle_timeout;
        let arriving = Events::new(
            &PEER,
            response,
            Framing::Sse,
            started,
            idle,
            self.max_tokens,
        )?;
        self.read(arriving, events, tally, has_text).await
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

    async fn turned_away(&self, response: Response) -> Failure {
        #[derive(Deserialize)]
        struct Envelope {
            error: ApiError,
        }
        let status = response.status();
        let may_pass = retry::may_pass(status, response.headers());
        let retry_after = retry::wish(response.headers(), SystemTime::now());
        let body = read::body(response, self.settings.idle_timeout).await;
        let body = serde_json::from_slice::<Envelope>(&body).ok();
        let body = body.map(|body| body.error);
        let mut error = failure::status(status, body.as_ref(), self.prompt, self.key);
        error.retry_after = retry_after;
        Failure { error, may_pass }
    }

    async fn read(
        &self,
        mut arriving: Events,
        events: &EventSender,
        tally: &mut Tally,
        has_text: &mut bool,
    ) -> Result<Finish, Failure> {
        let mut answer = Answer::default();
        let mut extractor = self.prompt.extractor.clone();
        let mut stops = StopSequences::new(self.stop);
        loop {
            let Some(event) = arriving.next().await? else {
                return Err(Failure::passing(cut_off(&PEER)));
            };
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
                    arriving.progressed();
                    continue;
                }
                Step::Text(text) => {
                    *has_text = true;
                    let passed = stops.push(&extractor.push(&text));
                    pass(events, passed.text).await?;
                    arriving.progressed();
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
