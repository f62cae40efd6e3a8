//! The pipe under rmcp: one JSON-RPC message a line, bounded, and tolerant of whatever else comes.
//!
//! rmcp's own transport ends the session when a notification comes before the handshake, leaves
//! unreadable lines without a reply and loses one of two replies under the same id. This one answers
//! every request line once and lets the session live on.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, GetMeta, JsonRpcMessage,
    ProtocolVersion, RequestId, RequestMetaObject, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::framing::{self, IdScan, Incoming};

/// The longest line that is kept. The fields of a tool call are bounded to a few MiB together, and
/// JSON at most doubles what people write.
const LONGEST_LINE: usize = 16 << 20;

/// Messages that may wait to be handled, and lines that may wait to be written: enough for a burst,
/// few enough that a client that does not read is made to wait. Chosen arbitrarily.
const WAITING: usize = 64;

/// Requests without a reply so far.
type Open = Arc<Mutex<HashSet<RequestId>>>;

/// The transport that rmcp drives.
pub(super) struct Wire {
    inbox: mpsc::Receiver<ClientJsonRpcMessage>,
    outbox: Option<mpsc::Sender<Vec<u8>>>,
    open: Open,
    reader: JoinHandle<()>,
}

impl Wire {
    /// Starts to read `input` and to write `output`. `hung_up` is cancelled at the end of `input`.
    /// The second value is the writer: it ends once the wire is gone and all lines are written.
    pub(super) fn new<R, W>(
        input: R,
        output: W,
        hung_up: CancellationToken,
    ) -> (Self, JoinHandle<()>)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, inbox) = mpsc::channel(WAITING);
        let (outbox, lines) = mpsc::channel(WAITING);
        let open = Open::default();
        let reader = Reader {
            inbox: sender,
            outbox: outbox.clone(),
            open: Arc::clone(&open),
            lifecycle_begun: false,
        };
        let reader = tokio::spawn(async move {
            let gone = reader.outbox.clone();
            tokio::select! {
                () = reader.run(BufReader::new(input)) => {}
                // Nobody reads our replies any more.
                () = gone.closed() => {}
            }
            hung_up.cancel();
        });
        let writer = tokio::spawn(async move {
            if let Err(error) = write(output, lines).await {
                tracing::debug!(%error, "the client stopped reading");
            }
        });
        let wire = Self {
            inbox,
            outbox: Some(outbox),
            open,
            reader,
        };
        (wire, writer)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Transport<RoleServer> for Wire {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        if let JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) = &message {
            forget(&self.open, reply_id(&message));
        }
        let outbox = self.outbox.clone();
        async move {
            let outbox = outbox.ok_or(io::ErrorKind::NotConnected)?;
            outbox
                .send(encode(&message)?)
                .await
                .map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        self.inbox.recv().await
    }

    async fn close(&mut self) -> Result<(), io::Error> {
        self.outbox = None;
        Ok(())
    }
}

/// What happens to the lines of a client, in their order.
struct Reader {
    inbox: mpsc::Sender<ClientJsonRpcMessage>,
    outbox: mpsc::Sender<Vec<u8>>,
    open: Open,
    lifecycle_begun: bool,
}

/// The session is over.
struct Over;

