//! The way to the client: replies, notifications and requests of ours.
//!
//! tower-lsp's own handle panics when a reply comes for a request whose caller was cancelled, and
//! cannot say `window/workDoneProgress/create`; this one does neither.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tower_lsp::jsonrpc::Response;
use tower_lsp::lsp_types::notification::{Notification, ShowMessage};
use tower_lsp::lsp_types::request::Request;
use tower_lsp::lsp_types::{MessageType, ShowMessageParams};

/// Messages that may wait for the client to read; beyond it, handlers wait too.
const UNSENT_MESSAGES: usize = 256;

/// A handle to the client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    outbox: mpsc::Sender<Outgoing>,
    next_id: AtomicI64,
    waiting: Mutex<HashMap<i64, oneshot::Sender<Result<Value, String>>>>,
}

/// What the writer is told.
#[derive(Debug)]
pub enum Outgoing {
    /// A message's body.
    Body(Vec<u8>),
    /// Write nothing more.
    Close,
}

/// Why a request of ours has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client is gone.
    #[error("the editor is gone")]
    Gone,
    /// The client answered with an error, or with what is no result.
    #[error("the editor answered: {0}")]
    Refused(String),
}

#[derive(Serialize)]
struct Message<'a, P> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    method: &'a str,
    params: P,
}

impl Client {
    /// A handle, and the messages to be written.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (outbox, messages) = mpsc::channel(UNSENT_MESSAGES);
        let client = Self(Arc::new(Inner {
            outbox,
            next_id: AtomicI64::new(1),
            waiting: Mutex::default(),
        }));
        (client, messages)
    }

    /// Sends a reply.
    pub async fn reply(&self, response: &Response) {
        if let Some(body) = encode(response) {
            self.send(Outgoing::Body(body)).await;
        }
    }

    /// Sends a notification.
    pub async fn notify<N: Notification>(&self, params: N::Params) {
        if let Some(body) = notification::<N>(params) {
            self.send(Outgoing::Body(body)).await;
        }
    }

    /// Sends a notification if there is room, for places that cannot wait.
    pub fn notify_now<N: Notification>(&self, params: N::Params) {
        if let Some(body) = notification::<N>(params) {
            // A client that reads so little misses a status, not an answer.
            let _ = self.0.outbox.try_send(Outgoing::Body(body));
        }
    }

    /// Shows a message to the user.
    pub async fn show(&self, kind: MessageType, message: impl Into<String>) {
        self.notify::<ShowMessage>(ShowMessageParams {
            typ: kind,
            message: message.into(),
        })
        .await;
    }

    /// Sends a request and waits for its result.
    ///
    /// # Errors
    /// [`ClientError`] when the client refuses or is gone.
    pub async fn request<R: Request>(&self, params: R::Params) -> Result<R::Result, ClientError> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(id, sender);
        let _forget = Forget { client: self, id };
        let body = encode(&Message {
            jsonrpc: "2.0",
            id: Some(id),
            method: R::METHOD,
            params,
        })
        .ok_or(ClientError::Gone)?;
        self.send(Outgoing::Body(body)).await;
        let result = receiver
            .await
            .map_err(|_| ClientError::Gone)?
            .map_err(ClientError::Refused)?;
        serde_json::from_value(result).map_err(|error| ClientError::Refused(error.to_string()))
    }

    /// Hands a reply of the client to the request that waits for it. Replies that nobody waits for
    /// any more are dropped.
    pub fn answered(&self, id: i64, outcome: Result<Value, String>) {
        let waiting = self.waiting().remove(&id);
        if waiting.is_none_or(|sender| sender.send(outcome).is_err()) {
            tracing::debug!(id, "a reply came that nobody waits for");
        }
    }

    /// Ends the way to the client: what was sent before is still written, requests of ours fail.
    pub async fn close(&self) {
        self.waiting().clear();
        self.send(Outgoing::Close).await;
    }

    async fn send(&self, message: Outgoing) {
        if self.0.outbox.send(message).await.is_err() {
            self.waiting().clear();
        }
    }

    fn waiting(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<i64, oneshot::Sender<Result<Value, String>>>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a request of ours when its caller is dropped.
struct Forget<'a> {
    client: &'a Client,
    id: i64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.client.waiting().remove(&self.id);
    }
}

fn notification<N: Notification>(params: N::Params) -> Option<Vec<u8>> {
    encode(&Message {
        jsonrpc: "2.0",
        id: None,
        method: N::METHOD,
        params,
    })
}

fn encode(message: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(message)
        .inspect_err(|error| tracing::error!(%error, "a message could not be encoded"))
        .ok()
}
