//! What is sent, and what comes of a sound answer.

use serde_json::{Value, json};
use tandem::inference::{AnswerSchema, EditTask, Effort, ErrorKind, FinishReason, Task};

use super::messages_api::check::Refusal;

use super::*;

fn bodies(rig: &Rig) -> Vec<Value> {
    rig.server
        .requests()
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

#[tokio::test]
async fn a_completion_arrives_without_its_tags() {
    let rig = Rig::saying("<insert>w * h</insert>").await;
    let (text, end) = rig
        .ask(completion(
            "fn area(w: u32, h: u32) -> u32 {\n    ",
            "\n}\n",
        ))
        .await;
    let finish = end.unwrap();
    assert_eq!(text, "w * h");
    assert_eq!(finish.reason, FinishReason::Stop);
    assert_eq!(finish.model.as_deref(), Some("claude-haiku-5-5"));
    assert!(finish.usage.prompt_tokens > 100, "{finish:?}");
    assert!(finish.usage.completion_tokens > 1, "{finish:?}");

    let requests = rig.server.requests();
    let headers: Vec<_> = ["x-api-key", "anthropic-version", "user-agent"]
        .map(|name| requests[0].header(name).unwrap_or_default().to_owned())
        .into();
    let agent = format!("tandem/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(headers, [KEY, "2023-06-01", &agent]);
    let body = &bodies(&rig)[0];
    assert_eq!(body["model"], "claude-haiku-5-5");
    assert_eq!(body["max_tokens"], 64);
    assert_eq!(body["thinking"]["type"], "disabled");
    assert_eq!(body["stop_sequences"][0], "</insert>");
    assert_eq!(body["system"][0]["cache_control"]["type"], "ephemeral");
}

#[tokio::test]
async fn heavy_work_goes_to_the_strong_model_which_thinks_first() {
    let rig = Rig::new(|asked| {
        let say = Say {
            thinking: Some("Hm.".to_owned()),
            ..Say::text("Because.")
        };
        said(asked, &say)
    })
    .await;
    let mut why = chat("Why?");
    why.effort = Effort::High;
    let (text, end) = rig.ask(why).await;
    assert_eq!(text, "Because.");
    assert_eq!(end.unwrap().model.as_deref(), Some("claude-opus-5-5"));
    let body = &bodies(&rig)[0];
    assert_eq!(body["thinking"]["type"], "adaptive");
    assert!(body["max_tokens"].as_u64().unwrap() > 64, "room to think");
}

#[tokio::test]
async fn an_edit_arrives_as_the_piece_it_replaces() {
    let rig = Rig::saying("<replacement>\nlet total = 0;\n</replacement>").await;
    let task = EditTask {
        path: None,
        language: "rust".to_owned(),
        before: "fn f() {\n".into(),
        selection: "let t = 0;".into(),
        after: "\n}\n".into(),
        instruction: "Name it total".to_owned(),
    };
    let (text, end) = rig.ask(request(Task::Edit(task), Effort::Low)).await;
    end.unwrap();
    assert_eq!(text, "let total = 0;");
}

#[tokio::test]
async fn every_length_of_piece_gives_the_same_text() {
    let answer = "<insert>    let größe = \"<x>\";\n    größe</insert>";
    for length in 1..8 {
        let rig = Rig::new(move |asked| {
            let chars: Vec<char> = answer.chars().collect();
            let pieces = chars.chunks(length).map(|run| run.iter().collect());
            let say = Say {
                pieces: pieces.collect(),
                ..Say::text("")
            };
            said(asked, &say)
        })
        .await;
        let (text, end) = rig.ask(completion("{\n    ", "\n}")).await;
        end.unwrap();
        assert_eq!(text, "let größe = \"<x>\";\n    größe", "{length}");
    }
}

#[tokio::test]
async fn what_stays_the_same_is_read_from_the_cache() {
    let rig = Rig::saying("<insert>x</insert>").await;
    let document = "let value = compute(1, 2);\n".repeat(200);
    let (_, first) = rig.ask(completion(&document, "")).await;
    let (_, later) = rig.ask(completion(&format!("{document}let "), "")).await;
    assert_eq!(first.unwrap().usage.cached_tokens, 0);
    let usage = later.unwrap().usage;
    assert!(usage.cached_tokens * 2 > usage.prompt_tokens, "{usage:?}");
}

#[tokio::test]
async fn a_blank_stop_sequence_is_kept_though_the_api_takes_none() {
    let rig = Rig::saying("one two\nthree four").await;
    let mut one_line = chat("Hi");
    one_line.stop = vec!["\n".to_owned()];
    let (text, end) = rig.ask(one_line).await;
    assert_eq!(text, "one two");
    assert_eq!(end.unwrap().reason, FinishReason::Stop);
    assert_eq!(bodies(&rig)[0].get("stop_sequences"), None);
}

#[tokio::test]
async fn an_answer_at_its_longest_says_so() {
    let rig = Rig::new(|asked| {
        let say = Say {
            stop_reason: "max_tokens",
            ..Say::text("So far")
        };
        said(asked, &say)
    })
    .await;
    let (text, end) = rig.ask(chat("Tell me all")).await;
    assert_eq!(text, "So far");
    assert_eq!(end.unwrap().reason, FinishReason::Length);
}

#[tokio::test]
async fn limits_beyond_every_clock_are_limits_all_the_same() {
    let rig = Rig::saying("fine").await;
    rig.set(|settings| {
        settings.claude.connect_timeout = Duration::MAX;
        settings.claude.first_byte_timeout = Duration::MAX;
        settings.claude.idle_timeout = Duration::MAX;
        settings.claude.max_tokens = usize::MAX;
        settings.claude.retries = u32::MAX;
        settings.claude.daily_spend_cap_usd = f64::INFINITY;
    });
    let mut longest = chat("Hi");
    longest.max_tokens = usize::MAX;
    longest.effort = Effort::High;
    assert_eq!(rig.ask(longest).await.0, "fine");
}

#[tokio::test]
async fn settings_are_followed_as_they_change() {
    let rig = Rig::saying("old").await;
    assert_eq!(rig.ask(chat("Hi")).await.0, "old");
    let other = serve(|asked| said(asked, &Say::text("new"))).await;
    rig.set(|settings| {
        settings.claude.base_url = format!("{}/", other.base_url());
        settings.claude.fast_model = "claude-sonnet-5-5".to_owned();
    });
    let (text, end) = rig.ask(chat("Hi")).await;
    assert_eq!(text, "new");
    assert_eq!(end.unwrap().model.as_deref(), Some("claude-sonnet-5-5"));
}

fn by(schema: Value) -> GenerateRequest {
    let mut request = chat("Who?");
    if let Task::Chat(task) = &mut request.task {
        task.schema = Some(AnswerSchema::new(schema).unwrap());
    }
    request
}

#[tokio::test]
async fn an_answer_is_held_to_a_schema() {
    let said = r#"{"name": "Ada", "born": 1815}"#;
    let rig = Rig::saying(said).await;
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "born": {"type": "integer"},
        },
        "required": ["name"],
    });
    // The stand-in turns away what the API does.
    let (text, end) = rig.ask(by(schema)).await;
    end.unwrap();
    assert_eq!(text, said);
    let body = &bodies(&rig)[0];
    let format = &body["output_config"]["format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["schema"]["additionalProperties"], false);
    assert_eq!(
        format["schema"]["properties"]["name"]["description"],
        "minLength: 1."
    );
    assert_eq!(body["thinking"]["type"], "disabled");
}

#[tokio::test]
async fn a_schema_that_claude_does_not_take_is_told_without_its_text() {
    let rig = Rig::saying("never").await;
    let error = rig.ask(by(json!({"type": "object"}))).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("`properties`"), "{error}");
    assert_eq!(rig.server.requests().len(), 0);

    let rig = Rig::new(|_| {
        reply::error(&Refusal {
            status: 400,
            kind: "invalid_request_error",
            message: "output_config.format.schema: the property diary is recursive".to_owned(),
        })
    })
    .await;
    let error = rig.ask(by(json!({"type": "string"}))).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(!error.to_string().contains("diary"), "{error}");
    assert!(error.to_string().contains("JSON Schema"), "{error}");
}
