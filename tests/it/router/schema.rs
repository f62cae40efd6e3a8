//! Answers that have to be valid by a schema: nothing else is given out, whoever answers.

use serde_json::json;
use tandem::config::Settings;
use tandem::inference::{AnswerSchema, BackendKind, ErrorKind, RouteReason, Task};
use tandem::router::{RouteRequest, RoutedEvent};

use super::{World, chat, claude, local, started};

fn by(schema: serde_json::Value) -> RouteRequest {
    let mut request = chat("How old?");
    if let Task::Chat(task) = &mut request.generate.task {
        task.schema = Some(AnswerSchema::new(schema).unwrap());
    }
    request
}

fn age() -> RouteRequest {
    by(json!({
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 150}},
        "required": ["age"],
    }))
}

const VALID: &str = r#"{"age": 5}"#;

#[tokio::test(start_paused = true)]
async fn a_valid_answer_is_given_out_whole() {
    for said in [VALID, "```json\n{\"age\": 5}\n```"] {
        let world = World::new(Settings::default(), Some(local(said)), None, None);
        let mut stream = world.route(age());
        let mut texts = Vec::new();
        while let Some(event) = stream.next().await {
            match event {
                RoutedEvent::Delta(text) => texts.push(text),
                RoutedEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(texts, [VALID]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_valid_is_nobodys_answer_and_the_next_one_is_asked() {
    for said in ["Five.", r#"{"age": 500}"#, r#"{"age": 5"#, ""] {
        let world = World::new(
            Settings::default(),
            Some(local(said)),
            None,
            Some(claude(VALID)),
        );
        let answer = world.ask(age()).await.unwrap();
        assert_eq!(answer.text, VALID, "{said}");
        assert_eq!(answer.attribution.backend, BackendKind::Claude);
        assert_eq!(answer.attribution.reason, RouteReason::FellBack);
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_says_anything_valid_the_failure_says_why_and_nothing_else() {
    let world = World::new(
        Settings::default(),
        Some(local("my secret diary")),
        None,
        Some(claude(r#"{"age": 500}"#)),
    );
    let mut stream = world.route(age());
    let error = loop {
        match stream.next().await.unwrap() {
            RoutedEvent::Delta(text) => panic!("{text}"),
            RoutedEvent::Failed(error) => break error,
            _ => {}
        }
    };
    assert_eq!(error.kind, ErrorKind::Backend);
    let shown = error.to_string();
    assert!(shown.contains("/properties/age/maximum"), "{shown}");
    assert!(
        !shown.contains("diary") && !shown.contains("500"),
        "{shown}"
    );
}

/// A schema leaves the machine with the question.
#[tokio::test(start_paused = true)]
async fn a_secret_in_the_schema_keeps_it_on_this_machine() {
    let secret = format!("key = \"{}{}\"", "AKIA", "Z3MWPQ4KTLE2NB7X");
    let world = World::new(
        Settings::default(),
        Some(local("not JSON")),
        None,
        Some(claude(r#""a""#)),
    );
    let request = by(json!({"type": "string", "description": secret}));
    world.ask(request).await.unwrap_err();
    assert_eq!(started(world.claude.as_ref()), 0);
}
