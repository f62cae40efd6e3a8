//! Ollama: it takes a prompt in the frame of a model that is known by its name, how it frames one itself
//! follows from the model's template, and what context a model has is known when it is loaded. As Ollama
//! 0.33.0 answers; `/api/generate` as its `docs/api.md` and `server/routes.go` have it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tandem::inference::{ErrorKind, FinishReason, Snippet, Task};

use super::stand_in::{done, error, event, stream, whole};
use super::*;
use crate::claude::messages_api::http::Piece;

/// Of `qwen2.5-coder`, shortened.
const CODER: &str = "{{- if .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}<|fim_middle|>\
                     {{- else if .Messages }}<|im_start|>user{{- end }}";
const CHAT: &str = "{{- range .Messages }}<|im_start|>{{ .Role }}{{ .Content }}{{- end }}";

/// What its `/v1/completions` sends of "a + b": counts of nothing with each piece.
fn completes() -> Response {
    let choice = |text: &str, reason: Value| {
        event(&json!({
            "id": "cmpl-171", "object": "text_completion", "model": "m", "system_fingerprint": "fp_ollama",
            "choices": [{"text": text, "index": 0, "finish_reason": reason}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }))
    };
    stream(vec![
        choice("a +", Value::Null),
        choice(" b", Value::Null),
        choice("", json!("stop")),
        event(&json!({
            "id": "cmpl-171", "object": "text_completion", "model": "m", "choices": [],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
        })),
        done(),
    ])
}

/// What its `/api/generate` sends of "a + b".
fn generates() -> Response {
    let piece =
        |text: &str| json!({"model": "m", "created_at": "now", "response": text, "done": false});
    lines(&[
        piece("a +"),
        piece(" b"),
        json!({
            "model": "m", "created_at": "now", "response": "", "done": true, "done_reason": "stop",
            "total_duration": 5, "prompt_eval_count": 21, "eval_count": 3,
        }),
    ])
}

fn lines(lines: &[Value]) -> Response {
    let lines = lines.iter().map(|line| format!("{line}\n"));
    Response {
        headers: vec![("content-type".into(), "application/x-ndjson".into())],
        body: lines.map(|line| Piece::Bytes(line.into_bytes())).collect(),
        ..stream(Vec::new())
    }
}

/// Serves `model` with `template`; where it is not loaded at first, it has `context_tokens` once it is.
async fn ollama(
    model: &'static str,
    template: &'static str,
    loaded: bool,
    context_tokens: usize,
) -> Rig {
    let loaded = AtomicBool::new(loaded);
    Rig::new(Plays::Ollama, model, move |asked| match asked.path {
        "/api/show" => {
            assert_eq!(asked.body["model"], model);
            let insert = template.contains(".Suffix");
            let capabilities = ["completion", "insert"];
            whole(
                200,
                &json!({
                    "modelfile": "FROM x", "template": template, "details": {"family": "qwen2"},
                    "model_info": {"general.architecture": "qwen2", "qwen2.context_length": 32_768},
                    "capabilities": capabilities[..=usize::from(insert)],
                }),
            )
        }
        "/api/ps" if loaded.load(Ordering::SeqCst) => whole(
            200,
            &json!({"models": [{"name": model, "model": model, "context_length": context_tokens}]}),
        ),
        "/api/ps" => whole(200, &json!({"models": []})),
        "/api/generate" if asked.body.get("prompt").is_some() => {
            assert_eq!(asked.body["raw"], true, "no question");
            generates()
        }
        "/api/generate" => {
            loaded.store(true, Ordering::SeqCst);
            whole(
                200,
                &json!({"response": "", "done": true, "done_reason": "load"}),
            )
        }
        "/v1/completions" => completes(),
        _ => say(asked, "a + b"),
    })
    .await
}

const DISCOVERY: &str = "/v1/models /infill /api/show /api/ps";

#[tokio::test]
async fn a_model_that_learnt_other_files_is_shown_them() {
    let rig = ollama("qwen2.5-coder:7b", CODER, true, 4_096).await;
    let mut request = completion("fn a() { ", " }\n");
    if let Task::Complete(task) = &mut request.task {
        task.snippets.push(Snippet {
            path: "other.rs".into(),
            file: None,
            text: "fn b() {}\n".into(),
        });
    }
    let (text, end) = rig.ask(request).await;
    let finish = end.unwrap();
    assert_eq!(
        (text.as_str(), finish.reason),
        ("a + b", FinishReason::Stop)
    );
    assert_eq!(
        (finish.usage.prompt_tokens, finish.usage.completion_tokens),
        (21, 3)
    );
    assert_eq!(rig.server.paths(), format!("{DISCOVERY} /api/generate"));
    let prompt = "<|file_sep|>other.rs\nfn b() {}\n<|file_sep|>src/lib.rs\n<|fim_prefix|>fn a() {\
                  <|fim_suffix|> }\n<|fim_middle|>";
    assert_eq!(rig.server.last_body()["prompt"], prompt);
    let tried = rig.backend.tried().await;
    let found = "Ollama, asked by /api/generate, in the model's own frame";
    assert_eq!(tried.found.as_deref(), Some(found));
}

#[tokio::test]
async fn one_that_takes_no_frame_is_asked_by_its_own() {
    let rig = Rig::new(Plays::Ollama, "qwen2.5-coder:7b", |asked| {
        match asked.path {
            "/api/show" => whole(200, &json!({"template": CODER, "model_info": {}})),
            "/api/ps" => whole(
                200,
                &json!({"models": [{"model": "qwen2.5-coder:7b", "context_length": 4_096}]}),
            ),
            "/api/generate" => whole(400, &json!({"error": "does not support generate"})),
            _ => completes(),
        }
    })
    .await;
    for asked in ["/api/generate /v1/completions", "/v1/completions"] {
        let before = rig.server.requests().len();
        assert_eq!(rig.ask(completion("fn a() {", "}\n")).await.0, "a + b");
        let paths = rig.server.paths();
        let paths: Vec<&str> = paths.split(' ').skip(before.max(4)).collect();
        assert_eq!(paths.join(" "), asked);
    }
}

#[tokio::test]
async fn an_answer_in_lines_may_fail_in_its_midst() {
    for last in [
        json!({"error": "an error of the user's text"}),
        json!({"done": false}),
        json!({"response": 1, "done": false}),
    ] {
        let rig = Rig::new(
            Plays::Ollama,
            "qwen2.5-coder:7b",
            move |asked| match asked.path {
                "/api/show" => whole(200, &json!({"template": CODER, "model_info": {}})),
                "/api/ps" => whole(
                    200,
                    &json!({"models": [{"model": "qwen2.5-coder:7b", "context_length": 4_096}]}),
                ),
                _ => lines(&[json!({"response": "a", "done": false}), last.clone()]),
            },
        )
        .await;
        let error = rig.ask(completion("fn a() {", "}\n")).await.1.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Backend, "{error}");
        assert!(!error.to_string().contains("user's text"), "{error}");
    }
}

