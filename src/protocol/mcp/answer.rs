//! One call of a model: routed, followed, ended in time, and turned into a tool's result.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::types::{
    Answer, AskAnswer, CommitMessageAnswer, CompletionAnswer, Milliseconds, Truncated,
};
use crate::inference::{Attribution, EmptyReason, ErrorKind, Finish, GenerateError, Health, Task};
use crate::protocol::commit;
use crate::router::{BackendStatus, RouteRequest, RoutedEvent, Router};

/// How long a call may go on after its client closed the pipe. The official SDKs end the process
/// two seconds after that.
const GRACE: Duration = Duration::from_millis(1500);

/// Where the machine-readable part of an error stands in a result's `_meta`. It is not
/// `structuredContent`, which must conform to the tool's output schema.
const ERROR_META: &str = "tandem/error";

/// Everything that a call needs.
pub(super) struct Call {
    pub router: Arc<Router>,
    pub request: RouteRequest,
    pub limit: Duration,
    /// The client's `notifications/cancelled`.
    pub cancel: CancellationToken,
    /// The end of the client's input.
    pub hung_up: CancellationToken,
    pub progress: Progress,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    error: Box<GenerateError>,
    /// Text that had come before the failure. It is shown as what it is.
    partial: String,
    attribution: Option<Attribution>,
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        Self {
            error: Box::new(error),
            partial: String::new(),
            attribution: None,
        }
    }
}

/// Asks and waits until the answer ends, the client cancels or the limit passes.
pub(super) async fn follow(call: Call) -> Result<Answer, Failure> {
    let Call {
        router,
        request,
        limit,
        cancel,
        hung_up,
        mut progress,
    } = call;
    let mut heard = Heard::new(matches!(request.generate.task, Task::Complete(_)));
    let mut stream = router.route(request, &cancel);
    let mut end = heard.started + limit;
    let mut leaving = false;
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(GenerateError::cancelled().into()),
            () = hung_up.cancelled(), if !leaving => {
                leaving = true;
                end = end.min(Instant::now() + GRACE);
            }
            () = tokio::time::sleep_until(end) => return heard.cut(),
            event = stream.next() => match event {
                Some(RoutedEvent::Attributed(who)) => heard.attribution = Some(who),
                Some(RoutedEvent::Delta(piece)) => heard.take(&piece),
                Some(RoutedEvent::Done(finish)) => return heard.done(&finish),
                Some(RoutedEvent::Empty(reason)) => {
                    return heard.empty(reason, stream.why_empty().cloned());
                }
                Some(RoutedEvent::Failed(error)) => return Err(heard.failed(error)),
                None => return Err(heard.failed(without_end())),
            },
            () = progress.silence() => {}
        }
        if progress.is_due() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(GenerateError::cancelled().into()),
                // A client that does not read must not keep the call beyond its limit.
                () = tokio::time::sleep_until(end) => return heard.cut(),
                () = progress.say(heard.pieces, heard.so_far(&router)) => {}
            }
        }
    }
}

/// What has come of an answer so far.
struct Heard {
    /// Whether a completion was asked for, which may come to nothing.
    completion: bool,
    started: Instant,
    text: String,
    pieces: usize,
    first_token: Option<Duration>,
    attribution: Option<Attribution>,
}

impl Heard {
    fn new(completion: bool) -> Self {
        Self {
            completion,
            started: Instant::now(),
            text: String::new(),
            pieces: 0,
            first_token: None,
            attribution: None,
        }
    }

    fn take(&mut self, piece: &str) {
        self.first_token
            .get_or_insert_with(|| self.started.elapsed());
        self.text.push_str(piece);
        self.pieces += 1;
    }

    /// For a person who waits.
    fn so_far(&self, router: &Router) -> String {
        match &self.attribution {
            None => waiting_for(&router.status()),
            Some(who) if self.pieces == 0 => format!(
                "Routed to {} ({}, {})",
                who.model,
                who.backend,
                word(&who.reason)
            ),
            Some(who) => format!("{} has written {} tokens", who.model, self.pieces),
        }
    }

    fn done(self, finish: &Finish) -> Result<Answer, Failure> {
        if self.text.trim().is_empty() {
            return self.empty(EmptyReason::ModelSilent, None);
        }
        let truncated = finish.reason.into();
        let mut answer = self.answer(truncated)?;
        answer.tokens = Some(finish.usage.into());
        if let Some(model) = &finish.model {
            answer.model.clone_from(model);
        }
        Ok(answer)
    }

    fn cut(self) -> Result<Answer, Failure> {
        if self.text.trim().is_empty() {
            let waited = self.started.elapsed().as_secs_f32();
            return Err(self.failed(GenerateError::new(
                ErrorKind::Timeout,
                format!("no text came within {waited:.0} s"),
                "Ask for less at once, or call the `status` tool to see what the models do.",
            )));
        }
        self.answer(Some(Truncated::Deadline))
    }

    fn empty(self, reason: EmptyReason, why: Option<GenerateError>) -> Result<Answer, Failure> {
        if self.completion && is_nothing_to_add(reason) && self.attribution.is_some() {
            let mut answer = self.answer(None)?;
            answer.text.clear();
            answer.empty = Some(reason);
            return Ok(answer);
        }
        if let Some(why) = why {
            return Err(self.failed(why));
        }
        let (what, next_step) = reason.explanation();
        let kind = match reason {
            EmptyReason::Cancelled | EmptyReason::Superseded => ErrorKind::Cancelled,
            EmptyReason::Denied => ErrorKind::Denied,
            EmptyReason::SpendCap => ErrorKind::SpendCap,
            EmptyReason::BackendFailed | EmptyReason::ModelSilent => ErrorKind::Backend,
            EmptyReason::PositionInvalid => ErrorKind::InvalidRequest,
            _ => ErrorKind::Unavailable,
        };
        Err(self.failed(GenerateError::new(kind, what, next_step)))
    }

