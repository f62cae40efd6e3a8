//! As much of HTTP/1.1 as a server for one endpoint needs, with nothing between it and the socket:
//! it must be able to break off anywhere.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Limits of what is read: far above what any client of ours or the SDK sends.
const MOST_HEAD_BYTES: usize = 64 << 10;
const MOST_BODY_BYTES: usize = 34 << 20;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST`.
    pub method: String,
    /// With the query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whole.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A part of what is sent.
#[derive(Debug, Clone)]
pub enum Piece {
    /// These bytes; in a chunked body, one chunk.
    Bytes(Vec<u8>),
    /// Nothing for so long.
    Pause(Duration),
    /// Nothing until the client gives up.
    Hang,
    /// No more, and no proper end: the connection is closed.
    Close,
    /// From here on all of it again and again.
    Forever,
}

/// What is sent in answer to a request.
#[derive(Debug, Clone)]
pub struct Response {
    /// Before the status line: [`Piece::Pause`], [`Piece::Hang`] or [`Piece::Close`].
    pub before: Option<Piece>,
    /// Such as 200.
    pub status: u16,
    /// Besides those for the body's length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<Piece>,
}

/// How the sending went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// To the end that was meant.
    Whole,
    /// The client closed the connection before.
    Abandoned,
    /// We closed it, as told.
    Closed,
}

/// A client's connection.
pub struct Connection {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    unread: Vec<u8>,
}

impl Connection {
    /// Takes over a socket.
    pub fn new(socket: TcpStream) -> Self {
        let _ = socket.set_nodelay(true);
        let (read, write) = socket.into_split();
        Self {
            read,
            write,
            unread: Vec::new(),
        }
    }

    /// The next request; `None` when the client is done or sends no HTTP.
    pub async fn request(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            if self.unread.len() > MOST_HEAD_BYTES || self.more().await == 0 {
                return None;
            }
        };
        let head = String::from_utf8(self.unread[..end].to_vec()).ok()?;
        self.unread.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut request = Request {
            method,
            target,
            headers,
            body: Vec::new(),
        };
        let length: usize = request
            .header("content-length")
            .map_or(Ok(0), str::parse)
            .ok()?;
        if length > MOST_BODY_BYTES {
            return None;
        }
        while self.unread.len() < length {
            if self.more().await == 0 {
                return None;
            }
        }
        request.body = self.unread.drain(..length).collect();
        Some(request)
    }

    /// Sends a response; a client that closes meanwhile ends it.
    pub async fn send(&mut self, response: &Response) -> Sent {
        let Self {
            read,
            write,
            unread,
        } = self;
        tokio::select! {
            biased;
            sent = write_response(write, response) => sent.unwrap_or(Sent::Abandoned),
            () = closed(read, unread) => Sent::Abandoned,
        }
    }

    async fn more(&mut self) -> usize {
        let mut bytes = vec![0; 16 << 10];
        let count = self.read.read(&mut bytes).await.unwrap_or(0);
        self.unread.extend_from_slice(&bytes[..count]);
        count
    }
}

async fn write_response(write: &mut OwnedWriteHalf, response: &Response) -> io::Result<Sent> {
    match response.before {
        Some(Piece::Pause(pause)) => tokio::time::sleep(pause).await,
        Some(Piece::Hang) => std::future::pending().await,
        Some(Piece::Close) => return Ok(Sent::Closed),
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} Answer\r\n", response.status);
    for (name, value) in &response.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let whole = match response.body.as_slice() {
        [] => Some(&[][..]),
        [Piece::Bytes(bytes)] => Some(bytes.as_slice()),
        _ => None,
    };
    if let Some(body) = whole {
        let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
        write.write_all(head.as_bytes()).await?;
        write.write_all(body).await?;
        return Ok(Sent::Whole);
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    write.write_all(head.as_bytes()).await?;
    loop {
        for piece in &response.body {
            match piece {
                Piece::Bytes(bytes) if bytes.is_empty() => {}
                Piece::Bytes(bytes) => {
                    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                    chunk.extend_from_slice(bytes);
                    chunk.extend_from_slice(b"\r\n");
                    write.write_all(&chunk).await?;
                }
                Piece::Pause(pause) => tokio::time::sleep(*pause).await,
                Piece::Hang => std::future::pending().await,
                Piece::Close => return Ok(Sent::Closed),
                Piece::Forever => {}
            }
        }
        if !matches!(response.body.last(), Some(Piece::Forever)) {
            write.write_all(b"0\r\n\r\n").await?;
            return Ok(Sent::Whole);
        }
    }
}

/// Waits until the client closes; what it sends before is kept for the next request.
async fn closed(read: &mut OwnedReadHalf, unread: &mut Vec<u8>) {
    let mut bytes = vec![0; 4 << 10];
    loop {
        match read.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => unread.extend_from_slice(&bytes[..count]),
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
