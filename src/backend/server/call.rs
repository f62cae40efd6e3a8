//! One request to an inference server: its tries, its limits of time, and its answer as it comes.

use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::http::failure::{Failure, connection, cut_off, too_slow};
use crate::backend::http::read::{self, Events};
use crate::backend::http::retry::{self, Tries};
use crate::backend::http::stop::StopSequences;
use crate::config::ServerSettings;
use crate::inference::{EventSender, Finish, FinishReason, GenerateError, Usage};

use super::PEER;
use super::answer::{Answer, ApiError, Ending};
use super::body::Wire;
use super::failure;

/// What may still come of an answer that has said how it ended: the token counts. Nobody waits longer
/// for those.
const AFTER_THE_END: Duration = Duration::from_secs(1);

/// Whom to speak to, and with which key.
pub struct Line<'a> {
    /// Connections.
    pub client: &'a Client,
    /// Goes into one header and nowhere else.
    pub key: Option<&'a str>,
    /// Limits.
    pub settings: &'a ServerSettings,
}

/// A request that is ready to be sent.
pub struct Call<'a> {
    /// Whom to.
    pub line: Line<'a>,
    /// Where to.
    pub url: Url,
    /// What.
    pub wire: &'a Wire,
    /// Stop sequences for the text that is passed on.
    pub stop: &'a [String],
    /// Told at the first text, which nothing that follows takes back.
    pub generated: &'a (dyn Fn() + Sync),
}

/// A request that failed for good.
#[derive(Debug)]
pub struct Failed {
    /// What to tell.
    pub error: GenerateError,
    /// How far it came.
    pub came: Came,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// To no answer, or to an error.
    Nowhere,
    /// To the word that there is no such interface, or not for this model.
    Absent,
    /// To an answer that ended before it said anything.
    Silence,
    /// To an answer that said something.
    Answer,
    /// To text.
    Text,
}

/// Where a server is, with the port where it is not the usual one.
pub fn host(url: &Url) -> Option<String> {
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}{port}", url.host_str()?))
}

impl Line<'_> {
    /// The answer of `url` to a GET, or to a POST of `body`, whatever its status.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn send(
        &self,
        url: &Url,
        body: Option<Vec<u8>>,
        tries: &Tries,
    ) -> Result<Response, Failure> {
        let sending = self.request(url, body)?.send();
        let host = || host(url).unwrap_or_default();
        let response = match timeout_at(tries.deadline, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Failure::passing(connection(&PEER, &host(), error))),
            Err(_) => {
                let error = too_slow(&PEER, "no answer", tries.limit);
                return Err(Failure::lasting(error));
            }
        };
        tracing::debug!(
            status = response.status().as_u16(),
            path = url.path(),
            "the inference server answers"
        );
        Ok(response)
    }

    /// A GET of `url`, or a POST of `body`, with the key.
    ///
    /// # Errors
    /// For a key that cannot be one.
    pub fn request(&self, url: &Url, body: Option<Vec<u8>>) -> Result<RequestBuilder, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(key) = self.key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Failure::lasting(failure::malformed_key()))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let request = match body {
            None => self.client.get(url.clone()),
            Some(body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                self.client.post(url.clone()).body(body)
            }
        };
        Ok(request.headers(headers))
    }

    /// What a response means that is no success.
    pub async fn turned_away(&self, response: Response, path: &str) -> Failure {
        let status = response.status();
        let may_pass = retry::may_pass(status, response.headers());
        let retry_after = retry::wish(response.headers(), SystemTime::now());
        let body = read::body(response, self.settings.idle_timeout).await;
        let body = serde_json::from_slice::<Value>(&body).ok();
        let body = body.as_ref().and_then(ApiError::find);
        let mut error = failure::status(status, body.as_ref(), path, self.key.is_some());
        error.retry_after = retry_after;
        // Nothing comes to be there by itself.
        let may_pass = may_pass && status != StatusCode::NOT_IMPLEMENTED;
        Failure { error, may_pass }
    }
}

