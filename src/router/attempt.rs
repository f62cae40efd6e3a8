//! One request from admission to its end: plan, ask, fall back until the first text, record.

mod schema;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Ask, Claim, NotAdmitted, Place, Standing};
use super::breaker::Pass;
use super::policy::{
    self, Attempt, Disclosure, LocalState, Plan, Route, ServerState, Situation, Target,
};
use super::stream::{Outlet, RoutedEvent, empty_reason};
use super::{RouteRequest, Router, policy::ClaudeState, refusal::Refusal};
use crate::config::Settings;
use crate::inference::{
    Attribution, ChatTask, CompletionShape, EmptyReason, ErrorKind, Event, Finish, FinishReason,
    GenerateError, RouteReason, Task, TokenStream, Usage,
};
use crate::postprocess::{CompletionFilter, Progress, TextFilter, is_in_empty_block};
use crate::telemetry::{Decision, FailedAttempt, Outcome};

/// How a request ends.
enum Ending {
    Done(Finish),
    Empty(EmptyReason, Option<GenerateError>),
    Failed(GenerateError),
}

/// How one attempt ends.
enum AttemptEnd {
    /// With it the request ends.
    Final(Ending),
    /// Before any text; another backend may be asked.
    FellThrough(GenerateError),
    /// Not even begun: the policy must look again, since the situation changed under it.
    Stale,
}

/// A request under way.
pub(super) struct Serving {
    router: Arc<Router>,
    request: RouteRequest,
    settings: Arc<Settings>,
    cancel: CancellationToken,
    outlet: Outlet,
    started: Instant,
    first_token: Option<Instant>,
    /// Who was asked last.
    asked: Option<Attribution>,
    /// Whether the reader knows who was asked.
    attributed: bool,
    failed: Vec<FailedAttempt>,
    errors: Vec<GenerateError>,
    usage: Usage,
}

