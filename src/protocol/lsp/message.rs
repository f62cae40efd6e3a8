//! JSON-RPC messages as they come in: what is a request, what a reply, and what gets an error.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Request, Response};

/// One message from the client.
#[derive(Debug)]
pub enum Incoming {
    /// A request or a notification.
    Request(Request),
    /// A reply to a request of ours.
    Reply {
        /// Our request.
        id: i64,
        /// What the client answered: a result, or an error's message.
        outcome: Result<Value, String>,
    },
    /// Not a message; this is what to answer.
    Invalid(Response),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    params: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<Value>,
}

/// Tells a member that is null from one that is missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads one body.
#[must_use]
pub fn parse(body: &[u8]) -> Incoming {
    // serde would take an array for the members of the struct in order; a batch is not LSP either.
    if body.trim_ascii_start().starts_with(b"[") {
        return invalid(Id::Null, "a message must be one JSON object");
    }
    let raw: Raw = match serde_json::from_slice(body) {
        Ok(raw) => raw,
        Err(error) => return Incoming::Invalid(undecodable(&error)),
    };
    let id = match raw.id {
        None => None,
        Some(Value::Null) => Some(Id::Null),
        Some(Value::String(id)) => Some(Id::String(id)),
        Some(Value::Number(number)) if number.is_i64() => number.as_i64().map(Id::Number),
        Some(_) => return invalid(Id::Null, "`id` must be a whole number or a string"),
    };
    match (raw.method, id) {
        (Some(Value::String(method)), id) => {
            let mut request = Request::build(method);
            if let Some(params) = raw.params {
                request = request.params(params);
            }
            if let Some(id) = id {
                request = request.id(id);
            }
            Incoming::Request(request.finish())
        }
        (Some(_), id) => invalid(id.unwrap_or_default(), "`method` must be a string"),
        (None, Some(Id::Number(id))) if raw.result.is_some() || raw.error.is_some() => {
            let outcome = match raw.error {
                None | Some(Value::Null) => Ok(raw.result.unwrap_or_default()),
                Some(error) => Err(error
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or("the client gave no reason")
                    .to_owned()),
            };
            Incoming::Reply { id, outcome }
        }
        (None, id) => invalid(id.unwrap_or_default(), "the message has no `method`"),
    }
}

/// The answer to bytes that are in no message.
#[must_use]
pub fn garbage() -> Response {
    let mut error = Error::parse_error();
    error.message = "bytes outside any message were skipped: each message needs its \
                     `Content-Length` header"
        .into();
    Response::from_error(Id::Null, error)
}

fn undecodable(error: &serde_json::Error) -> Response {
    let code = if error.is_data() {
        ErrorCode::InvalidRequest
    } else {
        ErrorCode::ParseError
    };
    // serde_json's message names the place and the kind of fault and holds no text of the document,
    // except for data errors, whose kind is all that is said.
    let message = match code {
        ErrorCode::InvalidRequest => "a message must be one JSON object".to_owned(),
        _ => format!("the message is not valid JSON: {error}"),
    };
    let mut reply = Error::new(code);
    reply.message = message.into();
    Response::from_error(Id::Null, reply)
}

fn invalid(id: Id, message: &'static str) -> Incoming {
    let mut error = Error::invalid_request();
    error.message = message.into();
    Incoming::Invalid(Response::from_error(id, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let found = match parse(body.as_bytes()) {
            Incoming::Request(request) => format!("request {request}"),
            Incoming::Reply { id, outcome } => format!("reply {id} {outcome:?}"),
            Incoming::Invalid(reply) => {
                let code = reply.error().map_or(0, |error| error.code.code());
                format!("invalid {code} {}", reply.id())
            }
        };
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn every_body_is_something() {
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":null}"#,
            r#"request {"jsonrpc":"2.0","method":"a","params":null,"id":1}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"a"}"#,
            r#"request {"jsonrpc":"2.0","method":"a"}"#,
        );
        check(r#"{"id":7,"result":null}"#, "reply 7 Ok(Null)");
        check(
            r#"{"id":7,"error":{"code":1,"message":"no","more":2}}"#,
            r#"reply 7 Err("no")"#,
        );
        check(r#"{"id":7}"#, "invalid -32600 7");
        check(r#"{"id":"x","method":3}"#, "invalid -32600 \"x\"");
        check(r#"{"id":1.5,"method":"a"}"#, "invalid -32600 null");
        check("[]", "invalid -32600 null");
        check(r#"[1,"exit",null,null,null]"#, "invalid -32600 null");
        check("3", "invalid -32600 null");
        check("", "invalid -32700 null");
        check("{", "invalid -32700 null");
        let deep = "[".repeat(10_000);
        check(&deep, "invalid -32600 null");
        check(&format!("{{\"params\":{deep}"), "invalid -32700 null");
    }

    #[test]
    fn invalid_utf8_is_a_parse_error() {
        let Incoming::Invalid(reply) = parse(b"{\"method\":\"\xff\"}") else {
            panic!("accepted")
        };
        assert_eq!(reply.error().unwrap().code, ErrorCode::ParseError);
    }
}
