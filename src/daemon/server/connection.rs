//! One connection: the handshake, and what a session says from then on.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::answer::{Question, answer, failed};
use super::models::Lease;
use super::outgoing::{Gone, Outgoing, queue};
use super::{Session, Shared, status};
use crate::daemon::wire::{
    DaemonHello, FromDaemon, PROTOCOLS, ReportedBackend, SessionHello, ToDaemon, WireRequest,
};
use crate::daemon::{Frame, FrameError, HELLO_LIMIT, LIMIT, ModelSpec, read};
use crate::inference::{ClientId, ErrorKind, GenerateError, Health};

/// Backends that a session may report: it has a handful.
const REPORTED: usize = 16;

/// Models that a session may number: it has two or three, and numbers those that failed again.
const MOST_NUMBERS: usize = 256;

/// Characters of a session's name that are kept.
const LONGEST_NAME: usize = 64;

/// Tells a connection that it is not served, where that needs no waiting, and closes it.
pub fn refuse_now(mut connection: impl AsyncWrite + Unpin, why: &str, next_step: &str) {
    if let Ok(frame) = Frame::new(&refusal(why, next_step)) {
        // A connection that is new has room for it; one that has none misses a courtesy.
        let _ = connection.write_all(frame.bytes()).now_or_never();
    }
}

fn refusal(why: &str, next_step: &str) -> FromDaemon {
    FromDaemon::Refused {
        why: why.to_owned(),
        next_step: next_step.to_owned(),
    }
}

/// Serves a connection to its end, or to the daemon's.
pub async fn serve<S>(stream: S, number: u64, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (input, output) = tokio::io::split(stream);
    let mut input = BufReader::new(input);
    let said = tokio::select! {
        () = shared.closing.cancelled() => return,
        said = timeout(shared.limits.hello, read(&mut input, HELLO_LIMIT)) => said,
    };
    let hello = match said {
        Ok(Ok(Some(ToDaemon::Hello(hello)))) => hello,
        Ok(Ok(None)) => return,
        Ok(Ok(Some(_))) => return tracing::warn!("a connection without a hello is closed"),
        Ok(Err(error)) => return tracing::warn!(%error, "a connection without a hello is closed"),
        Err(_) => return tracing::warn!("a silent connection is closed"),
    };
    if hello.works && hello.build > shared.build {
        tracing::info!(build = %hello.build, "a newer build makes this daemon leave");
        shared.draining.cancel();
    }
    let Some(protocol) = PROTOCOLS.common(hello.protocols) else {
        return refuse_now(
            output,
            &format!(
                "the daemon is of Tandem {}, which this session's {} cannot talk to",
                shared.build, hello.build
            ),
            "Restart the editors that run the older of the two.",
        );
    };
    let (outgoing, queue) = queue();
    let draining = shared.draining.is_cancelled();
    // There is room: it is the first.
    outgoing.say_now(&FromDaemon::Hello(DaemonHello {
        protocol,
        build: shared.build.clone(),
        pid: std::process::id(),
        draining,
    }));
    let mut conversation = Conversation::new(number, hello, Arc::clone(&shared), outgoing);
    conversation.told.store(draining, Ordering::Relaxed);
    let told = Arc::clone(&conversation.told);
    let farewell = conversation.outgoing.clone();
    let mut writer = pin!(queue.write_to(output, shared.limits.stalled));
    let ended = tokio::select! {
        biased;
        () = shared.closing.cancelled() => Ok(()),
        () = &mut writer => Err(Gone),
        () = tell_draining(&shared, &told, farewell.clone()) => Err(Gone),
        () = beat(Arc::clone(&conversation.presence.session), farewell.clone(), &shared) => Err(Gone),
        () = conversation.listen(&mut input) => Err(Gone),
    };
    if ended.is_ok() {
        // What was said so far is read before the end.
        let last_words = async {
            if !told.swap(true, Ordering::Relaxed) {
                let _ = farewell.say(&FromDaemon::Draining).await;
            }
            drop(farewell);
            conversation.tasks.shutdown().await;
            drop(conversation);
        };
        tokio::join!(last_words, writer);
    }
}

/// Never returns, but does its work once.
async fn tell_draining(shared: &Shared, told: &AtomicBool, outgoing: Outgoing) {
    shared.draining.cancelled().await;
    if !told.swap(true, Ordering::Relaxed) && outgoing.say(&FromDaemon::Draining).await.is_err() {
        return;
    }
    std::future::pending::<()>().await;
}

/// Never returns: gives signs of life while requests are outstanding.
async fn beat(session: Arc<Session>, outgoing: Outgoing, shared: &Shared) {
    let mut in_flight = session.in_flight.subscribe();
    while in_flight.wait_for(|requests| *requests > 0).await.is_ok() {
        sleep(shared.limits.beat).await;
        if *in_flight.borrow_and_update() > 0 {
            outgoing.say_now(&FromDaemon::Beat);
        }
    }
}

