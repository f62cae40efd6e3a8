//! The server of llama-cpp-python: a schema has another form there, an answer that is given up looks like a
//! whole one, and its context is told in one error alone. As 0.3.36 answers.

use serde_json::{Value, json};
use tandem::inference::{AnswerSchema, ErrorKind, FinishReason};

use super::stand_in::{done, error, event, stream};
use super::*;
use crate::claude::messages_api::http::Piece;

/// Its one model, by the path of a file.
const MODEL: &str = "/models/qwen2.5-coder-7b.gguf";

/// An event of it, which counts nothing.
fn chunk(path: &str, text: &str, reason: &Value) -> Piece {
    let said = if path == "/v1/completions" {
        json!({"text": text, "index": 0, "logprobs": null, "finish_reason": reason})
    } else {
        json!({"delta": {"content": text}, "index": 0, "logprobs": null, "finish_reason": reason})
    };
    event(&json!({"id": "cmpl-1", "created": 1, "model": MODEL, "choices": [said]}))
}

fn says(path: &str, text: &str) -> Response {
    stream(vec![
        chunk(path, text, &Value::Null),
        chunk(path, "", &json!("stop")),
        done(),
    ])
}

#[tokio::test]
async fn it_is_known_by_its_list_and_not_asked_what_it_has_not() {
    let rig = Rig::new(Plays::LlamaCppPython, MODEL, |asked| {
        says(asked.path, "a + b")
    })
    .await;
    let (text, end) = rig.ask(completion("fn a() { ", " }\n")).await;
    assert_eq!(
        (text.as_str(), end.unwrap().reason),
        ("a + b", FinishReason::Stop)
    );
    assert_eq!(rig.server.paths(), "/v1/models /v1/completions");
    let found = rig.backend.tried().await.found;
    assert_eq!(
        found.as_deref(),
        Some("llama-cpp-python, asked by /v1/completions, in the model's own frame")
    );
}

#[tokio::test]
async fn a_schema_has_the_form_that_it_takes() {
    let rig = Rig::new(Plays::LlamaCppPython, MODEL, |asked| {
        if asked.body["response_format"]["type"] == "json_object" {
            says(asked.path, r#"{"a":1}"#)
        } else {
            error(500, "internal_server_error", "1 validation error")
        }
    })
    .await;
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let mut request = chat("Which?");
    if let Task::Chat(task) = &mut request.task {
        task.schema = AnswerSchema::new(schema).ok();
    }
    let (text, end) = rig.ask(request).await;
    end.unwrap();
    assert_eq!(text, r#"{"a":1}"#);
    let format = &rig.server.last_body()["response_format"];
    assert_eq!(format["schema"]["required"], json!(["a"]));
}

#[tokio::test]
async fn an_answer_that_is_given_up_for_another_request_is_no_answer() {
    for given_up in [0, 1] {
        let rig = Rig::new(Plays::LlamaCppPython, MODEL, move |asked| {
            let mut pieces = vec![chunk(asked.path, "half", &Value::Null); given_up];
            pieces.push(done());
            stream(pieces)
        })
        .await;
        let (_, end) = rig.ask(chat("Hi")).await;
        let error = end.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited, "{error}");
        assert!(
            error.next_step.contains("--interrupt_requests false"),
            "{error}"
        );
        // Asked again, it would give up the other request.
        assert_eq!(rig.server.paths(), "/v1/models /v1/chat/completions");
    }
}

#[tokio::test]
async fn its_context_is_found_by_a_prompt_that_is_too_long() {
    let once = |settings: &mut Settings| settings.server.retries = 0;
    let rig = Rig::with(Plays::LlamaCppPython, MODEL, once, |asked| {
        let prompt = asked.body["prompt"].as_str().unwrap_or_default();
        let messages = asked.body["messages"].to_string();
        let tokens = prompt.len().max(messages.len()) / 3;
        match (tokens > 2_048, &asked.body["stream"]) {
            (true, Value::Bool(true)) => stream(Vec::new()),
            (true, _) => error(
                400,
                "invalid_request_error",
                "This model's maximum context length is 2048 tokens, however you requested 9000 \
                 tokens (8999 in your prompt; 1 for the completion).",
            ),
            (false, _) => says(asked.path, "a + b"),
        }
    })
    .await;
    let long = completion(&"let a = 1;\n".repeat(9_000), "}\n");
    assert_eq!(rig.ask(long.clone()).await.0, "a + b");
    let asked = rig.server.requests().len();
    assert_eq!(rig.ask(long).await.0, "a + b");
    assert_eq!(rig.server.requests().len(), asked + 1, "it is known now");
    let error = rig.ask(chat(&"word ".repeat(9_000))).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLong, "{error}");
    assert!(error.message.contains("2048"), "{error}");
}
