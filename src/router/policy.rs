//! Who is asked, in which order, and whether text may leave the machine. This is the only file that
//! decides that: a backend that leaves the machine takes nothing but a [`Cleared`] request, and
//! only [`clear`] can make one.
//!
//! Pure: a [`Situation`] goes in, a [`Plan`] comes out.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::disclosure::{Denial, Evidence};
use super::refusal::{self, Refusal};
use crate::config::Mode;
use crate::inference::{
    Backend, BackendKind, Effort, ErrorKind, GenerateError, GenerateRequest, RouteReason, Task,
    TokenStream,
};

/// Everything a route depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// Which backends may answer.
    pub mode: Mode,
    /// What is asked for.
    pub task: TaskKind,
    /// How much thought it deserves.
    pub effort: Effort,
    /// Whether the request fits the local model's context. Completions always do: they are cut to
    /// the context.
    pub fits_local: bool,
    /// How it started.
    pub start: Start,
    /// The on-device model.
    pub local: LocalState,
    /// What keeps it from answering, for people.
    pub local_trouble: Option<String>,
    /// Whether the embedded model could answer a completion.
    pub embedded: bool,
    /// The user's inference server.
    pub server: ServerState,
    /// Claude.
    pub claude: ClaudeState,
    /// What the privacy rules say about the text.
    pub disclosure: Disclosure,
}

/// The three kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Text at a cursor.
    Complete,
    /// An answer.
    Chat,
    /// A replacement.
    Edit,
}

/// How a request started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A person, or a host in their name, asked for it.
    Invoked,
    /// By itself while typing, and such requests may go to Claude.
    AutomaticClaudeOn,
    /// By itself while typing, and such requests must not go to Claude.
    AutomaticClaudeOff,
}

/// The on-device model, as far as routing minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalState {
    /// There is none besides the embedded one.
    None,
    /// Its files are on their way, which takes minutes.
    Downloading,
    /// It is being loaded or will be on first need, which takes seconds.
    Loading,
    /// It has generated what it should.
    Healthy,
    /// It generates, but not as it should.
    Degraded,
    /// It does not generate.
    Failed,
    /// It failed several times in a row and is being left alone.
    BreakerOpen,
}

/// Claude, as far as routing minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaudeState {
    /// No key is configured.
    NoKey,
    /// It can be asked.
    Ready,
    /// It failed several times in a row and is being left alone.
    BreakerOpen,
    /// The day's spend cap is reached.
    CapReached,
}

/// The user's inference server, as far as routing minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// None is configured.
    None,
    /// It can be asked: it has generated, or was not asked yet.
    Ready,
    /// The request does not fit its model's context.
    DoesNotFit,
    /// The request started by itself, and such ones must not go there.
    AutomaticOff,
    /// It cannot be reached, or refuses the key.
    Failed,
    /// It failed several times in a row and is being left alone.
    BreakerOpen,
}

/// What the privacy rules say about the text of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disclosure {
    /// Nobody has looked yet: looking costs time, and most requests stay on the machine. A plan
    /// made so must be made again before text leaves, and [`clear`] sees to it.
    Unexamined,
    /// It may leave.
    Allowed,
    /// It must not.
    Denied(Denial),
}

/// The four places a request can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The user's inference server.
    Server,
    /// The on-device model.
    Local,
    /// `tandem-mini`.
    Embedded,
    /// Claude.
    Claude,
}

/// One step of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Who is asked.
    pub target: Target,
    /// Why.
    pub reason: RouteReason,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whether the local model should be loaded meanwhile.
    pub warm_up: bool,
    /// Who is asked, or why nobody is.
    pub route: Route,
}

/// Who is asked, or why nobody is.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// These, in turn, until one sends text. Never empty.
    Ask(Vec<Attempt>),
    /// Nobody.
    Refuse(Refusal),
}

/// Why Claude is not among those who are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withheld {
    /// The mode is `local-only`.
    LocalOnly,
    /// No key is configured.
    NoKey,
    /// Automatic completions must not go to Claude.
    AutomaticOff,
    /// The privacy rules deny it.
    Denied(Denial),
    /// The day's spend cap is reached.
    CapReached,
    /// It failed several times in a row and is being left alone.
    BreakerOpen,
}