#[tokio::test]
async fn a_model_that_fills_holes_is_given_both_sides() {
    let rig = ollama("starcoder2:3b", CODER, true, 4_096).await;
    let (text, end) = rig.ask(completion("fn a() { ", " }\n")).await;
    let finish = end.unwrap();
    assert_eq!((text.as_str(), finish.usage.prompt_tokens), ("a + b", 20));
    assert_eq!(rig.server.paths(), format!("{DISCOVERY} /v1/completions"));
    let body = rig.server.last_body();
    assert_eq!(
        (&body["prompt"], &body["suffix"]),
        (&json!("fn a() {"), &json!(" }\n"))
    );
    assert_eq!(body.get("skip_special_tokens"), None);
    // At the end of a file too: without a suffix it would be a question of chat.
    rig.ask(completion("fn a() { ", "")).await.1.unwrap();
    assert_eq!(rig.server.last_body()["suffix"], "\n");
    let tried = rig.backend.tried().await;
    let found = "Ollama, asked by /v1/completions, in the server's frame";
    assert_eq!(tried.found.as_deref(), Some(found));
}

#[tokio::test]
async fn a_prompt_that_would_become_a_question_is_asked_as_one() {
    let rig = ollama("my-own", CHAT, true, 4_096).await;
    assert_eq!(rig.ask(completion("fn a() { ", " }\n")).await.0, "a + b");
    assert_eq!(
        rig.server.paths(),
        format!("{DISCOVERY} /v1/chat/completions")
    );
    // By its name it fills holes, and its frame would be put into a chat elsewhere.
    let rig = ollama("my-codellama", CHAT, true, 4_096).await;
    assert_eq!(rig.ask(completion("fn a() {", "}\n")).await.0, "a + b");
    assert_eq!(rig.server.paths(), format!("{DISCOVERY} /api/generate"));
    let rig = ollama("my-qwen2.5-coder", "{{ .Prompt }}", true, 4_096).await;
    assert_eq!(rig.ask(completion("fn a() {", "}\n")).await.0, "a + b");
    let prompt = "<|file_sep|>src/lib.rs\n<|fim_prefix|>fn a() {<|fim_suffix|>}\n<|fim_middle|>";
    assert_eq!(rig.server.last_body()["prompt"], prompt);
}

