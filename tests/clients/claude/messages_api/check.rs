//! Whether a request is one that the Messages API takes, by its documentation.
//!
//! Sources: <https://platform.claude.com/docs/en/api/messages>, `/api/errors`, `/api/versioning`,
//! the models' migration guides, and the types of the official Python SDK (`anthropic` 2.12).

use serde_json::Value;

use super::http::Request;

/// The largest request the endpoint takes ("Request size limits").
const MOST_BYTES: usize = 32 << 20;
/// Breakpoints for the cache in one request.
const MOST_BREAKPOINTS: usize = 4;
/// The most tokens that any model answers with.
const MOST_TOKENS: u64 = 128_000;

const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// What a model takes.
struct Model {
    id: &'static str,
    /// `temperature`, `top_p` and `top_k`.
    sampling: bool,
    /// A last turn of the assistant's, to be continued.
    prefill: bool,
    /// Values of `thinking.type`.
    thinking: &'static [&'static str],
    /// `output_config.effort`.
    effort: bool,
}

const fn model(id: &'static str, thinking: &'static [&'static str]) -> Model {
    Model {
        id,
        sampling: false,
        prefill: false,
        thinking,
        effort: true,
    }
}

const OLD: &[&str] = &["enabled", "disabled"];
const ADAPTIVE: &[&str] = &["adaptive", "disabled"];
const ALWAYS: &[&str] = &["adaptive"];

const MODELS: [Model; 16] = [
    model("claude-fable-5-2", ALWAYS),
    model("claude-mythos-5-2", ALWAYS),
    model("claude-haiku-5-5", ADAPTIVE),
    model("claude-sonnet-5-5", &["adaptive", "between_tools"]),
    model("claude-opus-5-5", ALWAYS),
    model("claude-fable-5-1", ALWAYS),
    model("claude-mythos-5-1", ALWAYS),
    model("claude-sonnet-5", ADAPTIVE),
    model("claude-fable-5", ALWAYS),
    model("claude-mythos-5", ALWAYS),
    model("claude-opus-5", ADAPTIVE),
    model("claude-opus-4-8", ALWAYS),
    model("claude-opus-4-7", ALWAYS),
    Model {
        sampling: true,
        ..model("claude-opus-4-6", &["adaptive", "enabled", "disabled"])
    },
    Model {
        sampling: true,
        ..model("claude-sonnet-4-6", &["adaptive", "enabled", "disabled"])
    },
    Model {
        sampling: true,
        prefill: true,
        effort: false,
        ..model("claude-haiku-4-5", OLD)
    },
];

const FIELDS: [&str; 20] = [
    "model",
    "messages",
    "max_tokens",
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "metadata",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Why a request is turned away, in the API's words for kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.message`.
    pub message: String,
}

fn refuse<T>(status: u16, kind: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        status,
        kind,
        message: message.into(),
    })
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    refuse(400, "invalid_request_error", message)
}

/// The body of a sound request to the endpoint.
pub fn check(request: &Request, key: &str) -> Result<Value, Refusal> {
    let path = request.target.split('?').next().unwrap_or_default();
    if path != "/v1/messages" {
        return refuse(404, "not_found_error", "Not Found");
    }
    if request.method != "POST" {
        return refuse(405, "invalid_request_error", "Method Not Allowed");
    }
    let bearer = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    match request.header("x-api-key").or(bearer) {
        None => return refuse(401, "authentication_error", "x-api-key header is required"),
        Some(given) if given != key => {
            return refuse(401, "authentication_error", "invalid x-api-key");
        }
        Some(_) => {}
    }
    let Some(version) = request.header("anthropic-version") else {
        return invalid("anthropic-version: header is required");
    };
    if !VERSIONS.contains(&version) {
        return invalid(format!(
            "anthropic-version: \"{version}\" is not a valid version"
        ));
    }
    if !request
        .header("content-type")
        .is_some_and(|value| value.starts_with("application/json"))
    {
        return invalid("content-type: must be application/json");
    }
    if request.body.len() > MOST_BYTES {
        return refuse(
            413,
            "request_too_large",
            "Request exceeds the maximum allowed number of bytes",
        );
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return invalid("The request body is not valid JSON");
    };
    fields(&body, version == "2026-10-21")?;
    Ok(body)
}

