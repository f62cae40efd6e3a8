//! What is asked of which server, and what comes of it.

use serde_json::{Value, json};
use tandem::inference::{AnswerSchema, ErrorKind, FinishReason, Task, Usage};

use super::stand_in::{done, end, error, event, stream, text};
use super::*;
use crate::claude::messages_api::http::Piece;

const USAGE: Usage = Usage {
    prompt_tokens: 21,
    cached_tokens: 17,
    completion_tokens: 2,
};

#[tokio::test]
async fn llama_server_fills_the_hole_by_infill() {
    let rig = Rig::saying(Plays::LlamaServer, "some.gguf", "a + b").await;
    assert_eq!(rig.health(), Health::Unloaded, "nothing was asked yet");
    let (text, end) = rig.ask(completion("fn a() { ", " }\n")).await;
    let finish = end.unwrap();
    assert_eq!(text, "a + b");
    assert_eq!(finish.reason, FinishReason::Stop);
    // Pieces that came count for tokens, where the server counts less.
    assert_eq!(finish.usage.prompt_tokens, USAGE.prompt_tokens);
    assert_eq!(finish.usage.cached_tokens, USAGE.cached_tokens);
    assert_eq!(finish.model.as_deref(), Some("served"));
    assert_eq!(rig.health(), Health::Healthy { speed: None });
    assert_eq!(rig.server.paths(), "/v1/models /infill");
    let body = rig.server.last_body();
    assert_eq!(body["input_prefix"], "fn a() {");
    assert_eq!(body["input_suffix"], " }\n");
    assert_eq!(
        (&body["n_predict"], &body["temperature"]),
        (&json!(64), &json!(0.0))
    );
    for request in rig.server.requests() {
        assert_eq!(
            request.header("authorization"),
            Some(&*format!("Bearer {KEY}"))
        );
    }
}

#[tokio::test]
async fn a_model_that_is_known_gets_its_own_frame() {
    let rig = Rig::saying(Plays::Vllm, "Qwen/Qwen2.5-Coder-7B", "a + b").await;
    let (text, end) = rig.ask(completion("fn a() { ", " }\n")).await;
    assert_eq!(
        (text.as_str(), end.unwrap().reason),
        ("a + b", FinishReason::Stop)
    );
    assert_eq!(rig.server.paths(), "/v1/models /v1/completions");
    let body = rig.server.last_body();
    let prompt = "<|file_sep|>src/lib.rs\n<|fim_prefix|>fn a() {<|fim_suffix|> }\n<|fim_middle|>";
    assert_eq!(body["prompt"], prompt);
    assert_eq!(body["skip_special_tokens"], false);
    // Suffix first, as it learnt it, and not by `/infill`, which has another order.
    let rig = Rig::saying(Plays::LlamaServer, "tandem-mini.gguf", "b").await;
    rig.ask(completion("a", "c")).await.1.unwrap();
    let prompt = rig.server.last_body()["prompt"].clone();
    let expected = "<|file_sep|>src/lib.rs\n<|fim_prefix|><|fim_suffix|>c<|fim_middle|>a";
    assert_eq!(prompt, expected);
}

#[tokio::test]
async fn a_server_that_has_chat_alone_is_asked_between_tags() {
    let rig = Rig::saying(Plays::Other, "somebody", "a + b").await;
    let (text, end) = rig.ask(completion("fn a() { ", " }\n")).await;
    end.unwrap();
    assert_eq!(text, "a + b");
    // It was asked once whether it has the other one and whether it is Ollama, with nothing of the user's.
    assert_eq!(
        rig.server.paths(),
        "/v1/models /infill /api/show /v1/chat/completions"
    );
    let asked: Value = serde_json::from_slice(&rig.server.requests()[1].body).unwrap();
    assert_eq!(
        (&asked["input_prefix"], &asked["n_predict"]),
        (&json!("a"), &json!(1))
    );
    rig.ask(completion("fn b() { ", " }\n")).await.1.unwrap();
    assert_eq!(rig.server.counts().borrow().requests, 5, "known by now");
}

#[tokio::test]
async fn a_space_before_the_cursor_comes_back_with_the_word() {
    for (says, expected) in [(" a + b", "a + b"), ("a + b", "a + b"), ("  a", " a")] {
        for plays in [Plays::LlamaServer, Plays::Vllm] {
            let rig = Rig::saying(plays, "qwen2.5-coder", says).await;
            assert_eq!(rig.ask(completion("return ", "")).await.0, expected);
            let body = rig.server.last_body().to_string();
            assert!(
                body.contains("return") && !body.contains("return "),
                "{body}"
            );
        }
    }
}

