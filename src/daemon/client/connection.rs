//! One connection to a daemon: what is said goes out in order, what comes goes to whoever waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::reach::Peer;
use crate::daemon::wire::{DaemonHello, FromDaemon, ReportedBackend, ToDaemon, WireRequest};
use crate::daemon::{Frame, FrameError, LIMIT, ModelSpec, frame};
use crate::inference::{Finish, GenerateError, Health, Placement, Usage};

/// Bytes that may wait to be sent before new requests are turned away. Four of the largest.
const QUEUE: usize = 4 * LIMIT;

/// Whoever wants to know how a model is. Called under a lock: it must not ask the connection anything.
pub(super) trait Listener: Send + Sync {
    fn hear(&self, health: Health, placement: Option<Placement>);
}

/// See the module.
pub(super) struct Connection {
    pub(super) daemon: DaemonHello,
    pub(super) peer: Peer,
    since: Instant,
    /// Unbounded, so that what is said keeps its order without a task for each word. Requests are what
    /// is large, and those are turned away beyond [`QUEUE`].
    outgoing: mpsc::UnboundedSender<Frame>,
    queued: AtomicUsize,
    table: Mutex<Table>,
    /// Tells the watch that a request is outstanding.
    asked: Notify,
    draining: CancellationToken,
    ended: CancellationToken,
}

struct Table {
    next: u64,
    /// An unbounded buffer each: a reader that is behind must not hold up the others, and an answer is
    /// as long as its request allows at most.
    requests: HashMap<u64, mpsc::UnboundedSender<Answer>>,
    models: HashMap<u32, Opened>,
    /// When something last came, or became due.
    heard: Instant,
    /// Takes no new requests and ends with its last.
    retired: bool,
    end: Option<End>,
    end_told: bool,
}

struct Opened {
    listener: Weak<dyn Listener>,
    /// Whether the daemon is at work on it.
    loading: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Whether anything was being done for us.
    pub(super) busy: bool,
    /// What happened; `None` where the daemon hung up between two messages.
    pub(super) fault: Option<String>,
}

/// What comes of a request.
#[derive(Debug)]
pub(super) enum Answer {
    Count(Usage),
    Delta(String),
    Done(Finish),
    Failed(GenerateError),
}

/// Why a request was not sent.
#[derive(Debug)]
pub(super) enum NotAsked {
    /// The connection is no more, or takes none.
    Gone,
    /// Too much waits to be sent.
    Full,
    /// It cannot be put into a frame.
    Frame(FrameError),
}

