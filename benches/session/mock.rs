//! A model behind HTTP that answers at once, in the dialect it is asked in, and says how long it
//! took itself.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// What the model says, whatever it is asked.
pub const ANSWER: &str = "sum.wrapping_mul(31)";

/// The model. Ends with the process.
pub struct Mock {
    /// Where it listens.
    pub address: SocketAddr,
    served: Receiver<Duration>,
}

impl Mock {
    /// Listens on a free port of this machine.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (sender, served) = sync_channel(1024);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // Ends with the connection.
                std::thread::spawn(move || serve(&stream, &sender));
            }
        });
        Ok(Self { address, served })
    }

    /// How long the model took over all it was asked since the last call: from the last byte of a
    /// request to the last byte of its answer.
    ///
    /// # Errors
    /// If it was not asked: the round trip that led here did not go through the model.
    pub fn took(&self) -> anyhow::Result<Duration> {
        let first = self
            .served
            .recv_timeout(Duration::from_secs(1))
            .context("the model was not asked")?;
        Ok(self.served.try_iter().fold(first, |sum, next| sum + next))
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        self.served.try_iter().for_each(drop);
    }
}

fn serve(stream: &TcpStream, served: &SyncSender<Duration>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut input = BufReader::new(stream);
    let mut output = stream;
    while let Ok(Some((path, _body))) = read_request(&mut input) {
        let started = Instant::now();
        let (content_type, body) = answer(&path);
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if output.write_all(response.as_bytes()).is_err() || served.send(started.elapsed()).is_err()
        {
            return;
        }
    }
}

/// The next request's path and body; `None` at the end of the connection.
fn read_request(input: &mut impl BufRead) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("no path")?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if input.read_line(&mut header)? == 0 {
            bail!("the connection ended within the headers");
        }
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some((path, body)))
}

fn answer(path: &str) -> (&'static str, String) {
    if path.starts_with("/v1/messages") {
        ("text/event-stream", messages_stream())
    } else {
        // Ollama's /api/generate, without streaming: what both peers ask for.
        let body = json!({"model": "mock", "response": ANSWER, "done": true});
        ("application/json", body.to_string())
    }
}

/// A whole answer of the Messages API, as server-sent events.
fn messages_stream() -> String {
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let events: [Value; 6] = [
        json!({"type": "message_start", "message": {
            "id": "msg_mock", "type": "message", "role": "assistant", "model": "mock",
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
        }}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": ANSWER}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "usage": {"output_tokens": 8},
            "delta": {"stop_reason": "end_turn", "stop_sequence": null}}),
        json!({"type": "message_stop"}),
    ];
    let frames = events.map(|event| {
        let name = event["type"].as_str().unwrap_or_default();
        format!("event: {name}\ndata: {event}\n\n")
    });
    frames.concat()
}