#[tokio::test]
async fn conversations_go_by_chat_whatever_completions_go_by() {
    let rig = Rig::saying(Plays::LlamaServer, "m", "Good day to you").await;
    let mut question = chat("Hi");
    question.stop = vec!["to ".to_owned()];
    let (text, end) = rig.ask(question).await;
    assert_eq!(
        (text.as_str(), end.unwrap().reason),
        ("Good day ", FinishReason::Stop)
    );
    assert_eq!(rig.server.paths(), "/v1/models /v1/chat/completions");
    let body = rig.server.last_body();
    assert_eq!(
        body["messages"][0],
        json!({"role": "system", "content": "Be brief."})
    );
    assert_eq!(
        body["messages"][1],
        json!({"role": "user", "content": "Hi"})
    );
    assert_eq!(body["chat_template_kwargs"]["enable_thinking"], false);
}

#[tokio::test]
async fn the_user_may_say_how_completions_are_asked_for() {
    for (api, path) in [
        (ServerApi::Infill, "/infill"),
        (ServerApi::Completions, "/v1/completions"),
        (ServerApi::Chat, "/v1/chat/completions"),
    ] {
        let change = move |settings: &mut Settings| settings.server.api = api;
        let rig = Rig::with(Plays::LlamaServer, "m", change, |asked| say(asked, "b")).await;
        assert_eq!(rig.ask(completion("a", "c")).await.0, "b");
        assert_eq!(rig.server.paths(), format!("/v1/models {path}"));
    }
}

#[tokio::test]
async fn infill_that_is_not_for_this_model_is_given_up_within_the_request() {
    let rig = Rig::new(Plays::LlamaServer, "m", |asked| match asked.path {
        "/infill" => error(
            501,
            "not_supported_error",
            "Infill is not supported by this model",
        ),
        _ => say(asked, "b"),
    })
    .await;
    assert_eq!(rig.ask(completion("a", "c")).await.0, "b");
    assert_eq!(rig.ask(completion("a", "c")).await.0, "b");
    let chat = "/v1/chat/completions";
    assert_eq!(
        rig.server.paths(),
        format!("/v1/models /infill {chat} {chat}")
    );
    // Where the user said so, it is an error that says what to look at.
    rig.set(|settings| settings.server.api = ServerApi::Infill);
    let error = rig.ask(completion("a", "c")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.next_step.contains("`server.api`"), "{error}");
}

#[tokio::test]
async fn what_ends_a_model_never_reaches_the_document() {
    let rig = Rig::new(Plays::Vllm, "qwen2.5-coder", |asked| {
        let mut pieces = vec![
            text(asked.path, "b<|file_"),
            text(asked.path, "sep|>other.rs\nfn c() {}"),
        ];
        pieces.extend(end(asked.path, "length"));
        stream(pieces)
    })
    .await;
    let (text, end) = rig.ask(completion("a", "")).await;
    assert_eq!(
        (text.as_str(), end.unwrap().reason),
        ("b", FinishReason::Stop)
    );
}

#[tokio::test]
async fn one_line_is_all_of_one_line() {
    let rig = Rig::saying(Plays::LlamaServer, "m", "b\nc").await;
    let mut line = completion("a", "");
    let Task::Complete(task) = &mut line.task else {
        panic!("a completion")
    };
    task.shape = CompletionShape::OneLine;
    assert_eq!(rig.ask(line).await.0, "b");
    assert_eq!(rig.server.last_body()["stop"], json!(["\n"]));
}

#[tokio::test]
async fn an_answer_that_reached_its_length_says_so() {
    for plays in [Plays::LlamaServer, Plays::Vllm] {
        let rig = Rig::new(plays, "qwen2.5-coder", |asked| {
            let mut pieces = vec![text(asked.path, "b")];
            pieces.extend(end(asked.path, "length"));
            stream(pieces)
        })
        .await;
        let finish = rig.ask(completion("a", "")).await.1.unwrap();
        assert_eq!((finish.reason, finish.usage), (FinishReason::Length, USAGE));
    }
}