/// A request that the daemon has. Dropping it before its end cancels it there.
pub(super) struct Asked {
    connection: Arc<Connection>,
    id: u64,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Connection {
    /// A connection over `stream`, after the hello. It ends by [`Self::end`], or by itself.
    pub(super) fn start<S>(stream: S, peer: Peer, daemon: DaemonHello) -> Arc<Self>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let connection = Arc::new(Self {
            daemon,
            peer,
            since: Instant::now(),
            outgoing,
            queued: AtomicUsize::new(0),
            table: Mutex::new(Table {
                next: 1,
                requests: HashMap::new(),
                models: HashMap::new(),
                heard: Instant::now(),
                retired: false,
                end: None,
                end_told: false,
            }),
            asked: Notify::new(),
            draining: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let (input, output) = tokio::io::split(stream);
        tokio::spawn(Arc::clone(&connection).read(input));
        tokio::spawn(Arc::clone(&connection).write(output, queue));
        connection
    }

    /// Whether requests may be sent over it.
    pub(super) fn is_live(&self) -> bool {
        !self.ended.is_cancelled() && !self.table().retired && !self.is_draining()
    }

    /// Whether the daemon has said that it ends.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// How long it has been there.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// How it ended, if it has; to the first who asks.
    pub(super) fn take_end(&self) -> Option<End> {
        let mut table = self.table();
        if table.end_told {
            return None;
        }
        let end = table.end.clone();
        table.end_told = end.is_some();
        end
    }

    /// Returns when the daemon says that it ends.
    pub(super) async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Returns when requests are outstanding and nothing has come for `limit`.
    pub(super) async fn silent(&self, limit: Duration) {
        loop {
            match self.due(limit) {
                None => self.asked.notified().await,
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::time::sleep_until(due).await,
            }
        }
    }

    /// Whether [`Self::silent`] would return at once.
    pub(super) fn is_silent(&self, limit: Duration) -> bool {
        self.due(limit).is_some_and(|due| due <= Instant::now())
    }

    fn due(&self, limit: Duration) -> Option<Instant> {
        let table = self.table();
        (!table.requests.is_empty()).then(|| table.heard + limit)
    }

    /// Has `listener` told how `model` is. Once a connection; later calls do nothing.
    pub(super) fn open(&self, model: u32, spec: &ModelSpec, listener: Weak<dyn Listener>) {
        self.open_in(&mut self.table(), model, spec, listener);
    }

    /// Has the daemon load `model`, which is open.
    pub(super) fn warm_up(&self, model: u32) {
        if let Some(opened) = self.table().models.get_mut(&model) {
            opened.loading = true;
        }
        self.say(&ToDaemon::WarmUp { model });
    }

    /// Says how the session's backends are.
    pub(super) fn report(&self, backends: Vec<ReportedBackend>) {
        self.say(&ToDaemon::Report { backends });
    }

    /// Sends a request for `model`, which is open.
    pub(super) fn ask(
        self: &Arc<Self>,
        model: u32,
        request: WireRequest,
    ) -> Result<Asked, NotAsked> {
        let id = {
            let mut table = self.table();
            let id = table.next;
            table.next += 1;
            id
        };
        let request = Box::new(request);
        let message = ToDaemon::Generate { id, model, request };
        let frame = Frame::new(&message).map_err(NotAsked::Frame)?;
        if self.queued.load(Ordering::Relaxed) > QUEUE {
            return Err(NotAsked::Full);
        }
        let (sender, answers) = mpsc::unbounded_channel();
        {
            let mut table = self.table();
            if table.end.is_some() || table.retired {
                return Err(NotAsked::Gone);
            }
            if table.requests.is_empty() {
                table.heard = Instant::now();
            }
            table.requests.insert(id, sender);
            self.send(frame);
        }
        self.asked.notify_one();
        Ok(Asked {
            connection: Arc::clone(self),
            id,
            answers,
        })
    }

    /// Takes no more requests, tells no more of models, and ends with its last request.
    pub(super) fn retire(&self) {
        let mut table = self.table();
        table.retired = true;
        table.models.clear();
        self.close_when_done(table);
    }

    /// Gives it another `limit` before it counts as silent.
    pub(super) fn forgive(&self) {
        self.table().heard = Instant::now();
    }

    /// Ends it. What is outstanding is lost.
    pub(super) fn end(&self, fault: Option<String>) {
        let mut table = self.table();
        if table.end.is_none() {
            let loading = table.models.values().any(|model| model.loading);
            table.end = Some(End {
                busy: loading || !table.requests.is_empty(),
                fault,
            });
        }
        table.requests.clear();
        drop(table);
        self.ended.cancel();
    }

    fn open_in(
        &self,
        table: &mut Table,
        model: u32,
        spec: &ModelSpec,
        listener: Weak<dyn Listener>,
    ) {
        if table.retired || table.models.contains_key(&model) {
            return;
        }
        let opened = Opened {
            listener,
            loading: false,
        };
        table.models.insert(model, opened);
        // Under the lock, so that no request for it goes out before.
        self.say(&ToDaemon::Open {
            model,
            spec: spec.clone(),
        });
    }

    fn close_when_done(&self, table: MutexGuard<'_, Table>) {
        let done = table.retired && table.requests.is_empty();
        drop(table);
        if done {
            self.end(None);
        }
    }

    fn say(&self, message: &ToDaemon) {
        match Frame::new(message) {
            Ok(frame) => self.send(frame),
            // Only a request can be too large.
            Err(error) => tracing::warn!(%error, "something could not be said to the daemon"),
        }
    }

    fn send(&self, frame: Frame) {
        self.queued
            .fetch_add(frame.bytes().len(), Ordering::Relaxed);
        // Where nobody sends any more, the end is known or about to be.
        let _ = self.outgoing.send(frame);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self: Arc<Self>, mut input: impl AsyncRead + Unpin) {
        let read = async {
            loop {
                match frame::read(&mut input, LIMIT).await {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) => return None,
                    Err(error) => return Some(error.to_string()),
                }
            }
        };
        if let Some(fault) = self.ended.run_until_cancelled(read).await {
            self.end(fault);
        }
    }

    async fn write(
        self: Arc<Self>,
        mut output: impl AsyncWrite + Unpin,
        mut queue: mpsc::UnboundedReceiver<Frame>,
    ) {
        let write = async {
            while let Some(frame) = queue.recv().await {
                self.queued
                    .fetch_sub(frame.bytes().len(), Ordering::Relaxed);
                // What the daemon said before it went away is still to be read: the reader ends it.
                if output.write_all(frame.bytes()).await.is_err() || output.flush().await.is_err() {
                    return;
                }
            }
        };
        self.ended.run_until_cancelled(write).await;
    }

    fn hear(&self, message: FromDaemon) {
        let mut table = self.table();
        table.heard = Instant::now();
        match message {
            FromDaemon::Health {
                model,
                health,
                placement,
            } => {
                if let Some(opened) = table.models.get_mut(&model) {
                    let health = Health::from(health);
                    opened.loading = match health {
                        Health::Loading | Health::Probing => true,
                        // As asked, and not begun.
                        Health::Unloaded => opened.loading,
                        _ => false,
                    };
                    if let Some(listener) = opened.listener.upgrade() {
                        listener.hear(health, placement.map(Placement::from));
                    }
                }
            }
            FromDaemon::Count { id, usage } => table.pass(id, Answer::Count(usage.into())),
            FromDaemon::Delta { id, text } => table.pass(id, Answer::Delta(text)),
            FromDaemon::Done { id, finish } => {
                table.pass(id, Answer::Done(finish.into()));
                table.requests.remove(&id);
                self.close_when_done(table);
            }
            FromDaemon::Failed { id, error } => {
                table.pass(id, Answer::Failed(error.into()));
                table.requests.remove(&id);
                self.close_when_done(table);
            }
            FromDaemon::Draining => {
                drop(table);
                self.draining.cancel();
            }
            FromDaemon::Refused { why, .. } => {
                drop(table);
                self.end(Some(why));
            }
            FromDaemon::Hello(_)
            | FromDaemon::Beat
            | FromDaemon::Status(_)
            | FromDaemon::Unknown => {}
        }
    }
}

impl Table {
    /// What nobody waits for any more is passed over.
    fn pass(&mut self, id: u64, answer: Answer) {
        if let Some(request) = self.requests.get(&id) {
            let _ = request.send(answer);
        }
    }
}

impl Asked {
    /// What comes next; `None` when the connection was lost before the end.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut table = self.connection.table();
        if table.requests.remove(&self.id).is_some() {
            self.connection.say(&ToDaemon::Cancel { id: self.id });
            self.connection.close_when_done(table);
        }
    }
}
