//! As much of HTTP/1.1 as a hub needs that breaks off wherever it is told to.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Far above any head of a client of ours or of huggingface_hub.
const MOST_HEAD_BYTES: usize = 64 << 10;

/// A request without a body, as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// With the query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Besides the length.
    pub headers: Vec<(String, String)>,
    /// The length that is announced.
    pub length: usize,
    /// What is sent of the body.
    pub body: Vec<u8>,
    /// Somewhere in the body.
    pub pause: Option<(usize, Pause)>,
}

/// What happens in the middle of a body.
#[derive(Debug, Clone)]
pub enum Pause {
    /// The connection is closed.
    Cut,
    /// Nothing is sent before the gate opens.
    Gate(Arc<Semaphore>),
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The next request on a connection; `None` when the client is done.
    pub async fn read(socket: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Self> {
        let end = loop {
            if let Some(at) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            let mut bytes = [0; 4096];
            let count = socket.read(&mut bytes).await.unwrap_or(0);
            if count == 0 || unread.len() > MOST_HEAD_BYTES {
                return None;
            }
            unread.extend_from_slice(&bytes[..count]);
        };
        let head = String::from_utf8(unread[..end].to_vec()).ok()?;
        unread.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self {
            method,
            target,
            headers,
        })
    }
}

impl Response {
    /// An answer with a whole body.
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            length: body.len(),
            body,
            pause: None,
        }
    }

    /// The same with another header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends it; an error ends the connection, whoever it is from.
    pub async fn write(&self, socket: &mut TcpStream, with_body: bool) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Answer\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "content-length: {}\r\n\r\n", self.length);
        socket.write_all(head.as_bytes()).await?;
        if !with_body {
            return Ok(());
        }
        let Some((at, pause)) = &self.pause else {
            return socket.write_all(&self.body).await;
        };
        let (before, after) = self.body.split_at((*at).min(self.body.len()));
        socket.write_all(before).await?;
        match pause {
            Pause::Cut => Err(io::ErrorKind::ConnectionAborted.into()),
            Pause::Gate(gate) => {
                let _opened = gate.acquire().await;
                socket.write_all(after).await
            }
        }
    }
}
