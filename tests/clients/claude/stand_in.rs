//! Stands in for Claude as a program: `cargo run --example claude-stand-in -- --help`.
//!
//! What it does follows from the last message of the user's: one that holds `[stand-in: NAME]` gets
//! the fault of that name, any other one gets the text that was given.

mod messages_api;

use std::collections::HashSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde_json::Value;

use self::messages_api::check::Refusal;
use self::messages_api::http::{Piece, Response};
use self::messages_api::reply::{self, Say};
use self::messages_api::{Asked, StandIn};

/// A local server for the Messages API that stands in for Claude.
#[derive(Parser)]
#[command(name = "claude-stand-in")]
struct Options {
    /// The port on 127.0.0.1; 0 takes a free one. The address is printed as the first line.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The key that clients must send.
    #[arg(long, default_value = "sk-ant-stand-in")]
    key: String,
    /// What to say; where a completion is asked for, what to insert.
    #[arg(long, default_value = "Hello from the stand-in for Claude.")]
    say: String,
    /// The pause before each word, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Tell every request and what became of it on stderr.
    #[arg(long)]
    log: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let (key, log) = (options.key.clone(), options.log);
    let failed_once = Mutex::default();
    let server = StandIn::serve(address, &key, move |asked| {
        answer(&options, &failed_once, asked)
    })
    .await
    .context("the port cannot be served")?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", server.base_url())?;
    stdout.flush()?;
    let mut counts = server.counts();
    loop {
        tokio::select! {
            stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
            changed = counts.changed() => changed?,
        }
        if log {
            let last = server.requests().pop();
            let target = last.map_or_else(String::new, |last| last.target);
            writeln!(std::io::stderr(), "{target} {:?}", *counts.borrow())?;
        }
    }
}

fn answer(options: &Options, failed_once: &Mutex<HashSet<String>>, asked: &Asked<'_>) -> Response {
    let text = last_text(asked.body);
    let wanted = text
        .split_once("[stand-in: ")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(name, _)| name);
    let said = match asked.body["output_config"].get("format") {
        Some(format) => example(&format["schema"]).to_string(),
        None => in_tags(&text, &options.say),
    };
    let say = Say {
        pause: Duration::from_millis(options.pause_ms),
        ..Say::text(&said)
    };
    let whole_events = || reply::events(asked.body, asked.usage, &say);
    match wanted {
        "rate-limited" => {
            let mut response = refused(429, "rate_limit_error", "Too many requests");
            response.headers.push(("retry-after".into(), "1".into()));
            response
        }
        "overloaded" => refused(529, "overloaded_error", "Overloaded"),
        "failing" => refused(500, "api_error", "Internal server error"),
        "overloaded-once" if is_first(failed_once, &text) => {
            refused(529, "overloaded_error", "Overloaded")
        }
        "error-in-stream" => {
            let mut pieces = whole_events();
            pieces.truncate(pieces.len().saturating_sub(3));
            pieces.push(reply::error_event("overloaded_error", "Overloaded"));
            reply::stream(pieces)
        }
        "cut-off" => {
            let mut pieces = whole_events();
            pieces.truncate(pieces.len().saturating_sub(3));
            pieces.push(Piece::Close);
            reply::stream(pieces)
        }
        "pings" => {
            let mut pieces = whole_events();
            pieces.truncate(2);
            pieces.extend([Piece::Pause(Duration::from_millis(100)), Piece::Forever]);
            reply::stream(pieces)
        }
        "hang" => {
            let mut pieces = whole_events();
            pieces.truncate(2);
            pieces.push(Piece::Hang);
            reply::stream(pieces)
        }
        name => {
            let say = Say {
                thinking: (name == "thinking").then(|| "Let me see.".to_owned()),
                stop_reason: match name {
                    "refusal" => "refusal",
                    "max-tokens" => "max_tokens",
                    _ => "end_turn",
                },
                ..say
            };
            if asked.body["stream"] == true {
                reply::stream(reply::events(asked.body, asked.usage, &say))
            } else {
                reply::whole(asked.body, asked.usage.clone(), &say)
            }
        }
    }
}

/// A value that is valid by a schema without references.
fn example(schema: &Value) -> Value {
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    if let Some(first) = schema["anyOf"].get(0) {
        return example(first);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let members = members.map(|(name, schema)| (name.clone(), example(schema)));
            Value::Object(members.collect())
        }
        Some("array") => Value::Array(vec![example(&schema["items"])]),
        Some("string") => "text".into(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        _ => Value::Null,
    }
}

fn is_first(seen: &Mutex<HashSet<String>>, text: &str) -> bool {
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(text.to_owned())
}

fn refused(status: u16, kind: &'static str, message: &str) -> Response {
    reply::error(&Refusal {
        status,
        kind,
        message: message.to_owned(),
    })
}

fn last_text(body: &Value) -> String {
    let content = body["messages"]
        .as_array()
        .and_then(|messages| messages.last())
        .map_or(&Value::Null, |message| &message["content"]);
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .filter_map(|block| block["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

/// Tandem asks for its completions and edits between tags.
fn in_tags(text: &str, say: &str) -> String {
    if text.contains("<cursor/>") {
        format!("<insert>{say}</insert>")
    } else if text.contains("</selection>") {
        format!("<replacement>{say}</replacement>")
    } else {
        say.to_owned()
    }
}
