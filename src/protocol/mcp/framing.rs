//! From a line of bytes to JSON-RPC messages, or to the error that its sender deserves. Pure.

use rmcp::model::{
    CallToolRequestParams, ClientJsonRpcMessage, ClientRequest, CompleteRequestParams, ErrorData,
    GetPromptRequestParams, InitializeRequestParams, JsonRpcMessage, PaginatedRequestParams,
    ReadResourceRequestParams, RequestId, SubscribeRequestParams,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a line holds.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message for the session.
    Message(Box<ClientJsonRpcMessage>),
    /// Something that must be answered with an error, under `id` where it could be made out.
    Rejected {
        /// The request's id.
        id: Option<RequestId>,
        /// What is wrong and what to do.
        error: ErrorData,
    },
}

/// Reads a line without its line feed. A JSON array is taken as a batch, as the revision 2025-03-26
/// demands of servers, and each of its messages gets its own reply.
pub(super) fn decode(line: &[u8]) -> Vec<Incoming> {
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    let line = line.trim_ascii();
    if line.is_empty() {
        return Vec::new();
    }
    if line[0] == b'[' {
        return match serde_json::from_slice::<Vec<Value>>(line) {
            Ok(batch) if batch.is_empty() => vec![Incoming::Rejected {
                id: None,
                error: ErrorData::invalid_request(
                    "The batch is empty. Send one JSON-RPC message a line.",
                    None,
                ),
            }],
            Ok(batch) => batch.iter().filter_map(from_value).collect(),
            Err(error) => vec![unreadable(line, &error)],
        };
    }
    match serde_json::from_slice::<ClientJsonRpcMessage>(line) {
        Ok(message) => vec![check(message)],
        Err(_) => match serde_json::from_slice::<Value>(line) {
            Ok(value) => diagnose(&value).into_iter().collect(),
            Err(error) => vec![unreadable(line, &error)],
        },
    }
}

/// The reply to a line of more than `limit` bytes, of which `id` could be made out.
pub(super) fn too_long(id: Option<RequestId>, limit: usize) -> Incoming {
    let message = format!(
        "The message is longer than {} MiB. Send a smaller piece of the text.",
        limit >> 20
    );
    Incoming::Rejected {
        id,
        error: ErrorData::invalid_request(message, None),
    }
}

fn from_value(value: &Value) -> Option<Incoming> {
    match serde_json::from_value::<ClientJsonRpcMessage>(value.clone()) {
        Ok(message) => Some(check(message)),
        Err(_) => diagnose(value),
    }
}

/// rmcp reads a known method whose parameters have the wrong shape as an unknown method. The sender
/// is told which parameter is wrong instead.
fn check(message: ClientJsonRpcMessage) -> Incoming {
    if let JsonRpcMessage::Request(request) = &message
        && let ClientRequest::CustomRequest(custom) = &request.request
        && let Some(complaint) = complaint_about(&custom.method, custom.params.as_ref())
    {
        return Incoming::Rejected {
            id: Some(request.id.clone()),
            error: ErrorData::invalid_params(complaint, None),
        };
    }
    Incoming::Message(Box::new(message))
}

/// What is wrong with the parameters of a known method; `None` for a method that is not known.
fn complaint_about(method: &str, params: Option<&Value>) -> Option<String> {
    let found = match method {
        "initialize" => misfit::<InitializeRequestParams>(params),
        "tools/call" => misfit::<CallToolRequestParams>(params),
        "prompts/get" => misfit::<GetPromptRequestParams>(params),
        "resources/read" => misfit::<ReadResourceRequestParams>(params),
        "resources/subscribe" | "resources/unsubscribe" => misfit::<SubscribeRequestParams>(params),
        "completion/complete" => misfit::<CompleteRequestParams>(params),
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            misfit::<PaginatedRequestParams>(params)
        }
        "ping" | "server/discover" | "subscriptions/listen" | "logging/setLevel" => None,
        _ => return None,
    };
    let found = found.unwrap_or_else(|| "they have the wrong shape".to_owned());
    Some(format!(
        "The parameters of `{method}` cannot be read: {found}. Send the object that the MCP \
         specification gives for `{method}`."
    ))
}

