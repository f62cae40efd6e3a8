//! Answers in the forms that the Messages API documents.
//!
//! <https://platform.claude.com/docs/en/build-with-claude/streaming> and `/api/errors`.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::check::Refusal;
use super::http::{Piece, Response};

/// What the model says.
#[derive(Debug, Clone)]
pub struct Say {
    /// Pieces of the text, one delta each.
    pub pieces: Vec<String>,
    /// Before each piece.
    pub pause: Duration,
    /// Thinking that comes first, in a block of its own.
    pub thinking: Option<String>,
    /// `stop_reason`.
    pub stop_reason: &'static str,
}

impl Say {
    /// The text, word by word, at once.
    pub fn text(text: &str) -> Self {
        Self {
            pieces: text.split_inclusive(' ').map(str::to_owned).collect(),
            pause: Duration::ZERO,
            thinking: None,
            stop_reason: "end_turn",
        }
    }
}

/// Tokens as the stand-in counts them: a quarter of the bytes.
fn tokens(text: &str) -> usize {
    text.len().div_ceil(4)
}

/// Prompts that a cache holds, for every model together.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashSet<String>>);

impl Cache {
    /// Shorter prompts are not cached (the least of the current models).
    const LEAST_TOKENS: usize = 512;

    /// The usage of a request's prompt, which is cached from now on up to its last breakpoint.
    pub fn usage(&self, body: &Value) -> Value {
        let mut prompt = String::new();
        let mut points = Vec::new();
        let mut take = |block: &Value| {
            prompt.push_str(
                block
                    .as_str()
                    .or(block["text"].as_str())
                    .unwrap_or_default(),
            );
            if block["cache_control"].is_object() {
                points.push(prompt.len());
            }
        };
        let list = |value: &Value| match value {
            Value::Array(blocks) => blocks.clone(),
            Value::Null => Vec::new(),
            other => vec![other.clone()],
        };
        list(&body["system"]).iter().for_each(&mut take);
        for message in body["messages"].as_array().into_iter().flatten() {
            list(&message["content"]).iter().for_each(&mut take);
        }
        points.retain(|end| tokens(&prompt[..*end]) >= Self::LEAST_TOKENS);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let model = body["model"].as_str().unwrap_or_default();
        let name = |end: usize| format!("{model}\0{}", &prompt[..end]);
        let read = points
            .iter()
            .rev()
            .copied()
            .find(|end| held.contains(&name(*end)));
        let read = read.unwrap_or(0);
        let written = points.last().copied().unwrap_or(0).max(read);
        held.extend(points.iter().map(|end| name(*end)));
        json!({
            "input_tokens": tokens(&prompt[written..]),
            "cache_read_input_tokens": tokens(&prompt[..read]),
            "cache_creation_input_tokens": tokens(&prompt[read..written]),
            "output_tokens": 1,
        })
    }
}

/// An answer as one JSON object.
pub fn whole(body: &Value, mut usage: Value, say: &Say) -> Response {
    let text = say.pieces.concat();
    usage["output_tokens"] = json!(tokens(&text).max(1));
    let mut message = message(body, &usage);
    let mut content = Vec::new();
    if let Some(thinking) = &say.thinking {
        content.push(json!({"type": "thinking", "thinking": thinking, "signature": "c2lnbmVk"}));
    }
    content.push(json!({"type": "text", "text": text}));
    message["content"] = json!(content);
    message["stop_reason"] = json!(say.stop_reason);
    let headers = vec![
        ("content-type".into(), "application/json".into()),
        request_id(),
    ];
    Response {
        before: None,
        status: 200,
        headers,
        body: vec![Piece::Bytes(message.to_string().into_bytes())],
    }
}

/// An answer as a stream of these pieces.
pub fn stream(pieces: Vec<Piece>) -> Response {
    Response {
        before: None,
        status: 200,
        headers: vec![
            (
                "content-type".into(),
                "text/event-stream; charset=utf-8".into(),
            ),
            ("cache-control".into(), "no-cache".into()),
            request_id(),
        ],
        body: pieces,
    }
}

/// The events of a whole answer.
pub fn events(body: &Value, usage: &Value, say: &Say) -> Vec<Piece> {
    let mut pieces = vec![
        event("message_start", &json!({"message": message(body, usage)})),
        event("ping", &json!({})),
    ];
    let mut index = 0;
    if let Some(thinking) = &say.thinking {
        pieces.extend([
            start(
                index,
                &json!({"type": "thinking", "thinking": "", "signature": ""}),
            ),
            delta(
                index,
                &json!({"type": "thinking_delta", "thinking": thinking}),
            ),
            delta(
                index,
                &json!({"type": "signature_delta", "signature": "c2lnbmVk"}),
            ),
            event("content_block_stop", &json!({"index": index})),
        ]);
        index += 1;
    }
    pieces.push(start(index, &json!({"type": "text", "text": ""})));
    for piece in &say.pieces {
        if !say.pause.is_zero() {
            pieces.push(Piece::Pause(say.pause));
        }
        pieces.push(text(index, piece));
    }
    let output = tokens(&say.pieces.concat()).max(1);
    pieces.extend([
        event("content_block_stop", &json!({"index": index})),
        end(say.stop_reason, output),
        event("message_stop", &json!({})),
    ]);
    pieces
}

/// A `text_delta`.
pub fn text(index: usize, text: &str) -> Piece {
    delta(index, &json!({"type": "text_delta", "text": text}))
}

/// A `content_block_start`.
pub fn start(index: usize, block: &Value) -> Piece {
    event(
        "content_block_start",
        &json!({"index": index, "content_block": block}),
    )
}

/// A `content_block_delta`.
pub fn delta(index: usize, delta: &Value) -> Piece {
    event(
        "content_block_delta",
        &json!({"index": index, "delta": delta}),
    )
}

/// A `message_delta` with the end's reason.
pub fn end(stop_reason: &str, output_tokens: usize) -> Piece {
    event(
        "message_delta",
        &json!({
            "delta": {"stop_reason": stop_reason, "stop_sequence": null},
            "usage": {"output_tokens": output_tokens},
        }),
    )
}

/// An event with its name and, as `type`, in its data.
pub fn event(name: &str, fields: &Value) -> Piece {
    let mut data = json!({"type": name});
    for (key, value) in fields.as_object().into_iter().flatten() {
        data[key] = value.clone();
    }
    Piece::Bytes(format!("event: {name}\ndata: {data}\n\n").into_bytes())
}

/// The data of an `error` event.
pub fn error_event(kind: &str, message: &str) -> Piece {
    event(
        "error",
        &json!({"error": {"type": kind, "message": message}}),
    )
}

/// An error as the whole answer.
pub fn error(refusal: &Refusal) -> Response {
    let (name, id) = request_id();
    let body = json!({
        "type": "error",
        "error": {"type": refusal.kind, "message": refusal.message},
        "request_id": id,
    });
    Response {
        before: None,
        status: refusal.status,
        headers: vec![
            ("content-type".into(), "application/json".into()),
            (name, id),
        ],
        body: vec![Piece::Bytes(body.to_string().into_bytes())],
    }
}

fn message(body: &Value, usage: &Value) -> Value {
    json!({
        "id": "msg_standin00000000000000",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage,
    })
}

fn request_id() -> (String, String) {
    ("request-id".into(), "req_standin00000000000000".into())
}