impl Situation {
    /// Why Claude must not be asked, `None` if it may be.
    #[must_use]
    pub fn withheld(&self) -> Option<Withheld> {
        if self.mode == Mode::LocalOnly {
            return Some(Withheld::LocalOnly);
        }
        if self.claude == ClaudeState::NoKey {
            return Some(Withheld::NoKey);
        }
        if self.task == TaskKind::Complete && self.start == Start::AutomaticClaudeOff {
            return Some(Withheld::AutomaticOff);
        }
        if let Disclosure::Denied(denial) = &self.disclosure {
            return Some(Withheld::Denied(denial.clone()));
        }
        match self.claude {
            ClaudeState::NoKey => Some(Withheld::NoKey),
            ClaudeState::CapReached => Some(Withheld::CapReached),
            ClaudeState::BreakerOpen => Some(Withheld::BreakerOpen),
            ClaudeState::Ready => None,
        }
    }

    /// Whether the user's inference server may be asked. Wherever it is, it counts as another machine.
    #[must_use]
    pub fn server_allowed(&self) -> bool {
        self.mode == Mode::Auto
            && self.server == ServerState::Ready
            && !matches!(self.disclosure, Disclosure::Denied(_))
    }

    /// Why the text must not go to the server, which could be asked otherwise.
    #[must_use]
    pub fn denied_server(&self) -> Option<&Denial> {
        match &self.disclosure {
            Disclosure::Denied(denial)
                if self.mode == Mode::Auto && self.server == ServerState::Ready =>
            {
                Some(denial)
            }
            Disclosure::Denied(_) | Disclosure::Unexamined | Disclosure::Allowed => None,
        }
    }

    /// Whether the text may leave for `target`.
    fn may_leave_for(&self, target: Target) -> bool {
        match target {
            Target::Server => self.server_allowed(),
            Target::Claude => self.withheld().is_none(),
            // It would not leave.
            Target::Local | Target::Embedded => false,
        }
    }

    fn is_heavy(&self) -> bool {
        self.effort == Effort::High || !self.fits_local
    }
}

/// The routing table.
#[must_use]
pub fn plan(situation: &Situation) -> Plan {
    let withheld = situation.withheld();
    let targets = targets(situation, withheld.is_none());
    let route = match targets.split_first() {
        None => Route::Refuse(refusal::refuse(situation, withheld.as_ref())),
        Some((first, rest)) => {
            let first = Attempt {
                target: *first,
                reason: reason(situation, *first),
            };
            let rest = rest.iter().map(|target| Attempt {
                target: *target,
                reason: RouteReason::FellBack,
            });
            Route::Ask(std::iter::once(first).chain(rest).collect())
        }
    };
    Plan {
        warm_up: situation.mode != Mode::ClaudeOnly && situation.local == LocalState::Loading,
        route,
    }
}

/// Who is asked, best first.
fn targets(situation: &Situation, claude_allowed: bool) -> Vec<Target> {
    let claude = claude_allowed.then_some(Target::Claude);
    let server = situation.server_allowed().then_some(Target::Server);
    if situation.mode == Mode::ClaudeOnly {
        return claude.into_iter().collect();
    }
    // A small base model continues code; it can neither chat nor follow an instruction.
    let embedded =
        (situation.embedded && situation.task == TaskKind::Complete).then_some(Target::Embedded);
    let local = situation.fits_local.then_some(Target::Local);
    let order = if situation.is_heavy() {
        match situation.local {
            LocalState::Healthy | LocalState::Loading | LocalState::Degraded => {
                [claude, server, local, embedded]
            }
            LocalState::None
            | LocalState::Downloading
            | LocalState::Failed
            | LocalState::BreakerOpen => [claude, server, embedded, None],
        }
    } else {
        // Whoever configures a server means it for this: it comes first, whatever runs here.
        match situation.local {
            LocalState::Healthy => [server, local, claude, embedded],
            // While it loads, others answer, and only a request that nobody else may serve waits.
            // What generates badly or slowly is likewise better than nothing.
            LocalState::Loading | LocalState::Degraded => [server, claude, embedded, local],
            LocalState::None
            | LocalState::Downloading
            | LocalState::Failed
            | LocalState::BreakerOpen => [server, claude, embedded, None],
        }
    };
    order.into_iter().flatten().collect()
}