#[tokio::test]
async fn light_answers_are_given_without_a_thought() {
    let rig = ollama("qwen3:8b", CHAT, true, 4_096).await;
    rig.ask(chat("Hi")).await.1.unwrap();
    let body = rig.server.last_body();
    assert_eq!(body["reasoning_effort"], "none");
    assert_eq!(body.get("chat_template_kwargs"), None);
    let mut heavy = chat("Hi");
    heavy.effort = Effort::High;
    rig.ask(heavy).await.1.unwrap();
    assert_eq!(rig.server.last_body().get("reasoning_effort"), None);
}

#[tokio::test]
async fn a_prompt_is_cut_to_the_context_that_the_model_was_loaded_with() {
    let rig = ollama("qwen2.5-coder:7b", CODER, false, 2_048).await;
    let long = completion(&"let a = 1;\n".repeat(9_000), "}\n");
    rig.ask(long).await.1.unwrap();
    let loading = format!("{DISCOVERY} /api/generate /api/ps /api/generate");
    assert_eq!(rig.server.paths(), loading);
    let prompt = rig.server.last_body()["prompt"].as_str().unwrap().len();
    assert!((1_000..6_000).contains(&prompt), "{prompt}");
    // It would drop the beginning of a conversation without a word.
    let error = rig.ask(chat(&"word ".repeat(9_000))).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLong);
    assert!(error.message.contains("2048"), "{error}");
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_an_error_and_is_tried_anew() {
    let tries = AtomicUsize::new(0);
    let rig = Rig::new(Plays::Ollama, "m", move |asked| match asked.path {
        "/api/show" => whole(200, &json!({"template": CHAT, "model_info": {}})),
        "/api/ps" => whole(200, &json!({"models": []})),
        "/api/generate" if tries.fetch_add(1, Ordering::SeqCst) == 0 => {
            whole(500, &json!({"error": "model requires more system memory"}))
        }
        "/api/generate" => whole(200, &json!({"done": true})),
        _ => say(asked, "b"),
    })
    .await;
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Backend);
    assert!(error.next_step.contains("log"), "{error}");
    assert_eq!(rig.ask(chat("Hi")).await.0, "b");
}

#[tokio::test]
async fn a_model_is_loaded_however_often_its_first_request_is_given_up() {
    let rig = Rig::with(
        Plays::Ollama,
        "m",
        |settings| settings.server.first_byte_timeout = Duration::from_secs(2),
        |asked| match asked.path {
            "/api/show" => whole(200, &json!({"template": CHAT, "model_info": {}})),
            "/api/generate" => Response {
                before: Some(Piece::Hang),
                ..whole(200, &json!({"done": true}))
            },
            _ => whole(200, &json!({"models": []})),
        },
    )
    .await;
    let given_up = rig.generate(completion("a", "b"));
    rig.until(|counts| counts.requests == 5).await;
    drop(given_up);
    let error = rig.ask(completion("ab", "b")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Backend);
    assert!(error.message.contains("still loading"), "{error}");
    let again = "/v1/models /infill /api/show /api/ps";
    assert_eq!(
        rig.server.paths(),
        format!("{DISCOVERY} /api/generate {again}")
    );
    assert_eq!(rig.server.counts().borrow().abandoned, 0);
}

#[tokio::test]
async fn a_schema_goes_to_ollama_as_to_others() {
    let rig = ollama("qwen3:8b", CHAT, true, 4_096).await;
    let mut request = chat("Which?");
    if let Task::Chat(task) = &mut request.task {
        task.schema = tandem::inference::AnswerSchema::new(json!({"enum": ["a"]})).ok();
    }
    rig.ask(request).await.1.unwrap();
    let format = &rig.server.last_body()["response_format"];
    assert_eq!(format["json_schema"]["schema"], json!({"enum": ["a"]}));
}

#[tokio::test]
async fn a_model_that_it_does_not_have_is_named_with_those_that_it_has() {
    let rig = Rig::new(Plays::Ollama, "qwen3:8b", |asked| match asked.path {
        "/api/show" => whole(404, &json!({"error": "model 'qwen3:4b' not found"})),
        _ => error(404, "not_found_error", "model 'qwen3:4b' not found"),
    })
    .await;
    rig.set(|settings| settings.server.model = Some("qwen3:4b".to_owned()));
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("`qwen3:4b`"), "{error}");
    assert!(error.next_step.contains("`qwen3:8b`"), "{error}");
}