fn misfit<T: DeserializeOwned>(params: Option<&Value>) -> Option<String> {
    let Some(params) = params else {
        return Some("`params` is missing".to_owned());
    };
    let error = serde_path_to_error::deserialize::<_, T>(params).err()?;
    let path = error.path().to_string();
    Some(if path == "." {
        format!("`params`: {}", error.inner())
    } else {
        format!("`params.{path}`: {}", error.inner())
    })
}

/// The reply to JSON that is no JSON-RPC message. Notifications and responses are never answered,
/// so that two programs cannot bounce errors for ever.
fn diagnose(value: &Value) -> Option<Incoming> {
    let Some(object) = value.as_object() else {
        return Some(reject(None, "A message must be a JSON object"));
    };
    let method = object.get("method");
    if method.is_none() && (object.contains_key("result") || object.contains_key("error")) {
        return None;
    }
    let id = match object.get("id") {
        Some(id) => match serde_json::from_value::<RequestId>(id.clone()) {
            Ok(id) => Some(id),
            Err(_) => return Some(reject(None, "`id` must be a string or a whole number")),
        },
        None if method.is_some_and(Value::is_string) => return None,
        None => None,
    };
    let what = if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        "`jsonrpc` must be \"2.0\""
    } else if !method.is_some_and(Value::is_string) {
        "`method` must be a string"
    } else if object.contains_key("result") || object.contains_key("error") {
        "A request must not have `result` or `error`"
    } else {
        return Some(Incoming::Rejected {
            id,
            error: ErrorData::invalid_params(
                "`params` must be an object. Send the object that the MCP specification gives \
                 for this method.",
                None,
            ),
        });
    };
    Some(reject(id, what))
}

fn reject(id: Option<RequestId>, what: &str) -> Incoming {
    let message = format!("{what}. Send one JSON-RPC 2.0 message a line.");
    Incoming::Rejected {
        id,
        error: ErrorData::invalid_request(message, None),
    }
}

fn unreadable(line: &[u8], error: &serde_json::Error) -> Incoming {
    let message = if line
        .get(..15)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"Content-Length:"))
    {
        "This is the framing of LSP; MCP is one JSON message a line. Start `tandem lsp` for an \
         editor, or send MCP without headers."
            .to_owned()
    } else if std::str::from_utf8(line).is_err() {
        "The line is not UTF-8. Send JSON encoded as UTF-8.".to_owned()
    } else {
        format!("The line is not JSON: {error}. Send one JSON-RPC 2.0 message a line.")
    };
    Incoming::Rejected {
        id: find_id(line),
        error: ErrorData::parse_error(message, None),
    }
}

/// The request id in a line that cannot be parsed as a whole.
fn find_id(line: &[u8]) -> Option<RequestId> {
    let mut scan = IdScan::default();
    scan.feed(line);
    scan.id()
}

/// The longest id that is made out of an unreadable line; ids in use are far shorter.
const LONGEST_ID: usize = 128;

/// Finds the value of the outermost object's `id` in bytes that come piece by piece, without
/// keeping them, so that a message too large or too broken to parse can still be answered.
#[derive(Debug, Default)]
pub(super) struct IdScan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The string or scalar being read at depth 1, as written.
    token: Vec<u8>,
    place: Place,
    found: Option<RequestId>,
}

/// Where in the outermost object the scan is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    BeforeKey,
    AfterIdKey,
    IdValue,
    OtherValue,
}