/// The session among all others, until this is dropped.
struct Presence {
    number: u64,
    session: Arc<Session>,
    shared: Arc<Shared>,
}

impl Presence {
    fn new(number: u64, mut hello: SessionHello, shared: Arc<Shared>) -> Self {
        hello.name = hello.name.chars().take(LONGEST_NAME).collect();
        tracing::debug!(number, name = ?hello.name, pid = hello.pid, "a session comes");
        if hello.works {
            shared.working.send_modify(|sessions| *sessions += 1);
        }
        let session = Arc::new(Session {
            hello,
            connected: Instant::now(),
            in_flight: watch::Sender::new(0),
            requests: AtomicU64::new(0),
            backends: Mutex::default(),
        });
        shared.sessions().insert(number, Arc::clone(&session));
        Self {
            number,
            session,
            shared,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        tracing::debug!(number = self.number, "a session goes");
        self.shared.sessions().remove(&self.number);
        if self.session.hello.works {
            self.shared.working.send_modify(|sessions| *sessions -= 1);
        }
    }
}

/// A request is counted until this is dropped.
struct Counted {
    session: Arc<Session>,
    shared: Arc<Shared>,
}

impl Counted {
    fn new(session: Arc<Session>, shared: Arc<Shared>) -> Self {
        session.in_flight.send_modify(|requests| *requests += 1);
        shared.in_flight.send_modify(|requests| *requests += 1);
        Self { session, shared }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.session
            .in_flight
            .send_modify(|requests| *requests -= 1);
        self.shared.in_flight.send_modify(|requests| *requests -= 1);
    }
}

/// The tokens of the requests that are not answered yet.
type Cancels = Arc<Mutex<HashMap<u64, CancellationToken>>>;

/// A request's token is among them until this is dropped.
struct Entry {
    id: u64,
    cancels: Cancels,
}

fn locked(cancels: &Cancels) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
    cancels.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Entry {
    fn drop(&mut self) {
        locked(&self.cancels).remove(&self.id);
    }
}

/// A model as the session numbers it.
struct Opened {
    lease: Arc<Lease>,
    _tells_health: AbortOnDropHandle<()>,
}

/// What a session has going on.
struct Conversation {
    presence: Presence,
    shared: Arc<Shared>,
    outgoing: Outgoing,
    /// Whether the session knows that the daemon drains.
    told: Arc<AtomicBool>,
    /// By the session's numbers; `None` for those that were refused.
    models: HashMap<u32, Option<Opened>>,
    cancels: Cancels,
    tasks: JoinSet<()>,
    /// Of all its requests, so that they end with it at once.
    cancel: CancellationToken,
    _cancel_on_drop: DropGuard,
}

impl Conversation {
    fn new(number: u64, hello: SessionHello, shared: Arc<Shared>, outgoing: Outgoing) -> Self {
        let cancel = CancellationToken::new();
        Self {
            presence: Presence::new(number, hello, Arc::clone(&shared)),
            shared,
            outgoing,
            told: Arc::default(),
            models: HashMap::new(),
            cancels: Arc::default(),
            tasks: JoinSet::new(),
            _cancel_on_drop: cancel.clone().drop_guard(),
            cancel,
        }
    }

    /// Does what the session says, until it is gone.
    async fn listen(&mut self, input: &mut (impl AsyncRead + Unpin)) {
        loop {
            let message = match read(input, LIMIT).await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(FrameError::Io(error)) => {
                    return tracing::debug!(%error, "a connection broke");
                }
                Err(error) => return tracing::warn!(%error, "a session is given up"),
            };
            // Those that have ended need not be kept until the session ends.
            while self.tasks.try_join_next().is_some() {}
            if self.obey(message).await.is_err() {
                return;
            }
        }
    }

    async fn obey(&mut self, message: ToDaemon) -> Result<(), Gone> {
        match message {
            ToDaemon::Hello(_) => {
                tracing::warn!("a session that says hello twice is given up");
                Err(Gone)
            }
            ToDaemon::Open { model, spec } => self.open(model, &spec).await,
            ToDaemon::WarmUp { model } => {
                self.warm_up(model);
                Ok(())
            }
            ToDaemon::Generate { id, model, request } => self.generate(id, model, *request).await,
            ToDaemon::Cancel { id } => {
                if let Some(cancel) = locked(&self.cancels).get(&id) {
                    cancel.cancel();
                }
                Ok(())
            }
            ToDaemon::Report { backends } => {
                self.report(backends);
                Ok(())
            }
            ToDaemon::Status => {
                let status = status::of(&self.shared, self.presence.number);
                self.outgoing
                    .say(&FromDaemon::Status(Box::new(status)))
                    .await
            }
            ToDaemon::Drain => {
                tracing::info!("a session asks this daemon to leave");
                self.told.store(true, Ordering::Relaxed);
                let said = self.outgoing.say(&FromDaemon::Draining).await;
                self.shared.draining.cancel();
                said
            }
            ToDaemon::Unknown => Ok(()),
        }
    }

