//! The engine as a backend: streams, cancels, priorities, failures, idleness.

use std::time::Duration;

use tandem::backend::local::{LocalBackend, ModelSource};
use tandem::config::{BundleRuntime, LocalSettings};
use tandem::inference::{
    Backend, BackendKind, ChatTask, ClientId, CompleteTask, CompletionShape, Effort, ErrorKind,
    GenerateRequest, Health, Message, Priority, RequestId, Role, Sampling, Task,
};
use tokio_util::sync::CancellationToken;

use super::fixture;

fn settings() -> LocalSettings {
    LocalSettings {
        context_tokens: 400,
        ..LocalSettings::default()
    }
}

pub fn open(model: &str) -> LocalBackend {
    LocalBackend::open(
        ModelSource::at(&fixture(model), BundleRuntime::Auto),
        &settings(),
    )
    .unwrap()
}

pub fn complete(prefix: &str, suffix: &str, max_tokens: usize) -> GenerateRequest {
    request(
        Task::Complete(CompleteTask {
            path: Some("src/main.rs".into()),
            language: "rust".into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            snippets: Vec::new(),
            shape: CompletionShape::Auto,
        }),
        max_tokens,
    )
}

fn request(task: Task, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        client: ClientId::default(),
        id: RequestId::next(),
        task,
        sampling: Sampling::GREEDY,
        max_tokens,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: Priority::Inline,
    }
}

pub fn chat(text: &str) -> GenerateRequest {
    let task = ChatTask {
        system: Some("Be brief.".into()),
        messages: vec![Message {
            role: Role::User,
            text: text.into(),
        }],
        schema: None,
    };
    request(Task::Chat(task), 8)
}

const DOCUMENT: &str = "fn main() {\n    let mut total = 0;\n    for value in values {\n";

#[tokio::test]
async fn a_keystroke_computes_its_own_tokens_only() {
    let backend = open("qwen3-tiny.gguf");
    let cold = backend
        .generate(complete(DOCUMENT, "", 6), CancellationToken::new())
        .collect()
        .await
        .unwrap();
    assert_eq!(cold.finish.usage.cached_tokens, 0);
    let typed = format!("{DOCUMENT}        t");
    let warm = backend
        .generate(complete(&typed, "", 6), CancellationToken::new())
        .collect()
        .await
        .unwrap();
    let usage = warm.finish.usage;
    // The typed characters, the suffix and middle markers, and the token that gives the logits.
    assert!(usage.prompt_tokens - usage.cached_tokens <= 8, "{usage:?}");
    // The same without anything to reuse.
    let fresh = open("qwen3-tiny.gguf")
        .generate(complete(&typed, "", 6), CancellationToken::new())
        .collect()
        .await
        .unwrap();
    assert_eq!(fresh.text, warm.text);
}

#[tokio::test]
async fn a_model_is_loaded_on_first_need_and_measured() {
    let backend = open("qwen2-tiny");
    let mut health = backend.health();
    assert_eq!(*health.borrow(), Health::Unloaded);
    assert_eq!(backend.descriptor().kind, BackendKind::Candle);
    assert_eq!(backend.descriptor().model, "qwen2-tiny");
    assert_eq!(backend.descriptor().context_tokens, 400);
    backend.warm_up();
    let measured = |health: &Health| match health {
        Health::Healthy { speed: Some(speed) } => {
            speed.tokens_per_second > 0.0 && speed.first_token_ms > 0.0
        }
        _ => false,
    };
    health.wait_for(measured).await.unwrap();
}

#[tokio::test]
async fn an_idle_model_is_unloaded_and_comes_back() {
    let short = LocalSettings {
        idle_unload: Duration::from_millis(1),
        ..settings()
    };
    let source = ModelSource::at(&fixture("qwen2-tiny"), BundleRuntime::Auto);
    let backend = LocalBackend::open(source, &short).unwrap();
    for _ in 0..2 {
        let answer = backend.generate(complete(DOCUMENT, "", 4), CancellationToken::new());
        answer.collect().await.unwrap();
        let unloaded = |health: &Health| *health == Health::Unloaded;
        backend.health().wait_for(unloaded).await.unwrap();
    }
}

#[tokio::test]
async fn a_long_document_fits_and_a_long_conversation_does_not() {
    let backend = open("qwen3-tiny.gguf");
    let long = DOCUMENT.repeat(200);
    let answer = backend
        .generate(complete(&long, &long, 16), CancellationToken::new())
        .collect()
        .await
        .unwrap();
    let usage = answer.finish.usage;
    assert!(usage.prompt_tokens + 16 <= 400, "{usage:?}");
    assert!(usage.prompt_tokens > 200, "{usage:?}");
    let error = backend
        .generate(chat(&long), CancellationToken::new())
        .collect()
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLong);
    let answer = backend
        .generate(chat("hello"), CancellationToken::new())
        .collect()
        .await
        .unwrap();
    assert!(answer.finish.usage.completion_tokens <= 8);
}

#[tokio::test]
async fn what_is_not_there_is_told_with_the_next_step() {
    let backend = open("no-such-model.gguf");
    let Health::Absent { why } = backend.health().borrow().clone() else {
        panic!("not absent")
    };
    assert!(
        why.contains("no-such-model.gguf") && why.ends_with('.'),
        "{why}"
    );
    let error = backend
        .generate(complete("a", "", 4), CancellationToken::new())
        .collect()
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_embedded_model_completes_and_says_its_name() {
    let backend = LocalBackend::open(ModelSource::embedded(), &settings()).unwrap();
    assert_eq!(backend.descriptor().kind, BackendKind::Embedded);
    assert_eq!(backend.descriptor().model, "tandem-mini");
    let answer = backend
        .generate(complete(DOCUMENT, "}\n", 8), CancellationToken::new())
        .collect()
        .await
        .unwrap();
    assert!(answer.finish.usage.prompt_tokens > 10);
}