impl Reader {
    async fn run<R: AsyncRead + Unpin>(mut self, mut input: BufReader<R>) {
        let mut line = Vec::new();
        loop {
            line.clear();
            let incoming = match read_line(&mut input, &mut line).await {
                Ok(Line::Whole) => framing::decode(&line),
                Ok(Line::TooLong(id)) => vec![framing::too_long(id, LONGEST_LINE)],
                Ok(Line::End) => return,
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read");
                    return;
                }
            };
            // A line may be large once; the buffer need not stay so.
            line.shrink_to(LONGEST_LINE >> 6);
            for incoming in incoming {
                if self.take(incoming).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        let message = match incoming {
            Incoming::Message(message) => *message,
            Incoming::Rejected { id, error } => return self.reject(id, error).await,
        };
        match &message {
            JsonRpcMessage::Request(request) => {
                let id = request.id.clone();
                if !self.lifecycle_begun && lacks_metadata(&request.request) {
                    return self.reject(Some(id), not_begun()).await;
                }
                if !self.remember(&id) {
                    let error = ErrorData::invalid_request(
                        "A request with this id is still being answered. Give every request an \
                         id of its own.",
                        None,
                    );
                    return self.reject(None, error).await;
                }
                self.lifecycle_begun |= begins_lifecycle(&request.request);
            }
            // rmcp takes anything but a request as a failed handshake, and hosts do send
            // notifications early.
            _ if !self.lifecycle_begun => return Ok(()),
            JsonRpcMessage::Notification(notification) => {
                // A cancelled request gets no reply, so its id is free again.
                if let ClientNotification::CancelledNotification(cancelled) =
                    &notification.notification
                {
                    forget(&self.open, cancelled.params.request_id.as_ref());
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        self.inbox.send(message).await.map_err(|_| Over)
    }

    fn remember(&self, id: &RequestId) -> bool {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone())
    }

    async fn reject(&self, id: Option<RequestId>, error: ErrorData) -> Result<(), Over> {
        let line = encode(&ServerJsonRpcMessage::error(error, id)).map_err(|_| Over)?;
        self.outbox.send(line).await.map_err(|_| Over)
    }
}

/// Whether a request fits neither lifecycle before one has begun.
fn lacks_metadata(request: &ClientRequest) -> bool {
    !matches!(
        request,
        ClientRequest::InitializeRequest(_) | ClientRequest::PingRequest(_)
    ) && !missing_metadata(request).is_empty()
}

fn missing_metadata(request: &ClientRequest) -> Vec<&'static str> {
    request
        .get_meta()
        .missing_required_keys(&ProtocolVersion::V_2026_07_28)
}

fn not_begun() -> ErrorData {
    let keys = RequestMetaObject::DRAFT_REQUIRED_KEYS.join("` and `");
    let message = format!(
        "The session has not begun. Send `initialize` first, or, for protocol 2026-07-28, `{keys}` \
         in the `_meta` of each request."
    );
    ErrorData::invalid_params(message, None)
}

/// Whether rmcp leaves the handshake with this request: at `initialize`, or at the first request
/// other than `server/discover` that carries all the metadata of the stateless lifecycle.
fn begins_lifecycle(request: &ClientRequest) -> bool {
    match request {
        ClientRequest::InitializeRequest(_) => true,
        ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_) => false,
        other => {
            missing_metadata(other).is_empty()
                && other
                    .get_meta()
                    .protocol_version()
                    .is_some_and(|version| ProtocolVersion::KNOWN_VERSIONS.contains(&version))
        }
    }
}

fn forget(open: &Open, id: Option<&RequestId>) {
    if let Some(id) = id {
        open.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}

fn reply_id(message: &ServerJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Response(response) => Some(&response.id),
        JsonRpcMessage::Error(error) => error.id.as_ref(),
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
    }
}

fn encode(message: &ServerJsonRpcMessage) -> Result<Vec<u8>, io::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// What came of reading a line.
enum Line {
    /// It is in the buffer.
    Whole,
    /// It was longer than [`LONGEST_LINE`] and has been dropped; its request's id, if seen.
    TooLong(Option<RequestId>),
    /// There is none.
    End,
}

/// Reads up to the next line feed, or to the end of the input, keeping at most [`LONGEST_LINE`].
async fn read_line<R: AsyncRead + Unpin>(
    input: &mut BufReader<R>,
    line: &mut Vec<u8>,
) -> io::Result<Line> {
    let mut dropped: Option<IdScan> = None;
    loop {
        let available = input.fill_buf().await?;
        let (piece, ends) = match available.iter().position(|byte| *byte == b'\n') {
            Some(at) => (&available[..at], true),
            None => (available, false),
        };
        let used = piece.len() + usize::from(ends);
        if let Some(scan) = &mut dropped {
            scan.feed(piece);
        } else if line.len() + piece.len() > LONGEST_LINE {
            let mut scan = IdScan::default();
            scan.feed(line);
            scan.feed(piece);
            *line = Vec::new();
            dropped = Some(scan);
        } else {
            line.extend_from_slice(piece);
        }
        input.consume(used);
        if ends || used == 0 {
            return Ok(match dropped {
                Some(scan) => Line::TooLong(scan.id()),
                None if used == 0 && line.is_empty() => Line::End,
                None => Line::Whole,
            });
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut output: W,
    mut lines: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        output.write_all(&line).await?;
        while let Ok(line) = lines.try_recv() {
            output.write_all(&line).await?;
        }
        output.flush().await?;
    }
    output.shutdown().await
}