impl Call<'_> {
    /// Sends the request, and again after a failure that may pass, until the first text has come.
    ///
    /// # Errors
    /// The failure of the last try.
    pub async fn run(&self, events: &EventSender) -> Result<Finish, Failed> {
        let settings = self.line.settings;
        let tries = Tries::within(settings.first_byte_timeout, settings.retries);
        let mut failures = 0;
        loop {
            let mut came = Came::Nowhere;
            let attempt = self.attempt(&tries, events, &mut came);
            let failure = match attempt.await {
                Ok(finish) => return Ok(finish),
                Err(failure) => failure,
            };
            failures += 1;
            let kind = failure.error.kind;
            tracing::debug!(
                attempt = failures,
                ?kind,
                "a try at the inference server failed"
            );
            let pause = retry::another(&failure, failures, &tries);
            let Some(pause) = pause.filter(|_| came != Came::Text) else {
                return Err(Failed {
                    error: failure.error,
                    came,
                });
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        tries: &Tries,
        events: &EventSender,
        came: &mut Came,
    ) -> Result<Finish, Failure> {
        let started = Instant::now();
        let body = Some(self.wire.body.clone());
        let response = self.line.send(&self.url, body, tries).await?;
        let status = response.status();
        if status != StatusCode::OK {
            if matches!(status.as_u16(), 404 | 405 | 501) {
                *came = Came::Absent;
            }
            return Err(self.line.turned_away(response, self.url.path()).await);
        }
        let idle = self.line.settings.idle_timeout;
        let arriving = Events::new(
            &PEER,
            response,
            self.wire.form.framing(),
            started,
            idle,
            self.wire.max_tokens,
        )?;
        *came = Came::Silence;
        self.read(arriving, events, came).await
    }

    async fn read(
        &self,
        mut arriving: Events,
        events: &EventSender,
        came: &mut Came,
    ) -> Result<Finish, Failure> {
        let mut answer = Answer::new(self.wire.form);
        let mut extractor = self.wire.extractor.clone();
        // The model's own ends come before anything that is taken out of what it says.
        let mut ends = StopSequences::new(&self.wire.ends);
        let mut stops = StopSequences::new(self.stop);
        let mut space_left_out = self.wire.space_left_out;
        let mut pieces = 0;
        let reason = loop {
            let event = match answer.ending {
                None => arriving.next().await?,
                Some(_) => match timeout(AFTER_THE_END, arriving.next()).await {
                    Ok(Ok(event)) => event,
                    Ok(Err(_)) | Err(_) => None,
                },
            };
            let Some(event) = event else {
                // Some servers close without `[DONE]`; whether the answer is whole, it has said.
                match answer.ending {
                    Some(Ending::Finished(reason)) => break reason,
                    Some(Ending::Refused | Ending::GivenUp) | None => {
                        return Err(Failure::passing(cut_off(&PEER)));
                    }
                }
            };
            if *came == Came::Silence {
                *came = Came::Answer;
            }
            let has_key = self.line.key.is_some();
            let step = answer
                .take(&event.data)
                .map_err(|fault| failure::event(fault, self.url.path(), has_key))?;
            if step.progress {
                arriving.progressed();
            }
            if !step.text.is_empty() {
                if std::mem::replace(came, Came::Text) != Came::Text {
                    (self.generated)();
                }
                pieces += 1;
                events.count(usage(&answer, pieces));
                let begins = std::mem::take(&mut space_left_out);
                let text = step.text.strip_prefix(' ').filter(|_| begins);
                let passed = ends.push(text.unwrap_or(&step.text));
                let ended = passed.stopped;
                let passed = stops.push(&extractor.push(&passed.text));
                pass(events, passed.text).await?;
                if ended || passed.stopped {
                    if passed.stopped {
                        return Ok(finish(FinishReason::Stop, &answer, pieces));
                    }
                    break FinishReason::Stop;
                }
            }
            match answer.ending {
                Some(Ending::Refused) => return Err(Failure::lasting(failure::refused())),
                Some(Ending::GivenUp) => return Err(failure::given_up()),
                Some(Ending::Finished(reason)) if step.done => break reason,
                None if step.done && self.wire.says_how_it_ended => {
                    return Err(Failure::lasting(failure::interrupted()));
                }
                None if step.done => break FinishReason::Stop,
                Some(Ending::Finished(_)) | None => {}
            }
        };
        let passed = stops.push(&extractor.push(&ends.finish()));
        let mut rest = passed.text;
        if !passed.stopped {
            let passed = stops.push(&extractor.finish());
            rest.push_str(&passed.text);
            if !passed.stopped {
                rest.push_str(&stops.finish());
            }
        }
        pass(events, rest).await?;
        Ok(finish(reason, &answer, pieces))
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

fn finish(reason: FinishReason, answer: &Answer, pieces: usize) -> Finish {
    Finish {
        reason,
        usage: usage(answer, pieces),
        model: answer.model.clone(),
    }
}

/// A piece is about a token, for a server that does not count on the way.
fn usage(answer: &Answer, pieces: usize) -> Usage {
    Usage {
        completion_tokens: answer.usage.completion_tokens.max(pieces),
        ..answer.usage
    }
}