#[tokio::test]
async fn a_whole_answer_needs_no_done_and_done_needs_no_reason() {
    let whole = Rig::new(Plays::Vllm, "qwen2.5-coder", |asked| {
        let mut pieces = vec![text(asked.path, "b")];
        pieces.extend(end(asked.path, "stop"));
        pieces.truncate(2);
        stream(pieces)
    })
    .await;
    assert_eq!(whole.ask(completion("a", "")).await.0, "b");
    let hanging = Rig::new(Plays::Vllm, "qwen2.5-coder", |asked| {
        let mut pieces = vec![text(asked.path, "b")];
        pieces.extend(end(asked.path, "stop"));
        pieces.truncate(2);
        pieces.push(Piece::Hang);
        stream(pieces)
    })
    .await;
    hanging.ask(completion("a", "")).await.1.unwrap();
    let bare = Rig::new(Plays::Vllm, "qwen2.5-coder", |asked| {
        stream(vec![text(asked.path, "b"), done()])
    })
    .await;
    bare.ask(completion("a", "")).await.1.unwrap();
}

#[tokio::test]
async fn a_server_that_serves_another_model_by_now_is_asked_anew() {
    let rig = Rig::new(Plays::Vllm, "first", |asked| {
        if asked.body["model"] == "first" {
            return error(404, "NotFoundError", "The model `first` does not exist.");
        }
        say(asked, "b")
    })
    .await;
    let refused = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(refused.next_step.contains("`server.model`"), "{refused}");
    assert!(
        matches!(rig.health(), Health::Degraded { why } if why.contains("server.model")),
        "a person is told"
    );
    rig.server.serve_model(Some("second"));
    assert_eq!(rig.ask(chat("Hi")).await.0, "b");
    assert_eq!(rig.server.counts().borrow().lists, 2);
    assert_eq!(rig.health(), Health::Healthy { speed: None });
}

#[tokio::test]
async fn a_server_without_a_list_needs_the_models_name() {
    let rig = Rig::saying(Plays::Vllm, "m", "b").await;
    rig.server.serve_model(None);
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    rig.set(|settings| settings.server.model = Some("m".to_owned()));
    assert_eq!(rig.ask(chat("Hi")).await.0, "b");
    assert_eq!(rig.server.last_body()["model"], "m");
}

#[tokio::test]
async fn the_address_may_end_as_others_want_it() {
    let rig = Rig::saying(Plays::LlamaServer, "m", "b").await;
    let url = rig.server.base_url();
    for ending in ["/v1", ""] {
        let url = format!("{url}{ending}");
        rig.set(|settings| settings.server.base_url = Some(url));
        assert_eq!(rig.ask(completion("a", "c")).await.0, "b");
    }
    assert_eq!(rig.server.paths(), "/v1/models /infill /infill");
}

#[tokio::test]
async fn what_does_not_fit_is_not_sent() {
    let rig = Rig::saying(Plays::Vllm, "m", "b").await;
    let error = rig.ask(chat(&"word ".repeat(9_000))).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLong);
    assert!(
        error.message.contains("2048"),
        "what the server says: {error}"
    );
    assert_eq!(rig.server.paths(), "/v1/models");
    // What an answer may have is cut to the room there is.
    let mut question = chat(&"word ".repeat(500));
    question.max_tokens = 4_096;
    assert_eq!(rig.ask(question).await.0, "b");
    let room = rig.server.last_body()["max_tokens"].as_u64().unwrap();
    assert!((512..2_048).contains(&room), "{room}");
    // A completion is cut to fit.
    rig.set(|settings| settings.server.api = ServerApi::Completions);
    let long = completion(&"let a = 1;\n".repeat(9_000), "");
    assert_eq!(rig.ask(long).await.0, "b");
    let prompt = rig.server.last_body()["prompt"].as_str().unwrap().len();
    assert!((1_000..6_000).contains(&prompt), "{prompt}");
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let rig = Rig::new(Plays::LlamaServer, "m", |asked| {
        stream(vec![text(asked.path, "b"), Piece::Hang])
    })
    .await;
    let mut stream = rig.generate(completion("a", ""));
    assert_eq!(stream.next().await, Some(Event::Delta("b".into())));
    drop(stream);
    rig.until(|counts| counts.abandoned == 1).await;
    // It had generated, whoever did not want to hear the rest.
    assert_eq!(rig.health(), Health::Healthy { speed: None });
}

#[tokio::test]
async fn trying_a_server_tells_what_it_is_and_how_fast() {
    let rig = Rig::saying(Plays::LlamaServer, "m", "a + b").await;
    let tried = rig.backend.tried().await;
    assert_eq!(tried.model.as_deref(), Some("m"));
    assert_eq!(tried.found.as_deref(), Some("llama.cpp, asked by /infill"));
    let generated = tried.outcome.unwrap();
    assert_eq!(
        (generated.text.as_str(), generated.prompt_tokens),
        ("a + b", 21)
    );
    assert!(generated.first_text.unwrap() <= generated.took);
}