impl Serving {
    pub(super) fn new(
        router: Arc<Router>,
        request: RouteRequest,
        cancel: CancellationToken,
        outlet: Outlet,
    ) -> Self {
        let settings = router.settings();
        Self {
            router,
            request,
            settings,
            cancel,
            outlet,
            started: Instant::now(),
            first_token: None,
            asked: None,
            attributed: false,
            failed: Vec::new(),
            errors: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Serves the request to its one terminal event. `standing` is the request's own for its
    /// document.
    pub(super) async fn run(mut self, ask: Ask, standing: Standing) {
        let ending = match self.router.admission.enter(&ask, &self.cancel).await {
            Ok(place) => self.route(place).await,
            Err(NotAdmitted::Cancelled) => self.cancelled(),
            Err(NotAdmitted::Busy) => self.fail(busy()),
        };
        let ending = match ending {
            Ending::Empty(EmptyReason::Cancelled, _) if standing.is_superseded() => {
                Ending::Empty(EmptyReason::Superseded, None)
            }
            ending => ending,
        };
        self.record(&ending);
        drop(standing);
        if !self.attributed
            && let Some(attribution) = self.asked.take()
        {
            self.outlet.send(RoutedEvent::Attributed(attribution)).await;
        }
        let last = match ending {
            Ending::Done(finish) => RoutedEvent::Done(finish),
            Ending::Empty(reason, why) => {
                if let Some(why) = &why {
                    self.outlet.explain(why);
                }
                RoutedEvent::Empty(reason)
            }
            Ending::Failed(error) => RoutedEvent::Failed(error),
        };
        // A reader that went away needs no end.
        self.outlet.send(last).await;
    }

    async fn route(&mut self, _place: Place) -> Ending {
        let mut situation = self.router.situation(&self.request, &self.settings);
        let mut tried = Vec::new();
        let mut evidence = None;
        loop {
            let Plan { warm_up, route } = policy::plan(&situation);
            if warm_up && let Some(local) = &self.router.lanes.local {
                local.gate.warm_up();
            }
            let next = match route {
                Route::Ask(attempts) => attempts
                    .into_iter()
                    .find(|attempt| !tried.contains(&attempt.target)),
                Route::Refuse(refusal) if self.errors.is_empty() => return self.refuse(refusal),
                Route::Refuse(_) => None,
            };
            let Some(mut attempt) = next else {
                return self.exhausted(&situation);
            };
            let leaves = matches!(attempt.target, Target::Claude | Target::Server);
            if leaves && evidence.is_none() {
                let Some(found) = self.examine().await else {
                    return self.cancelled();
                };
                if let Some(denial) = &found.request {
                    situation.disclosure = Disclosure::Denied(denial.clone());
                } else {
                    situation.disclosure = Disclosure::Allowed;
                }
                evidence = Some(found);
                continue;
            }
            if !self.errors.is_empty() {
                attempt.reason = RouteReason::FellBack;
            }
            match self.attempt(attempt, &situation, evidence.as_ref()).await {
                AttemptEnd::Final(ending) => return ending,
                AttemptEnd::FellThrough(error) => {
                    tried.push(attempt.target);
                    self.errors.push(error);
                }
                AttemptEnd::Stale => mark_unusable(&mut situation, attempt.target),
            }
        }
    }

    /// Looks at what would leave the machine, off the async threads: it reads ignore files.
    async fn examine(&self) -> Option<super::disclosure::Evidence> {
        let examiner = Arc::clone(&self.router.examiner);
        let request = self.request.clone();
        let settings = Arc::clone(&self.settings);
        let looked = tokio::task::spawn_blocking(move || {
            examiner.examine(&request.generate, &request.origin, &settings.privacy)
        });
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            // Whoever cannot look must assume the worst.
            found = looked => Some(found.unwrap_or_else(|_| super::disclosure::Evidence::unknown())),
        }
    }

    async fn attempt(
        &mut self,
        attempt: Attempt,
        situation: &Situation,
        evidence: Option<&super::disclosure::Evidence>,
    ) -> AttemptEnd {
        let mut request = self.request.generate.clone();
        if attempt.target == Target::Embedded {
            keep_to_the_line(&mut request.task);
        }
        // Texts are shared, not copied.
        let task = request.task.clone();
        let cancel = self.cancel.child_token();
        let lanes = &self.router.lanes;
        let (stream, pass, descriptor) = match attempt.target {
            Target::Local | Target::Embedded => {
                let lane = match attempt.target {
                    Target::Local => lanes.local.as_ref(),
                    _ => lanes.embedded.as_ref(),
                };
                let Some((lane, pass)) =
                    lane.and_then(|lane| Some((lane, lane.breaker.try_pass()?)))
                else {
                    return AttemptEnd::Stale;
                };
                (lane.gate.generate(request, cancel), pass, &lane.descriptor)
            }
            target @ (Target::Claude | Target::Server) => {
                let cleared = evidence
                    .and_then(|evidence| policy::clear(target, situation, evidence, request));
                let Some(cleared) = cleared else {
                    return AttemptEnd::Stale;
                };
                let lane = match target {
                    Target::Server => lanes.server.as_ref(),
                    _ => lanes.claude.as_ref(),
                };
                let Some((lane, pass)) =
                    lane.and_then(|lane| Some((lane, lane.breaker.try_pass()?)))
                else {
                    return AttemptEnd::Stale;
                };
                (lane.gate.generate(cleared, cancel), pass, &lane.descriptor)
            }
        };
        self.asked = Some(Attribution {
            backend: descriptor.kind,
            model: descriptor.model.clone(),
            reason: attempt.reason,
        });
        self.router.breakers_changed();
        let end = match &task {
            Task::Complete(task) => {
                let filter = CompletionFilter::new(task, &self.request.generate.stop);
                self.complete(stream, pass, filter).await
            }
            Task::Chat(ChatTask {
                schema: Some(schema),
                ..
            }) => self.valid(stream, pass, schema.clone()).await,
            Task::Chat(_) => {
                let filter = TextFilter::chat(&self.request.generate.stop);
                self.pass_on(stream, pass, filter).await
            }
            Task::Edit(task) => {
                let filter = TextFilter::edit(task, &self.request.generate.stop);
                self.pass_on(stream, pass, filter).await
            }
        };
        self.router.breakers_changed();
        end
    }

    /// A completion: read until what follows would be cut anyway, then sent whole.
    async fn complete(
        &mut self,
        mut stream: TokenStream,
        pass: Pass,
        mut filter: CompletionFilter,
    ) -> AttemptEnd {
        let mut pieces = 0;
        let finish = loop {
            match self.next(&mut stream).await {
                None => return self.abandoned(pass),
                Some(Event::Delta(text)) => {
                    if text.is_empty() {
                        continue;
                    }
                    self.first_token.get_or_insert_with(Instant::now);
                    pieces += 1;
                    if filter.push(&text) == Progress::Enough {
                        break stopped(&stream, pieces);
                    }
                }
                Some(Event::Done(finish)) => break finish,
                Some(Event::Failed(error)) => return self.failed(pass, error),
            }
        };
        drop(stream);
        pass.succeeded();
        self.note_finish(&finish);
        if finish.reason == FinishReason::Length {
            filter.cut_off();
        }
        match filter.finish() {
            Err(reason) => AttemptEnd::Final(Ending::Empty(reason, None)),
            Ok(text) => {
                self.attribute().await;
                self.outlet.send(RoutedEvent::Delta(text)).await;
                AttemptEnd::Final(Ending::Done(finish))
            }
        }
    }

    /// Other tasks: sent as it comes.
    async fn pass_on(
        &mut self,
        mut stream: TokenStream,
        pass: Pass,
        mut filter: TextFilter,
    ) -> AttemptEnd {
        let mut pieces = 0;
        loop {
            match self.next(&mut stream).await {
                None => return self.abandoned(pass),
                Some(Event::Delta(text)) => {
                    if text.is_empty() {
                        continue;
                    }
                    self.first_token.get_or_insert_with(Instant::now);
                    pieces += 1;
                    let progress = filter.push(&text);
                    if !self.emit(filter.take()).await {
                        return self.abandoned(pass);
                    }
                    if progress == Progress::Enough {
                        let finish = stopped(&stream, pieces);
                        drop(stream);
                        pass.succeeded();
                        return self.finished(finish).await;
                    }
                }
                Some(Event::Done(finish)) => {
                    pass.succeeded();
                    let rest = filter.finish();
                    if !self.emit(rest).await {
                        return AttemptEnd::Final(self.cancelled());
                    }
                    return self.finished(finish).await;
                }
                Some(Event::Failed(error)) => return self.failed(pass, error),
            }
        }
    }

    async fn finished(&mut self, finish: Finish) -> AttemptEnd {
        self.note_finish(&finish);
        self.attribute().await;
        AttemptEnd::Final(Ending::Done(finish))
    }

    /// The next event of an attempt, `None` when the request is cancelled.
    async fn next(&self, stream: &mut TokenStream) -> Option<Event> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            event = stream.next() => event,
        }
    }

    async fn emit(&mut self, text: String) -> bool {
        if text.is_empty() {
            return true;
        }
        self.attribute().await;
        self.outlet.send(RoutedEvent::Delta(text)).await
    }

    /// Says who answers, once.
    async fn attribute(&mut self) {
        if !self.attributed
            && let Some(attribution) = self.asked.clone()
        {
            self.attributed = true;
            self.outlet.send(RoutedEvent::Attributed(attribution)).await;
        }
    }

    fn note_finish(&mut self, finish: &Finish) {
        self.usage = finish.usage;
        if let (Some(model), Some(asked)) = (&finish.model, &mut self.asked) {
            asked.model.clone_from(model);
        }
    }

    /// The request was cancelled under an attempt.
    fn abandoned(&self, pass: Pass) -> AttemptEnd {
        // Whoever had begun to answer is well; whoever had not may or may not be.
        if self.first_token.is_some() {
            pass.succeeded();
        }
        AttemptEnd::Final(self.cancelled())
    }

    /// The attempt failed.
    fn failed(&mut self, pass: Pass, error: GenerateError) -> AttemptEnd {
        if error.is_backend_fault() {
            pass.faulted(error.retry_after);
        } else {
            drop(pass);
        }
        if error.kind == ErrorKind::SpendCap {
            self.router.note_cap(error.retry_after);
        }
        if let Some(asked) = &self.asked {
            tracing::warn!(
                request = self.request.generate.id.0,
                backend = asked.backend.as_str(),
                kind = ?error.kind,
                "an attempt failed: {error}"
            );
            self.failed.push(FailedAttempt {
                backend: asked.backend,
                model: asked.model.clone(),
                reason: asked.reason,
                error: error.kind,
                message: error.to_string(),
            });
        }
        if self.first_token.is_none() && error.may_fall_back() {
            AttemptEnd::FellThrough(error)
        } else {
            AttemptEnd::Final(self.fail(error))
        }
    }

    fn is_completion(&self) -> bool {
        matches!(self.request.generate.task, Task::Complete(_))
    }

    fn cancelled(&self) -> Ending {
        if self.is_completion() {
            Ending::Empty(EmptyReason::Cancelled, None)
        } else {
            Ending::Failed(GenerateError::cancelled())
        }
    }

    fn fail(&self, error: GenerateError) -> Ending {
        if self.is_completion() {
            Ending::Empty(empty_reason(error.kind), Some(error))
        } else {
            Ending::Failed(error)
        }
    }

    fn refuse(&self, refusal: Refusal) -> Ending {
        if self.is_completion() {
            Ending::Empty(refusal.empty, Some(refusal.error))
        } else {
            Ending::Failed(refusal.error)
        }
    }

    /// Everybody who could be asked has failed.
    fn exhausted(&self, situation: &Situation) -> Ending {
        let Some(last) = self.errors.last() else {
            // The plan held only targets that turned out to be gone.
            return self.fail(GenerateError::new(
                ErrorKind::Unavailable,
                "no backend is ready",
                "Run `tandem status` to see the state of each.",
            ));
        };
        let mut error = last.clone();
        let mut parts: Vec<String> = self
            .failed
            .iter()
            .map(|failed| failed.backend.as_str())
            .zip(&self.errors)
            .map(|(backend, error)| format!("{backend}: {}", error.message))
            .collect();
        if let Some(denial) = situation.denied_server() {
            parts.push(format!("server: must not be asked, since {denial}"));
        }
        if let Some(policy::Withheld::Denied(denial)) = situation.withheld() {
            parts.push(format!("claude: must not be asked, since {denial}"));
        }
        if parts.len() > 1 {
            error.message = parts.join("; ");
        }
        self.fail(error)
    }

    fn record(&self, ending: &Ending) {
        let (outcome, why) = match ending {
            Ending::Done(_) => (Outcome::Answered, None),
            Ending::Empty(reason, why) => (Outcome::Empty(*reason), why.as_ref()),
            Ending::Failed(error) => (Outcome::Failed(error.kind), Some(error)),
        };
        let decision = Decision {
            id: self.request.generate.id,
            at: SystemTime::now(),
            task: match self.request.generate.task {
                Task::Complete(_) => "complete",
                Task::Chat(_) => "chat",
                Task::Edit(_) => "edit",
            },
            automatic: self.request.origin.automatic,
            cached: false,
            attribution: self.asked.clone(),
            outcome,
            why: why.map(ToString::to_string),
            failed_attempts: self.failed.clone(),
            took: self.started.elapsed(),
            first_token: self.first_token.map(|at| at - self.started),
            usage: self.usage,
        };
        tracing::info!(
            request = decision.id.0,
            task = decision.task,
            outcome = ?decision.outcome,
            attribution = ?decision.attribution,
            took_ms = decision.took.as_millis() as u64,
            "request ended"
        );
        self.router.decisions.record(decision);
    }
}

