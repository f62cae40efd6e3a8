//! The four places a request can go, each with its breaker, and what is known of their state.

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::sync::watch;

use super::breaker::{Breaker, BreakerState, Clock, Limits};
use super::policy::{
    ClaudeState, Disclosure, LocalState, OffDevice, OnDevice, ServerState, Situation, Start,
    Target, TaskKind,
};
use super::{BackendStatus, Backends, RouteRequest};
use crate::config::Settings;
use crate::inference::{Backend, Descriptor, GenerateRequest, Health, Placement, Task};

/// Bytes of source code per token, on the low side, so that what is said to fit does fit (Qwen's
/// tokenizer takes 3 to 4 for code).
const BYTES_PER_TOKEN: usize = 3;

/// A backend behind its breaker. `G` is what the policy makes of it.
pub(super) struct Lane<G> {
    pub(super) gate: G,
    pub(super) descriptor: Descriptor,
    pub(super) breaker: Arc<Breaker>,
    health: watch::Receiver<Health>,
    placement: Box<dyn Fn() -> Option<Placement> + Send + Sync>,
}

/// All backends of a session.
pub(super) struct Lanes {
    pub(super) local: Option<Lane<OnDevice>>,
    pub(super) embedded: Option<Lane<OnDevice>>,
    pub(super) server: Option<Lane<OffDevice>>,
    pub(super) claude: Option<Lane<OffDevice>>,
    breakers: watch::Sender<Breakers>,
}

/// Of the server, the local model, the embedded one and Claude.
type Breakers = [Option<BreakerState>; 4];

/// Waits until the state of any backend changes. Starts at the state of its making.
pub struct StatusChanges {
    health: Vec<watch::Receiver<Health>>,
    breakers: watch::Receiver<Breakers>,
}

impl<G> Lane<G> {
    fn new(gate: G, backend: Arc<dyn Backend>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            gate,
            descriptor: backend.descriptor().clone(),
            breaker: Breaker::new(Arc::clone(clock), Limits::default()),
            health: backend.health(),
            placement: Box::new(move || backend.placement()),
        }
    }

    /// Returns once the model has loaded and generated, or cannot, or is still to be had.
    pub(super) async fn decided(&self) {
        let mut health = self.health.clone();
        // A backend that is gone will not load any more.
        let _ = health
            .wait_for(|health| {
                !matches!(health, Health::Unloaded | Health::Loading | Health::Probing)
            })
            .await;
    }

    fn status(&self) -> BackendStatus {
        // Let go of before the backend is asked: it may publish its health under the lock that its
        // placement is behind.
        let health = self.health.borrow().clone();
        BackendStatus {
            kind: self.descriptor.kind,
            model: self.descriptor.model.clone(),
            health,
            breaker: self.breaker.state().as_str(),
            placement: (self.placement)(),
        }
    }
}

impl Lanes {
    pub(super) fn new(backends: Backends, clock: &Arc<dyn Clock>) -> Self {
        let on_device = |backend: Option<Arc<dyn Backend>>| {
            let backend = backend?;
            let gate = OnDevice::new(Arc::clone(&backend));
            if gate.is_none() {
                tracing::error!(
                    kind = backend.descriptor().kind.as_str(),
                    "a backend that leaves the machine was offered as a local one; it is not used"
                );
            }
            Some(Lane::new(gate?, backend, clock))
        };
        let off_device = |backend: Option<Arc<dyn Backend>>, target| {
            let backend = backend?;
            let gate = OffDevice::new(Arc::clone(&backend), target);
            Some(Lane::new(gate, backend, clock))
        };
        Self {
            local: on_device(backends.local),
            embedded: on_device(backends.embedded),
            server: off_device(backends.server, Target::Server),
            claude: off_device(backends.claude, Target::Claude),
            breakers: watch::Sender::new(Breakers::default()),
        }
    }

