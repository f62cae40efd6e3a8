//! A server that speaks the Messages API and stands in for Claude: as strict about requests as the
//! documentation, and as faulty in its answers as it is told to be.

pub mod check;
pub mod http;
pub mod reply;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::http::{Connection, Request, Response, Sent};
use self::reply::Cache;

/// A sound request, as it is handed to who answers it.
pub struct Asked<'a> {
    /// The JSON.
    pub body: &'a Value,
    /// The usage that the answer should tell.
    pub usage: &'a Value,
}

type Answer = dyn Fn(&Asked<'_>) -> Response + Send + Sync;

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that were opened.
    pub connections: usize,
    /// Requests that came, sound or not.
    pub requests: usize,
    /// Answers that were sent to the end that was meant, errors included.
    pub whole: usize,
    /// Answers that the client closed the connection on.
    pub abandoned: usize,
}

/// See the module. Stops when dropped.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    key: String,
    answer: Box<Answer>,
    cache: Cache,
    seen: Mutex<Vec<Request>>,
    counts: watch::Sender<Counts>,
}

impl StandIn {
    /// Serves at `address` whoever has `key`.
    pub async fn serve(
        address: SocketAddr,
        key: &str,
        answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            key: key.to_owned(),
            answer: Box::new(answer),
            cache: Cache::default(),
            seen: Mutex::default(),
            counts: watch::Sender::default(),
        });
        let mut serving = JoinSet::new();
        let for_all = Arc::clone(&shared);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                for_all.counts.send_modify(|counts| counts.connections += 1);
                let shared = Arc::clone(&for_all);
                connections.spawn(async move { shared.converse(Connection::new(socket)).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            shared,
            _serving: serving,
        })
    }

    /// For `ANTHROPIC_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, sound or not.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.seen().clone()
    }

    /// What has happened, now and from now on.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Request>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn converse(&self, mut connection: Connection) {
        while let Some(request) = connection.request().await {
            self.seen().push(request.clone());
            self.counts.send_modify(|counts| counts.requests += 1);
            let response = match check::check(&request, &self.key) {
                Err(refusal) => reply::error(&refusal),
                Ok(body) => {
                    let usage = self.cache.usage(&body);
                    (self.answer)(&Asked {
                        body: &body,
                        usage: &usage,
                    })
                }
            };
            match connection.send(&response).await {
                Sent::Whole => self.counts.send_modify(|counts| counts.whole += 1),
                Sent::Closed => return,
                Sent::Abandoned => {
                    self.counts.send_modify(|counts| counts.abandoned += 1);
                    return;
                }
            }
        }
    }
}