    fn report(&self, mut backends: Vec<ReportedBackend>) {
        backends.truncate(REPORTED);
        *self.presence.session.backends() = backends;
    }

    async fn open(&mut self, model: u32, spec: &ModelSpec) -> Result<(), Gone> {
        // What stood under this number is given up first.
        self.models.remove(&model);
        if self.models.len() >= MOST_NUMBERS {
            tracing::warn!("a session that numbers too many models is given up");
            return Err(Gone);
        }
        let Some(lease) = self.shared.models.lease(spec) else {
            self.models.insert(model, None);
            let health = Health::Failed {
                error: too_many_models().to_string(),
                retry_after: None,
            };
            return self.outgoing.say(&told_health(model, health)).await;
        };
        let lease = Arc::new(lease);
        let tell = tell_health(model, Arc::clone(&lease), self.outgoing.clone());
        let opened = Opened {
            lease,
            _tells_health: AbortOnDropHandle::new(tokio::spawn(tell)),
        };
        self.models.insert(model, Some(opened));
        Ok(())
    }

    fn warm_up(&mut self, model: u32) {
        if let Some(Some(opened)) = self.models.get(&model) {
            let lease = Arc::clone(&opened.lease);
            self.tasks.spawn(async move {
                if let Ok(backend) = lease.backend().await {
                    backend.warm_up();
                }
            });
        }
    }

    async fn generate(&mut self, id: u64, model: u32, request: WireRequest) -> Result<(), Gone> {
        let session = &self.presence.session;
        session.requests.fetch_add(1, Ordering::Relaxed);
        // Before the look whether it drains: the end waits for what is counted.
        let counted = Counted::new(Arc::clone(session), Arc::clone(&self.shared));
        let lease = match self.admit(id, model) {
            Ok(lease) => lease,
            Err(error) => return self.outgoing.say(&failed(id, error)).await,
        };
        let request = match request.of(ClientId(self.presence.number)) {
            Ok(request) => request,
            Err(error) => return self.outgoing.say(&failed(id, error)).await,
        };
        let cancel = self.cancel.child_token();
        locked(&self.cancels).insert(id, cancel.clone());
        let entry = Entry {
            id,
            cancels: Arc::clone(&self.cancels),
        };
        let question = Question {
            id,
            request,
            cancel,
        };
        let outgoing = self.outgoing.clone();
        self.tasks.spawn(async move {
            let _counted = counted;
            let ended = answer(question, &lease, &outgoing).await;
            // Before the end is said: who has read it may ask again at once.
            drop(entry);
            if let Ok(end) = ended {
                // A session that is gone needs no end.
                let _ = outgoing.say(&end).await;
            }
        });
        Ok(())
    }

    /// The model, if the request may be asked of it.
    fn admit(&self, id: u64, model: u32) -> Result<Arc<Lease>, GenerateError> {
        let invalid = |message: String| {
            let next_step = "Report it: a session does not ask so.";
            GenerateError::new(ErrorKind::InvalidRequest, message, next_step)
        };
        let unavailable =
            |message| GenerateError::new(ErrorKind::Unavailable, message, "Try again in a moment.");
        if self.shared.draining.is_cancelled() {
            return Err(unavailable(
                "the daemon is leaving, to make room for a new one",
            ));
        }
        let cancels = locked(&self.cancels);
        if cancels.contains_key(&id) {
            return Err(invalid(format!("the request number {id} is given already")));
        }
        if cancels.len() >= self.shared.limits.in_flight {
            return Err(unavailable(
                "too many requests of this session are not answered yet",
            ));
        }
        match self.models.get(&model) {
            Some(Some(opened)) => Ok(Arc::clone(&opened.lease)),
            Some(None) => Err(too_many_models()),
            None => Err(invalid(format!("the model number {model} is not open"))),
        }
    }
}

fn too_many_models() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        "too many models are open in the daemon",
        "Close some editors, or let them use the same `local` settings.",
    )
}

fn told_health(model: u32, health: Health) -> FromDaemon {
    FromDaemon::Health {
        model,
        health: health.into(),
        placement: None,
    }
}

/// Tells a model's health at first and at every change. A session that is behind is told the newest.
async fn tell_health(model: u32, lease: Arc<Lease>, outgoing: Outgoing) {
    let backend = match lease.backend().await {
        Ok(backend) => backend,
        Err(error) => {
            let health = Health::Failed {
                error: error.to_string(),
                retry_after: None,
            };
            let _ = outgoing.say(&told_health(model, health)).await;
            return;
        }
    };
    let mut healths = backend.health();
    loop {
        let newest = || {
            // Cloned, since the backend may publish under a lock that it needs to answer.
            let health = healths.borrow_and_update().clone();
            let placement = backend.placement();
            [Some(FromDaemon::Health {
                model,
                health: health.into(),
                placement: placement.map(Into::into),
            })]
        };
        if outgoing.say_late(newest).await.is_err() || healths.changed().await.is_err() {
            return;
        }
    }
}
