//! The completion that follows if the one that is shown is accepted, computed while it is shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::inference::{Priority, RouteReason};

use super::generate::{self, COMPLETION_LIMIT, Cursor};
use super::pace::Cost;
use super::server::Server;
use super::status::Nothing;
use super::suggestions::{Asked, Suggestion};

/// Who has not pressed a key for so long looks at what is suggested. Shorter than the 400 ms that
/// reading takes, and longer than most pauses within a word.
const IDLE: Duration = Duration::from_millis(200);

/// A model that takes longer for an answer is not kept busy with what may not be wanted.
const FAST: Duration = Duration::from_secs(1);

/// What is computed ahead, one at a time in a session.
#[derive(Debug, Default)]
pub struct Ahead(Mutex<Option<Work>>);

#[derive(Debug)]
struct Work {
    to: Asked,
    /// Whether a model is at it.
    begun: bool,
    /// Cancelled when it has ended, whatever came of it.
    ended: CancellationToken,
    /// Ends it when dropped.
    _cancel: DropGuard,
}

impl Ahead {
    /// When the answer to just what is asked is there, if a model is at it.
    #[must_use]
    pub fn ends(&self, asked: &Asked) -> Option<CancellationToken> {
        let work = self.lock();
        let work = work.as_ref()?;
        (work.begun && work.to.is(asked)).then(|| work.ended.clone())
    }

    /// Ends what is computed ahead: something newer was asked for.
    pub fn give_way(&self) {
        self.lock().take();
    }

    /// Notes that a model begins.
    fn begin(&self, ended: &CancellationToken) {
        if let Some(work) = self.lock().as_mut() {
            // Another may have taken its place meanwhile.
            work.begun |= work.ended == *ended;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes what follows `shown` at `cursor`, unless it is known or being computed: on this machine
/// alone, and once the person rests.
pub fn start(server: &Arc<Server>, cursor: &Cursor, shown: &Suggestion) {
    let settings = server.session.router.settings();
    let fast = server
        .pace
        .answers()
        .is_some_and(|(took, cost)| took <= FAST && cost == Cost::Work);
    let healthy = matches!(
        shown.attribution.reason,
        RouteReason::LocalHealthy | RouteReason::ModeLocalOnly | RouteReason::NoLocalModel
    );
    if !settings.completion.ahead || !fast || !healthy {
        return;
    }
    let seen = cursor.seen().with(&shown.text);
    let mut document = cursor.document.clone();
    document.text = seen.text.clone();
    let accepted = Cursor {
        document,
        from: seen.cursor,
        to: seen.cursor,
        typed: String::new(),
        encoding: cursor.encoding,
    };
    let to = Asked {
        uri: accepted.document.uri.clone(),
        seen,
        automatic: true,
        candidates: 1,
        settings,
    };
    let mut work = server.ahead.lock();
    let known = work
        .as_ref()
        .is_some_and(|work| work.to.is(&to) && !work.ended.is_cancelled());
    if known || server.suggestions.has(&to) {
        return;
    }
    let cancel = accepted.document.closed.child_token();
    let ended = CancellationToken::new();
    *work = Some(Work {
        to: to.clone(),
        begun: false,
        ended: ended.clone(),
        _cancel: cancel.clone().drop_guard(),
    });
    drop(work);
    let server_too = Arc::clone(server);
    server.spawn(async move {
        let ends = ended.clone().drop_guard();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(IDLE) => {}
        }
        server_too.ahead.begin(&ended);
        compute(&server_too, &accepted, to, &cancel).await;
        drop(ends);
    });
}

async fn compute(server: &Server, cursor: &Cursor, to: Asked, cancel: &CancellationToken) {
    let mut request = generate::request(server, cursor, &to);
    request.generate.priority = Priority::Background;
    request.origin.ahead = true;
    let answer = server
        .session
        .router
        .route(request, cancel)
        .collect_within(COMPLETION_LIMIT, |_| {})
        .await;
    match answer {
        Ok(answer) => server.suggestions.keep_for_later(to, answer),
        Err(nothing) => server.suggestions.keep_nothing(to, &Nothing::from(nothing)),
    }
}