fn fields(body: &Value, newest: bool) -> Result<(), Refusal> {
    let Some(object) = body.as_object() else {
        return invalid("The request body must be an object");
    };
    if let Some(name) = object.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return invalid(format!("{name}: Extra inputs are not permitted"));
    }
    let Some(name) = body["model"].as_str().filter(|name| !name.is_empty()) else {
        return invalid("model: Field required");
    };
    let Some(model) = MODELS.iter().find(|model| {
        name.strip_prefix(model.id).is_some_and(|rest| {
            rest.is_empty() || rest.len() == 9 && rest[1..].bytes().all(|b| b.is_ascii_digit())
        })
    }) else {
        return refuse(404, "not_found_error", format!("model: {name}"));
    };
    match body["max_tokens"].as_u64() {
        None => return invalid("max_tokens: Input should be a valid integer"),
        // The API takes 0 to warm its cache; nothing here does.
        Some(0) => return invalid("max_tokens: Input should be greater than or equal to 1"),
        Some(tokens) if tokens > MOST_TOKENS => {
            return invalid(format!("max_tokens: {tokens} > {MOST_TOKENS}"));
        }
        Some(_) => {}
    }
    for name in ["temperature", "top_p", "top_k"] {
        if object.contains_key(name) && (newest || !model.sampling) {
            return invalid(format!("`{name}` is deprecated for this model."));
        }
    }
    if object
        .get("stream")
        .is_some_and(|stream| !stream.is_boolean())
    {
        return invalid("stream: Input should be a valid boolean");
    }
    thinking(body, model)?;
    let mut breakpoints = 0;
    match object.get("system") {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(blocks)) => {
            for (at, block) in blocks.iter().enumerate() {
                text_block(block, &format!("system.{at}"), &mut breakpoints)?;
            }
        }
        Some(_) => return invalid("system: Input should be a string or a list"),
    }
    stop_sequences(object.get("stop_sequences"))?;
    messages(body, model, &mut breakpoints)?;
    if breakpoints > MOST_BREAKPOINTS {
        return invalid(format!(
            "A maximum of {MOST_BREAKPOINTS} blocks with cache_control may be provided. \
             Found {breakpoints}."
        ));
    }
    Ok(())
}

fn thinking(body: &Value, model: &Model) -> Result<(), Refusal> {
    if let Some(thinking) = body.get("thinking") {
        let Some(kind) = thinking["type"].as_str() else {
            return invalid("thinking.type: Field required");
        };
        if !model.thinking.contains(&kind) {
            return invalid(format!(
                "\"thinking.type.{kind}\" is not supported for this model."
            ));
        }
        match thinking.get("display").map(Value::as_str) {
            None | Some(Some("summarized" | "omitted")) => {}
            Some(_) => return invalid("thinking.display: unknown value"),
        }
    }
    if let Some(effort) = body["output_config"].get("effort") {
        if !model.effort {
            return invalid("This model does not support the effort parameter.");
        }
        if !["low", "medium", "high", "xhigh", "max"].contains(&effort.as_str().unwrap_or("")) {
            return invalid("output_config.effort: unknown value");
        }
    }
    match body["output_config"].get("format") {
        None => Ok(()),
        Some(format) if format["type"] != "json_schema" => {
            invalid("output_config.format.type: Input should be 'json_schema'")
        }
        Some(format) => schema(&format["schema"]),
    }
}