    fn failed(self, error: GenerateError) -> Failure {
        Failure {
            error: Box::new(error),
            partial: self.text,
            attribution: self.attribution,
        }
    }

    fn answer(self, truncated: Option<Truncated>) -> Result<Answer, Failure> {
        let Some(who) = self.attribution else {
            return Err(self.failed(GenerateError::new(
                ErrorKind::Backend,
                "the answer does not say who gave it",
                "This is a defect in Tandem: please report it with the log.",
            )));
        };
        Ok(Answer {
            text: self.text,
            backend: who.backend,
            model: who.model,
            route_reason: who.reason,
            tokens: None,
            milliseconds: Milliseconds {
                first_token: self.first_token.map(|took| took.as_millis() as u64),
                total: self.started.elapsed().as_millis() as u64,
            },
            truncated,
            empty: None,
        })
    }
}

/// What a person is told before anybody answers.
fn waiting_for(backends: &[BackendStatus]) -> String {
    let busy = backends.iter().find_map(|backend| {
        let model = &backend.model;
        match backend.health {
            Health::Downloading {
                bytes,
                total: Some(total),
            } if total > 0 => {
                let percent = bytes.saturating_mul(100) / total;
                Some(format!("{model} is being downloaded ({percent} %)"))
            }
            Health::Downloading { .. } => Some(format!("{model} is being downloaded")),
            Health::Loading | Health::Probing => Some(format!("{model} is being loaded")),
            Health::Absent { .. }
            | Health::Unloaded
            | Health::Healthy { .. }
            | Health::Degraded { .. }
            | Health::Failed { .. } => None,
        }
    });
    match busy {
        Some(busy) => format!("Waiting for a model; {busy}"),
        None => "Waiting for a model".to_owned(),
    }
}

/// Whether a completion that is empty for this reason was computed and simply had nothing to add.
/// The other reasons say that it was not computed, which the caller must hear as an error.
fn is_nothing_to_add(reason: EmptyReason) -> bool {
    matches!(
        reason,
        EmptyReason::ModelSilent
            | EmptyReason::OnlyWhitespace
            | EmptyReason::RepeatsPrefix
            | EmptyReason::RepeatsSuffix
    )
}

fn without_end() -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        "the answer stopped without an end",
        "Try again; if it happens twice, run `tandem status` and look at the log.",
    )
}

/// An answer as a tool's result: the text alone for the model, everything for programs.
pub(super) fn success(answer: &Answer) -> CallToolResult {
    structured(answer.text.clone(), answer)
}

/// The same for a completion. Model APIs refuse blocks without text, so an empty one says that it
/// is empty.
pub(super) fn completion(answer: Answer) -> CallToolResult {
    let text = match answer.empty {
        None => answer.text.clone(),
        Some(reason) => format!("(No text: {}.)", reason.explanation().0),
    };
    let empty = answer.empty;
    structured(text, &CompletionAnswer { answer, empty })
}

/// The same for a question, whose answer may be JSON.
pub(super) fn ask(answer: Answer, by_schema: bool) -> CallToolResult {
    let text = answer.text.clone();
    let value = by_schema
        .then(|| serde_json::from_str(&text).ok())
        .flatten();
    structured(text, &AskAnswer { answer, value })
}

/// The same for a commit message, whose parts stand apart besides.
pub(super) fn commit_message(mut answer: Answer) -> CallToolResult {
    answer.text = commit::unfence(&answer.text);
    let text = answer.text.clone();
    let (subject, body) = answer.text.split_once('\n').unwrap_or((&answer.text, ""));
    let body = body.trim();
    let answer = CommitMessageAnswer {
        subject: subject.trim().to_owned(),
        body: (!body.is_empty()).then(|| body.to_owned()),
        answer,
    };
    structured(text, &answer)
}

/// A result with a text for the model and the same as data.
pub(super) fn structured(text: String, value: &impl Serialize) -> CallToolResult {
    match serde_json::to_value(value) {
        Ok(value) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
            result.structured_content = Some(value);
            result
        }
        Err(error) => complain(format!(
            "The result cannot be written as JSON: {error}. This is a defect in Tandem: please \
             report it."
        )),
    }
}

/// A failure as a tool's result. What had come before it is shown, and the text ends with the next
/// step.
pub(super) fn failure(failure: Failure) -> CallToolResult {
    let Failure {
        error,
        partial,
        attribution,
    } = failure;
    let mut result = complain(sentence(&error.to_string()));
    if !partial.trim().is_empty() {
        let partial = format!("Before it failed, the model had written:\n\n{partial}");
        result.content.insert(0, ContentBlock::text(partial));
    }
    let mut meta = MetaObject::new();
    meta.insert(
        ERROR_META.to_owned(),
        json!({
            "kind": error.kind,
            "backend": attribution.as_ref().map(|who| who.backend),
            "model": attribution.as_ref().map(|who| &who.model),
            "retry_after_seconds": error.retry_after.map(|wait| wait.as_secs_f64()),
        }),
    );
    result.meta = Some(meta);
    result
}

/// A failure that is no model's.
pub(super) fn complain(text: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// The word of an enum's value in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// With a capital at its start.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_start_as_sentences_do() {
        assert_eq!(sentence("the key is wrong"), "The key is wrong");
        assert_eq!(sentence(""), "");
    }
}