/// Why the first of a plan is the first.
fn reason(situation: &Situation, target: Target) -> RouteReason {
    match situation.mode {
        Mode::ClaudeOnly => return RouteReason::ModeClaudeOnly,
        Mode::LocalOnly
            if target == Target::Local
                && !situation.is_heavy()
                && situation.local == LocalState::Healthy =>
        {
            return RouteReason::ModeLocalOnly;
        }
        Mode::LocalOnly | Mode::Auto => {}
    }
    match target {
        Target::Server => RouteReason::ServerConfigured,
        Target::Claude if !situation.fits_local => RouteReason::DoesNotFitLocal,
        Target::Claude if situation.effort == Effort::High => RouteReason::HeavyEffort,
        Target::Local if situation.is_heavy() => RouteReason::HeavyButLocalOnly,
        Target::Embedded if situation.is_heavy() => RouteReason::LastResort,
        Target::Local | Target::Embedded | Target::Claude => match situation.local {
            LocalState::None => RouteReason::NoLocalModel,
            LocalState::Downloading | LocalState::Loading => RouteReason::LocalLoading,
            LocalState::Healthy => RouteReason::LocalHealthy,
            LocalState::Degraded => RouteReason::LocalDegraded,
            LocalState::Failed | LocalState::BreakerOpen => RouteReason::LocalFailed,
        },
    }
}

/// A request whose text may leave the machine for one place, without the pieces that must not. Only this
/// file can make one.
pub struct Cleared {
    request: GenerateRequest,
    target: Target,
}

/// Clears a request to leave the machine for `target` in `situation`, given what was found about its
/// text. Pieces of other documents that must not leave are dropped; if any other part must not, all of
/// it stays: `None`.
#[must_use]
pub fn clear(
    target: Target,
    situation: &Situation,
    evidence: &Evidence,
    mut request: GenerateRequest,
) -> Option<Cleared> {
    if evidence.request.is_some() || !situation.may_leave_for(target) {
        return None;
    }
    if let Task::Complete(task) = &mut request.task {
        let mut pieces = evidence.snippets.iter();
        // A piece that nobody examined has no verdict, and stays.
        task.snippets
            .retain(|_| matches!(pieces.next(), Some(None)));
    }
    Some(Cleared { request, target })
}

/// Whether a backend of this kind sends what it is given to another machine. An inference server
/// may be anywhere, so it counts as one that does.
fn leaves_the_machine(kind: BackendKind) -> bool {
    match kind {
        BackendKind::Claude | BackendKind::Server => true,
        BackendKind::CoreMl
        | BackendKind::Candle
        | BackendKind::Embedded
        | BackendKind::Scripted => false,
    }
}

/// A backend that text may be given to freely, since it stays on the machine.
#[derive(Clone)]
pub struct OnDevice(Arc<dyn Backend>);

/// A backend that takes text off the machine.
#[derive(Clone)]
pub struct OffDevice {
    backend: Arc<dyn Backend>,
    target: Target,
}

impl OnDevice {
    /// `None` for a backend of a kind that leaves the machine.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Option<Self> {
        (!leaves_the_machine(backend.descriptor().kind)).then_some(Self(backend))
    }

    /// See [`Backend::generate`].
    #[must_use]
    pub fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        self.0.generate(request, cancel)
    }

    /// See [`Backend::warm_up`].
    pub fn warm_up(&self) {
        self.0.warm_up();
    }
}

impl OffDevice {
    /// Every backend may be treated as one that leaves the machine: as `target`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, target: Target) -> Self {
        Self { backend, target }
    }

    /// See [`Backend::generate`]. What was cleared for somebody else is not given to this one.
    #[must_use]
    pub fn generate(&self, request: Cleared, cancel: CancellationToken) -> TokenStream {
        if request.target != self.target {
            return TokenStream::failed(GenerateError::new(
                ErrorKind::Denied,
                "the request was cleared for somebody else",
                "This is a defect in Tandem: please report it.",
            ));
        }
        self.backend.generate(request.request, cancel)
    }
}

#[cfg(test)]
mod tests;