impl IdScan {
    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.found.is_some() {
                return;
            }
            self.step(byte);
        }
    }

    /// The id, once it has been seen.
    pub(super) fn id(self) -> Option<RequestId> {
        self.found
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    self.end_of_string();
                }
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.token.clear();
                self.keep(byte);
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.end_of_scalar();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => {
                self.end_of_scalar();
                if self.depth == 1 {
                    self.place = Place::BeforeKey;
                }
            }
            b':' if self.depth == 1 => {
                self.token.clear();
                self.place = match self.place {
                    Place::AfterIdKey => Place::IdValue,
                    _ => Place::OtherValue,
                };
            }
            _ if byte.is_ascii_whitespace() => {}
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.token.len() < LONGEST_ID {
            self.token.push(byte);
        }
    }

    fn end_of_string(&mut self) {
        if self.depth != 1 {
            return;
        }
        match self.place {
            Place::BeforeKey if self.token == b"\"id\"" => self.place = Place::AfterIdKey,
            Place::IdValue => self.found = serde_json::from_slice(&self.token).ok(),
            _ => {}
        }
    }

    fn end_of_scalar(&mut self) {
        if self.depth == 1 && self.place == Place::IdValue {
            self.found = serde_json::from_slice(&self.token).ok();
        }
        self.token.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rejected(line: &[u8]) -> (Option<String>, i32, String) {
        match decode(line).as_slice() {
            [Incoming::Rejected { id, error }] => (
                id.as_ref().map(ToString::to_string),
                error.code.0,
                error.message.to_string(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_read_is_answered_under_its_id_with_the_next_step() {
        let check = |line: &[u8], id: Option<&str>, code: i32, says: &str| {
            let (found, got, message) = rejected(line);
            let line = String::from_utf8_lossy(line);
            assert_eq!(found.as_deref(), id, "{line}");
            assert_eq!(got, code, "{line}");
            assert!(message.contains(says), "{line}: {message}");
            assert!(message.ends_with('.'), "{message}");
        };
        check(b"hello", None, -32700, "not JSON");
        check(b"Content-Length: 120\r", None, -32700, "LSP");
        check(
            br#"{"jsonrpc":"2.0","id":7,"method":"#,
            Some("7"),
            -32700,
            "JSON",
        );
        check(
            b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"\xff\"}",
            Some("a"),
            -32700,
            "UTF-8",
        );
        check(
            br#"{"params":{"id":1},"method":"m","jsonrpc":"2.0","id":2"#,
            None,
            -32700,
            "JSON",
        );
        check(br#"{"x":{"id":1},"id" : 2 ,"#, Some("2"), -32700, "JSON");
        check(b"3", None, -32600, "object");
        check(b"[]", None, -32600, "batch is empty");
        check(br#"{"id":1,"method":"ping"}"#, Some("1"), -32600, "jsonrpc");
        check(
            br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            None,
            -32600,
            "`id`",
        );
        check(
            br#"{"jsonrpc":"2.0","id":1}"#,
            Some("1"),
            -32600,
            "`method`",
        );
        check(
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":3}}"#,
            Some("1"),
            -32602,
            "`params.name`",
        );
        check(
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask","arguments":[]}}"#,
            Some("1"),
            -32602,
            "`params.arguments`",
        );
        check(
            br#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#,
            Some("1"),
            -32602,
            "`params` is missing",
        );
    }

    #[test]
    fn notifications_and_responses_are_never_answered() {
        for line in [
            &br#"{"method":"notifications/cancelled"}"#[..],
            br#"{"jsonrpc":"1.0","error":{"code":-32700,"message":"bad"}}"#,
            br#"{"result":{}}"#,
            b" \r",
        ] {
            assert!(decode(line).is_empty(), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_batch_is_read_message_by_message() {
        let line = br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}, 4, {"jsonrpc":"2.0","id":2,"method":"ping"}]"#;
        let read = decode(line);
        assert!(matches!(
            read.as_slice(),
            [
                Incoming::Message(_),
                Incoming::Rejected { .. },
                Incoming::Message(_)
            ]
        ));
    }

    #[test]
    fn an_unknown_method_reaches_the_session() {
        let read = decode(br#"{"jsonrpc":"2.0","id":1,"method":"shutdown"}"#);
        assert!(matches!(read.as_slice(), [Incoming::Message(_)]));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode(&line);
        }

        #[test]
        fn the_id_of_a_cut_message_is_found_wherever_it_was_cut(id in 0_i64..1_000_000, cut in 0_usize..60) {
            let whole = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a\"b","id":5}}}}"#);
            let after_id = whole.find(",\"method\"").unwrap() + 1;
            let line = &whole.as_bytes()[..(after_id + cut).min(whole.len() - 1)];
            prop_assert_eq!(find_id(line), Some(RequestId::Number(id)));
        }
    }
}
