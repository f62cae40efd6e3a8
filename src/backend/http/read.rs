//! The events of an answer as they come, within limits of time and size.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};

use super::failure::{self, Failure};
use super::lines::LineParser;
use super::sse::{SseEvent, SseFault, SseParser};
use super::{ANSWER_LIMIT, Peer, bounded};

/// Signs of life (pings, comments, parts of an event) carry an answer over so many idle limits, no
/// further: a server could send them without end.
const IDLE_LIMITS_WITHOUT_PROGRESS: u32 = 3;

/// What is read of a body that is no stream: an error's, a list of models.
const BODY_BYTES: usize = 1 << 20;

/// Bytes of a stream a token may take at most on average, its event's JSON included; an answer of
/// more is not the one that was asked for.
const STREAM_BYTES_A_TOKEN: usize = 1024;
/// Bytes of a stream besides the tokens.
const STREAM_BYTES_BESIDES: usize = 1 << 20;

/// How events are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As server-sent events.
    Sse,
    /// Each is a line of JSON.
    Lines,
}

enum Parser {
    Sse(SseParser),
    Lines(LineParser),
}

impl Parser {
    fn push(&mut self, bytes: &[u8], arrived: &mut VecDeque<SseEvent>) -> Result<(), SseFault> {
        match self {
            Self::Sse(parser) => parser.push(bytes, arrived),
            Self::Lines(parser) => parser.push(bytes, arrived),
        }
    }
}

/// See the module.
pub struct Events {
    peer: &'static Peer,
    response: Response,
    idle: Duration,
    most_bytes: usize,
    bytes_read: usize,
    parser: Parser,
    arrived: VecDeque<SseEvent>,
    started: Instant,
    progress: Instant,
}

impl Events {
    /// Of a `response` to a request that was sent at `started`, for an answer of at most `max_tokens`.
    ///
    /// # Errors
    /// When it is no stream of that `framing` by its content type.
    pub fn new(
        peer: &'static Peer,
        response: Response,
        framing: Framing,
        started: Instant,
        idle: Duration,
        max_tokens: usize,
    ) -> Result<Self, Failure> {
        let (wanted, parser) = match framing {
            Framing::Sse => ("text/event-stream", Parser::Sse(SseParser::default())),
            Framing::Lines => ("application/x-ndjson", Parser::Lines(LineParser::default())),
        };
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("nothing");
        if !content_type
            .trim_start()
            .to_ascii_lowercase()
            .starts_with(wanted)
        {
            let error = failure::not_the_api(peer, "no event stream");
            return Err(Failure::lasting(error));
        }
        Ok(Self {
            peer,
            response,
            idle: bounded(idle),
            most_bytes: max_tokens
                .saturating_mul(STREAM_BYTES_A_TOKEN)
                .saturating_add(STREAM_BYTES_BESIDES),
            bytes_read: 0,
            parser,
            arrived: VecDeque::new(),
            started,
            progress: Instant::now(),
        })
    }

    /// The answer came on. What is no progress is only a sign of life.
    pub fn progressed(&mut self) {
        self.progress = Instant::now();
    }

    /// The next event; `None` where the stream ends, by itself or by a broken connection.
    ///
    /// # Errors
    /// When a limit passes, or the bytes are no events.
    pub async fn next(&mut self) -> Result<Option<SseEvent>, Failure> {
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return Ok(Some(event));
            }
            let limit = self.started + ANSWER_LIMIT;
            let deadline = (Instant::now() + self.idle)
                .min(self.progress + self.idle * IDLE_LIMITS_WITHOUT_PROGRESS)
                .min(limit);
            let bytes = match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None) | Err(_)) => return Ok(None),
                Err(_) => {
                    let error = if Instant::now() >= limit {
                        failure::too_slow(self.peer, "no whole answer", ANSWER_LIMIT)
                    } else {
                        failure::too_slow(self.peer, "nothing more", self.progress.elapsed())
                    };
                    return Err(Failure::lasting(error));
                }
            };
            self.bytes_read += bytes.len();
            if self.bytes_read > self.most_bytes {
                let error = failure::not_the_api(self.peer, "it is far longer than asked for");
                return Err(Failure::lasting(error));
            }
            self.parser
                .push(&bytes, &mut self.arrived)
                .map_err(|fault| Failure::lasting(failure::not_the_api(self.peer, fault)))?;
        }
    }
}

/// What there is of a body within a limit of time, and of size.
pub async fn body(mut response: Response, limit: Duration) -> Vec<u8> {
    let deadline = Instant::now() + bounded(limit);
    let mut body = Vec::new();
    while body.len() < BODY_BYTES
        && let Ok(Ok(Some(bytes))) = timeout_at(deadline, response.chunk()).await
    {
        body.extend_from_slice(&bytes);
    }
    body
}