/// What structured outputs can be held to: a part of JSON Schema, and closed objects only.
fn schema(schema: &Value) -> Result<(), Refusal> {
    let Some(keywords) = schema.as_object() else {
        return invalid("output_config.format.schema: Input should be an object");
    };
    for (keyword, value) in keywords {
        let inner: Vec<&Value> = match keyword.as_str() {
            "properties" | "$defs" | "definitions" => value
                .as_object()
                .into_iter()
                .flat_map(|all| all.values())
                .collect(),
            "anyOf" | "allOf" => value.as_array().into_iter().flatten().collect(),
            "items" => vec![value],
            "$ref"
            | "additionalProperties"
            | "const"
            | "default"
            | "description"
            | "enum"
            | "format"
            | "required"
            | "title"
            | "type" => Vec::new(),
            "minItems" if value.as_u64().is_some_and(|least| least <= 1) => Vec::new(),
            _ => {
                return invalid(format!(
                    "output_config.format.schema: property '{keyword}' is not supported"
                ));
            }
        };
        inner.into_iter().try_for_each(self::schema)?;
    }
    if keywords.get("type").is_some_and(|kind| kind == "object")
        && keywords.get("additionalProperties") != Some(&Value::Bool(false))
    {
        return invalid(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be \
             explicitly set to false",
        );
    }
    Ok(())
}

fn stop_sequences(field: Option<&Value>) -> Result<(), Refusal> {
    let Some(field) = field else { return Ok(()) };
    let Some(sequences) = field.as_array() else {
        return invalid("stop_sequences: Input should be a list");
    };
    for sequence in sequences {
        if sequence
            .as_str()
            .is_none_or(|sequence| sequence.trim().is_empty())
        {
            return invalid("stop_sequences: each stop sequence must contain non-whitespace");
        }
    }
    Ok(())
}

fn messages(body: &Value, model: &Model, breakpoints: &mut usize) -> Result<(), Refusal> {
    let Some(messages) = body["messages"].as_array().filter(|all| !all.is_empty()) else {
        return invalid("messages: at least one message is required");
    };
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !["user", "assistant"].contains(&role) {
            return invalid(format!(
                "messages.{at}.role: Input should be 'user' or 'assistant'"
            ));
        }
        if at == 0 && role != "user" {
            return invalid("messages: first message must use the \"user\" role");
        }
        match &message["content"] {
            Value::String(text) if text.trim().is_empty() => {
                return invalid("messages: text content blocks must contain non-whitespace text");
            }
            Value::String(_) => {}
            Value::Array(blocks) if !blocks.is_empty() => {
                for (number, block) in blocks.iter().enumerate() {
                    let place = format!("messages.{at}.content.{number}");
                    content(block, &place, breakpoints)?;
                }
            }
            _ => return invalid(format!("messages.{at}.content: Field required")),
        }
    }
    let last_role = messages.last().map(|last| &last["role"]);
    if last_role.is_some_and(|role| role == "assistant") && !model.prefill {
        return invalid(
            "This model does not support assistant message prefill. The conversation must end \
             with a user message.",
        );
    }
    Ok(())
}

fn content(block: &Value, place: &str, breakpoints: &mut usize) -> Result<(), Refusal> {
    match block["type"].as_str() {
        Some("text") => text_block(block, place, breakpoints),
        Some(
            "image" | "document" | "search_result" | "thinking" | "redacted_thinking" | "tool_use"
            | "tool_result",
        ) => Ok(()),
        _ => invalid(format!(
            "{place}: Input tag does not match any of the expected tags"
        )),
    }
}

fn text_block(block: &Value, place: &str, breakpoints: &mut usize) -> Result<(), Refusal> {
    if block["type"] != "text" {
        return invalid(format!("{place}.type: Input should be 'text'"));
    }
    let Some(text) = block["text"].as_str() else {
        return invalid(format!("{place}.text: Field required"));
    };
    if text.trim().is_empty() {
        return invalid("messages: text content blocks must contain non-whitespace text");
    }
    if let Some(control) = block.get("cache_control").filter(|value| !value.is_null()) {
        *breakpoints += 1;
        let ttl = control.get("ttl").map(Value::as_str);
        if control["type"] != "ephemeral" || !matches!(ttl, None | Some(Some("5m" | "1h"))) {
            return invalid(format!("{place}.cache_control: unknown value"));
        }
    }
    Ok(())
}