#[tokio::test]
async fn an_answer_is_held_to_a_schema() {
    for plays in [Plays::LlamaServer, Plays::Vllm, Plays::Other] {
        let rig = Rig::saying(plays, "some.gguf", r#"{"b": 1}"#).await;
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let mut request = chat("Which?");
        if let Task::Chat(task) = &mut request.task {
            task.schema = Some(AnswerSchema::new(schema.clone()).unwrap());
        }
        let (text, end) = rig.ask(request).await;
        end.unwrap();
        assert_eq!(text, r#"{"b": 1}"#);
        let body = rig.server.last_body();
        let format = &body["response_format"];
        assert_eq!(format["type"], "json_schema");
        assert_eq!(format["json_schema"]["strict"], true);
        assert_eq!(format["json_schema"]["schema"], schema);
        // Not every server tells the model what it is held to.
        let system = body["messages"][0]["content"].as_str().unwrap();
        assert!(system.contains(&schema.to_string()), "{system}");
    }
    let rig = Rig::saying(Plays::Vllm, "m", "hello").await;
    rig.ask(chat("Hi")).await.1.unwrap();
    assert_eq!(rig.server.last_body().get("response_format"), None);
}

fn question_with_a_schema() -> GenerateRequest {
    let mut request = chat("Which?");
    if let Task::Chat(task) = &mut request.task {
        let schema = json!({"type": "array", "uniqueItems": true});
        task.schema = Some(AnswerSchema::new(schema).unwrap());
    }
    request
}

#[tokio::test]
async fn a_server_that_does_not_take_a_schema_is_asked_without_it() {
    // vLLM 0.32.0 says the former, llama-server (b11669) the latter of tuples that end.
    for (plays, message) in [
        (
            Plays::Vllm,
            "Grammar error: Unimplemented keys: [\"uniqueItems\"]",
        ),
        (
            Plays::LlamaServer,
            "JSON schema error at #/items: schema must be an object",
        ),
    ] {
        let rig = Rig::new(plays, "m", move |asked| {
            if asked.body.get("response_format").is_some() {
                return error(400, "BadRequestError", message);
            }
            say(asked, "[1]")
        })
        .await;
        assert_eq!(rig.ask(question_with_a_schema()).await.0, "[1]");
        let chat = "/v1/chat/completions";
        assert_eq!(rig.server.paths(), format!("/v1/models {chat} {chat}"));
        let body = rig.server.last_body();
        assert!(
            body["messages"].to_string().contains("uniqueItems"),
            "{body}"
        );
        // The next one may be to its taste.
        rig.ask(question_with_a_schema()).await.1.unwrap();
        assert_eq!(rig.server.counts().borrow().requests, 5);
    }
    let rig = Rig::new(Plays::Vllm, "m", |_| error(400, "BadRequestError", "no")).await;
    let end = rig.ask(question_with_a_schema()).await.1;
    assert_eq!(end.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(rig.server.counts().borrow().requests, 3);
    // What has begun is not begun again.
    let rig = Rig::new(Plays::Vllm, "m", |asked| {
        let fault = json!({"error": {"message": "no", "type": "BadRequestError", "code": 400}});
        stream(vec![text(asked.path, "["), event(&fault)])
    })
    .await;
    let (text, end) = rig.ask(question_with_a_schema()).await;
    assert_eq!(
        (text.as_str(), end.unwrap_err().kind),
        ("[", ErrorKind::Unavailable)
    );
}

#[tokio::test]
async fn a_model_that_is_not_listed_is_told_once_the_server_turned_it_away() {
    let rig = Rig::new(Plays::Vllm, "m", |asked| {
        if asked.body["model"] == "hidden" {
            return say(asked, "b");
        }
        error(404, "NotFoundError", "The model `n` does not exist.")
    })
    .await;
    // Some servers take names that they do not list.
    rig.set(|settings| settings.server.model = Some("hidden".to_owned()));
    assert_eq!(rig.ask(chat("Hi")).await.0, "b");
    let rig = Rig::new(Plays::Vllm, "m", |_| error(404, "NotFoundError", "")).await;
    rig.set(|settings| settings.server.model = Some("n".to_owned()));
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(
        error.message,
        "the inference server does not have the model `n`"
    );
    assert_eq!(
        error.next_step,
        "Set `server.model` to one that it lists: `m`."
    );
}