    pub(super) fn status(&self) -> Vec<BackendStatus> {
        [
            self.server.as_ref().map(Lane::status),
            self.local.as_ref().map(Lane::status),
            self.embedded.as_ref().map(Lane::status),
            self.claude.as_ref().map(Lane::status),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub(super) fn watch(&self) -> StatusChanges {
        self.breakers_changed();
        let mut health: Vec<_> = [
            self.server.as_ref().map(|lane| lane.health.clone()),
            self.local.as_ref().map(|lane| lane.health.clone()),
            self.embedded.as_ref().map(|lane| lane.health.clone()),
            self.claude.as_ref().map(|lane| lane.health.clone()),
        ]
        .into_iter()
        .flatten()
        .collect();
        for receiver in &mut health {
            receiver.mark_unchanged();
        }
        let mut breakers = self.breakers.subscribe();
        breakers.mark_unchanged();
        StatusChanges { health, breakers }
    }

    /// Publishes the breakers' states if they are others than before.
    pub(super) fn breakers_changed(&self) {
        let now = [
            self.server.as_ref().map(|lane| lane.breaker.state()),
            self.local.as_ref().map(|lane| lane.breaker.state()),
            self.embedded.as_ref().map(|lane| lane.breaker.state()),
            self.claude.as_ref().map(|lane| lane.breaker.state()),
        ];
        self.breakers.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    pub(super) fn situation(
        &self,
        request: &RouteRequest,
        settings: &Settings,
        capped: bool,
    ) -> Situation {
        let generate = &request.generate;
        Situation {
            mode: settings.mode,
            task: match generate.task {
                Task::Complete(_) => TaskKind::Complete,
                Task::Chat(_) => TaskKind::Chat,
                Task::Edit(_) => TaskKind::Edit,
            },
            effort: generate.effort,
            fits_local: self
                .local
                .as_ref()
                .is_none_or(|local| fits(generate, local.descriptor.context_tokens)),
            start: match (
                request.origin.automatic,
                settings.claude.automatic_completions && !request.origin.ahead,
            ) {
                (false, _) => Start::Invoked,
                (true, true) => Start::AutomaticClaudeOn,
                (true, false) => Start::AutomaticClaudeOff,
            },
            local: self.local.as_ref().map_or(LocalState::None, local_state),
            local_trouble: self.local.as_ref().and_then(|lane| {
                let health = lane.health.borrow();
                health
                    .trouble()
                    .map(str::to_owned)
                    .or_else(|| health.progress())
            }),
            embedded: settings.local.embedded
                && self.embedded.as_ref().is_some_and(|lane| {
                    lane.health.borrow().can_serve() && lane.breaker.would_pass()
                }),
            server: self.server.as_ref().map_or(ServerState::None, |lane| {
                server_state(lane, request, settings)
            }),
            claude: self
                .claude
                .as_ref()
                .map_or(ClaudeState::NoKey, |lane| claude_state(lane, capped)),
            disclosure: Disclosure::Unexamined,
        }
    }
}

impl StatusChanges {
    /// Returns when something has changed since the last call. Never returns once all backends
    /// and the router are gone.
    pub async fn changed(&mut self) {
        loop {
            if self.health.is_empty() {
                if self.breakers.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                return;
            }
            let any = select_all(self.health.iter_mut().map(|one| Box::pin(one.changed())));
            let gone = tokio::select! {
                (changed, index, _) = any => match changed {
                    Ok(()) => return,
                    Err(_) => index,
                },
                Ok(()) = self.breakers.changed() => return,
            };
            // A backend that went away changes no more.
            self.health.swap_remove(gone);
        }
    }
}

fn local_state(lane: &Lane<OnDevice>) -> LocalState {
    if !lane.breaker.would_pass() {
        return LocalState::BreakerOpen;
    }
    match &*lane.health.borrow() {
        Health::Absent { .. } => LocalState::None,
        Health::Downloading { .. } => LocalState::Downloading,
        Health::Unloaded | Health::Loading | Health::Probing => LocalState::Loading,
        Health::Healthy { .. } => LocalState::Healthy,
        Health::Degraded { .. } => LocalState::Degraded,
        Health::Failed { .. } => LocalState::Failed,
    }
}

fn server_state(
    lane: &Lane<OffDevice>,
    request: &RouteRequest,
    settings: &Settings,
) -> ServerState {
    let automatic = request.origin.automatic && matches!(request.generate.task, Task::Complete(_));
    // What is computed ahead of need is for models of this machine.
    let off = request.origin.ahead || !settings.server.automatic_completions;
    if automatic && off {
        return ServerState::AutomaticOff;
    }
    if !fits(&request.generate, lane.descriptor.context_tokens) {
        return ServerState::DoesNotFit;
    }
    if !lane.breaker.would_pass() {
        return ServerState::BreakerOpen;
    }
    if lane.health.borrow().can_serve() {
        ServerState::Ready
    } else {
        ServerState::Failed
    }
}

fn claude_state(lane: &Lane<OffDevice>, capped: bool) -> ClaudeState {
    match &*lane.health.borrow() {
        Health::Absent { .. } => ClaudeState::NoKey,
        Health::Failed { .. } => ClaudeState::BreakerOpen,
        Health::Downloading { .. }
        | Health::Unloaded
        | Health::Loading
        | Health::Probing
        | Health::Healthy { .. }
        | Health::Degraded { .. } => {
            if capped {
                ClaudeState::CapReached
            } else if lane.breaker.would_pass() {
                ClaudeState::Ready
            } else {
                ClaudeState::BreakerOpen
            }
        }
    }
}

/// Whether a request fits a context of `context_tokens`, by its length in bytes: the tokenizer is
/// the backend's. A backend that finds otherwise says so, and the request goes on to the next.
fn fits(request: &GenerateRequest, context_tokens: usize) -> bool {
    let bytes = match &request.task {
        // Cut to the context by the prompt.
        Task::Complete(_) => return true,
        Task::Chat(task) => {
            task.system.as_ref().map_or(0, String::len)
                + task
                    .messages
                    .iter()
                    .map(|message| message.text.len())
                    .sum::<usize>()
        }
        // What surrounds the piece is cut to the context; the piece comes in and goes out whole.
        Task::Edit(task) => 2 * task.selection.len() + task.instruction.len(),
    };
    // The most that a request allows for its answer is rarely used: a quarter is kept for it.
    let answer = request.max_tokens.min(context_tokens / 4);
    bytes / BYTES_PER_TOKEN + answer <= context_tokens
}