/// What admission needs to know of a request.
pub(super) fn ask(request: &RouteRequest, settings: &Settings) -> Ask {
    let completion = matches!(request.generate.task, Task::Complete(_));
    Ask {
        priority: request.generate.priority,
        concurrency: settings.completion.concurrency,
        claim: request
            .origin
            .document
            .clone()
            .filter(|_| completion)
            .map(|document| Claim {
                document,
                automatic: request.origin.automatic.then_some(request.origin.rest),
                ahead: request.origin.ahead,
            }),
    }
}

/// The end of an answer that was stopped after so many pieces, before its backend could end it.
fn stopped(stream: &TokenStream, pieces: usize) -> Finish {
    let mut usage = stream.usage_so_far();
    // A piece is about a token, for a backend that does not count on the way.
    usage.completion_tokens = usage.completion_tokens.max(pieces);
    Finish {
        reason: FinishReason::Stop,
        usage,
        model: stream.model_so_far(),
    }
}

/// The embedded model is asked for the rest of a line: what it says beyond is hardly ever right, and
/// a line costs a third of the time of a block. Not where a block is to be filled: half a block seldom
/// parses. Its card has the figures.
fn keep_to_the_line(task: &mut Task) {
    if let Task::Complete(task) = task
        && task.shape == CompletionShape::Auto
        && !is_in_empty_block(task)
    {
        task.shape = CompletionShape::OneLine;
    }
}

/// A target that was gone when its turn came. The plan is made again without it.
fn mark_unusable(situation: &mut Situation, target: Target) {
    match target {
        Target::Local => situation.local = LocalState::BreakerOpen,
        Target::Embedded => situation.embedded = false,
        Target::Server => situation.server = ServerState::BreakerOpen,
        Target::Claude => situation.claude = ClaudeState::BreakerOpen,
    }
}

fn busy() -> GenerateError {
    GenerateError::new(
        ErrorKind::RateLimited,
        "too many requests are waiting in this session",
        "Try again when some of them have ended.",
    )
}
