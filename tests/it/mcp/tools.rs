//! The tools: what they take, what they return, where they go and how they fail.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::config::{Mode, Settings};
use tandem::inference::{
    BackendKind, Effort, ErrorKind, GenerateError, GenerateRequest, Priority, Task,
};
use tandem::protocol::mcp::Session;
use tandem::router::Backends;

use super::client::{Client, Era, local, router, router_over, text};

const ERA: Era = Era::Initialize("2025-11-25");

/// Every tool with arguments that use all its fields.
fn calls() -> [(&'static str, Value); 7] {
    [
        (
            "complete_code",
            json!({
                "prefix": "fn add(a: i32, b: i32) -> i32 {\n    ",
                "suffix": "\n}\n",
                "language": "rust",
                "path": "src/lib.rs",
                "max_tokens": 32,
            }),
        ),
        (
            "edit_code",
            json!({
                "code": "let x = 1;",
                "instruction": "rename x to y",
                "language": "rust",
                "path": "/project/space/src/lib.rs",
                "before": "fn f() {",
                "after": "}",
            }),
        ),
        (
            "explain_code",
            json!({ "code": "x += 1", "language": "python", "question": "why?", "path": "a.py" }),
        ),
        (
            "summarize",
            json!({ "text": "a long text", "focus": "length", "length": "bullets" }),
        ),
        (
            "commit_message",
            json!({ "diff": "+x", "style": "conventional" }),
        ),
        (
            "ask",
            json!({ "question": "why?", "context": "because", "effort": "low" }),
        ),
        ("status", json!({})),
    ]
}

/// A backend that keeps what it was asked.
fn listening(answer: &str) -> (ScriptedBackend, Arc<Mutex<Vec<GenerateRequest>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    let answer = answer.to_owned();
    let backend = local(move |request| {
        into.lock().unwrap().push(request.clone());
        Script::text(answer.clone())
    });
    (backend, heard)
}

/// A local backend and Claude.
fn both(near: &str, far: &str) -> Backends {
    Backends {
        local: Some(Arc::new(ScriptedBackend::saying(BackendKind::Candle, near))),
        claude: Some(Arc::new(ScriptedBackend::saying(BackendKind::Claude, far))),
        ..Backends::default()
    }
}

#[tokio::test]
async fn what_every_tool_returns_fits_its_output_schema() {
    for era in [ERA, Era::Stateless] {
        let mut client = Client::open(router(local(|_| Script::text("a + b"))), era).await;
        let tools = client.ask("tools/list", json!({})).await;
        for ((name, arguments), tool) in calls().into_iter().zip(tools["tools"].as_array().unwrap())
        {
            assert_eq!(tool["name"], name);
            jsonschema::validate(&tool["inputSchema"], &arguments).unwrap();
            let result = client.call(name, arguments).await;
            assert_eq!(result["isError"], false, "{result}");
            jsonschema::validate(&tool["outputSchema"], &result["structuredContent"])
                .unwrap_or_else(|error| panic!("{name}: {error} in {result}"));
            assert!(!text(&result).is_empty(), "{name}");
            if name == "status" {
                continue;
            }
            let data = &result["structuredContent"];
            assert_eq!(text(&result), data["text"], "{name}");
            assert_eq!(data["backend"], "candle", "{name}");
            assert_eq!(data["model"], "scripted-candle", "{name}");
            assert!(data["route_reason"].is_string(), "{name}");
            assert_eq!(data["tokens"]["completion"], 1, "{name}");
            assert!(data["milliseconds"]["total"].is_u64(), "{name}");
            assert!(data["milliseconds"]["first_token"].is_u64(), "{name}");
            assert!(data.get("truncated").is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn arguments_reach_the_backend_as_a_task() {
    let (backend, heard) = listening("ok");
    let mut client = Client::open(router(backend), ERA).await;
    for (name, arguments) in calls() {
        client.call(name, arguments).await;
    }
    let heard = heard.lock().unwrap();
    let [complete, edit, explain, summarize, commit, ask] = heard.as_slice() else {
        panic!("{} requests", heard.len())
    };
    assert!(
        heard
            .iter()
            .all(|request| request.priority == Priority::Tool)
    );
    let Task::Complete(task) = &complete.task else {
        panic!("{complete:?}")
    };
    assert_eq!(&*task.suffix, "\n}\n");
    assert_eq!(task.language, "rust");
    assert_eq!(task.path.as_deref(), Some("src/lib.rs"));
    assert_eq!(complete.max_tokens, 32);
    let Task::Edit(task) = &edit.task else {
        panic!("{edit:?}")
    };
    assert_eq!(
        (&*task.before, &*task.selection, &*task.after),
        ("fn f() {", "let x = 1;", "}")
    );
    assert_eq!(task.instruction, "rename x to y");
    assert_eq!(task.path.as_deref(), Some("src/lib.rs"));
    for (request, holds) in [
        (explain, "why?"),
        (summarize, "bullet points"),
        (commit, "<diff>\n+x\n</diff>"),
        (ask, "<context>\nbecause\n</context>\n\nwhy?"),
    ] {
        let Task::Chat(task) = &request.task else {
            panic!("{request:?}")
        };
        assert!(task.system.is_some());
        assert!(
            task.messages[0].text.contains(holds),
            "{}",
            task.messages[0].text
        );
        assert_eq!(request.effort, Effort::Low);
    }
}

#[tokio::test]
async fn a_host_without_a_project_tells_the_model_the_name_of_a_file_only() {
    let (backend, heard) = listening("ok");
    let session = Session::new(router(backend), Some(PathBuf::from("/")));
    let mut client = Client::connect_with(session);
    client.greet(ERA).await;
    let arguments = json!({ "prefix": "x", "path": "/home/somebody/a.rs" });
    client.call("complete_code", arguments).await;
    let heard = heard.lock().unwrap();
    let Task::Complete(task) = &heard[0].task else {
        panic!("{heard:?}")
    };
    assert_eq!(task.path.as_deref(), Some("a.rs"));
}

#[tokio::test]
async fn a_commit_message_comes_in_its_parts() {
    let said = "```\nfix(io): close the file\n\nIt leaked.\n```";
    let mut client = Client::open(router(local(move |_| Script::text(said))), ERA).await;
    let result = client.call("commit_message", json!({ "diff": "+x" })).await;
    assert_eq!(text(&result), "fix(io): close the file\n\nIt leaked.");
    assert_eq!(
        result["structuredContent"]["subject"],
        "fix(io): close the file"
    );
    assert_eq!(result["structuredContent"]["body"], "It leaked.");
}

#[tokio::test]
async fn bad_arguments_are_a_result_that_names_the_field_and_the_next_step() {
    let backend = local(|_| Script::text("never"));
    let seen = backend.observed();
    let mut client = Client::open(router(backend), ERA).await;
    let long = "x".repeat((1 << 20) + 1);
    for (tool, arguments, names) in [
        ("ask", json!({}), "`question`"),
        ("ask", json!({ "question": "" }), "`question`"),
        ("ask", json!({ "question": ["a"] }), "`question`"),
        (
            "ask",
            json!({ "question": "a", "effort": "huge" }),
            "`effort`",
        ),
        (
            "ask",
            json!({ "question": "a", "context": long }),
            "`context`",
        ),
        (
            "summarize",
            json!({ "text": "a", "lenght": "b" }),
            "`lenght`",
        ),
        ("edit_code", json!({ "code": "a" }), "`instruction`"),
        (
            "complete_code",
            json!({ "prefix": "", "suffix": "" }),
            "`prefix`",
        ),
        ("commit_message", json!({ "diff": " \n" }), "`diff`"),
        ("explain_code", json!({ "code": null }), "`code`"),
        ("status", json!({ "verbose": true }), "`verbose`"),
    ] {
        let result = client.call(tool, arguments).await;
        assert_eq!(result["isError"], true, "{tool}: {result}");
        assert!(result.get("structuredContent").is_none(), "{result}");
        assert!(text(&result).contains(names), "{tool}: {result}");
        assert!(text(&result).ends_with('.'), "{result}");
    }
    assert_eq!(seen.started.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_failure_is_a_result_that_ends_with_the_next_step() {
    let fault = GenerateError::new(ErrorKind::Refused, "the model declined", "Ask otherwise.");
    let script = Script {
        pieces: vec!["half an answer".to_owned()],
        failure: Some(fault.clone()),
        ..Script::text("")
    };
    let mut client = Client::open(router(local(move |_| script.clone())), ERA).await;
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(result["isError"], true);
    assert!(result.get("structuredContent").is_none(), "{result}");
    let blocks = result["content"].as_array().unwrap();
    let last = blocks.last().unwrap()["text"].as_str().unwrap();
    assert_eq!(last, "The model declined. Ask otherwise.");
    assert!(
        blocks[0]["text"]
            .as_str()
            .unwrap()
            .contains("half an answer")
    );
    let meta = &result["_meta"]["tandem/error"];
    assert_eq!(meta["kind"], "refused");
    assert_eq!(meta["backend"], "candle");
}

#[tokio::test]
async fn without_any_model_the_error_says_what_to_configure() {
    let router = router_over(Settings::default(), Backends::default());
    let mut client = Client::open(router, ERA).await;
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(result["isError"], true);
    assert!(text(&result).contains("ANTHROPIC_API_KEY"), "{result}");
}

/// What `openWorldHint` of `tool` is under these settings.
async fn open_world(mode: Mode, backends: &Backends, tool: usize) -> Value {
    let settings = Settings {
        mode,
        ..Settings::default()
    };
    let mut client = Client::open(router_over(settings, backends.clone()), ERA).await;
    let tools = client.ask("tools/list", json!({})).await;
    tools["tools"][tool]["annotations"]["openWorldHint"].clone()
}

#[tokio::test]
async fn the_world_is_open_where_claude_may_be_called() {
    let both = both("near", "far");
    assert_eq!(open_world(Mode::Auto, &both, 5).await, true);
    assert_eq!(open_world(Mode::ClaudeOnly, &both, 5).await, true);
    assert_eq!(open_world(Mode::LocalOnly, &both, 5).await, false);
    // `status` asks nobody.
    assert_eq!(open_world(Mode::Auto, &both, 6).await, false);
    let without_claude = Backends {
        claude: None,
        ..both
    };
    assert_eq!(open_world(Mode::Auto, &without_claude, 5).await, false);
}

#[tokio::test]
async fn high_effort_goes_to_claude_and_low_effort_stays() {
    let mut client = Client::open(router_over(Settings::default(), both("near", "far")), ERA).await;
    for (effort, said, backend, reason) in [
        ("low", "near", "candle", "local-healthy"),
        ("high", "far", "claude", "heavy-effort"),
    ] {
        let arguments = json!({ "question": "?", "effort": effort });
        let result = client.call("ask", arguments).await;
        assert_eq!(text(&result), said);
        assert_eq!(result["structuredContent"]["backend"], backend);
        assert_eq!(result["structuredContent"]["route_reason"], reason);
    }
    let read = client
        .ask("resources/read", json!({ "uri": "tandem://decisions" }))
        .await;
    let decisions: Value =
        serde_json::from_str(read["contents"][0]["text"].as_str().unwrap()).unwrap();
    let newest = &decisions["decisions"][0];
    assert_eq!(newest["backend"], "claude", "{decisions}");
    assert_eq!(newest["route_reason"], "heavy-effort");
    assert_eq!(newest["outcome"], "answered");
    let status = client.call("status", json!({})).await;
    assert_eq!(status["structuredContent"]["last_route"], *newest);
    let backends = status["structuredContent"]["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 2, "{status}");
    assert_eq!(backends[0]["state"], "healthy");
    assert!(text(&status).contains("may leave this machine"), "{status}");
}

#[tokio::test]
async fn a_denied_file_stays_on_the_machine_whatever_names_it() {
    let claude = ScriptedBackend::saying(BackendKind::Claude, "far");
    let asked = claude.observed();
    let backends = Backends {
        claude: Some(Arc::new(claude)),
        ..Backends::default()
    };
    let mut client = Client::open(router_over(Settings::default(), backends), ERA).await;
    for (tool, arguments) in [
        (
            "complete_code",
            json!({ "prefix": "KEY=", "path": "/project/space/.env" }),
        ),
        ("complete_code", json!({ "prefix": "KEY=", "path": ".env" })),
        (
            "explain_code",
            json!({ "code": "KEY=1", "path": "deploy/.env.local" }),
        ),
        (
            "edit_code",
            json!({ "code": "k", "instruction": "x", "path": "file:///project/space/id_rsa" }),
        ),
        (
            "commit_message",
            json!({ "diff": "--- a/.env\n+++ b/.env\n@@ -0,0 +1 @@\n+KEY=1" }),
        ),
        (
            "summarize",
            json!({ "text": "--- a/.env\n+++ b/.env\n@@ -0,0 +1 @@\n+KEY=1" }),
        ),
        (
            "ask",
            json!({ "question": "?", "context": "--- a/.env\n+++ b/.env\n@@ -0,0 +1 @@\n+KEY=1" }),
        ),
    ] {
        let result = client.call(tool, arguments).await;
        assert_eq!(result["isError"], true, "{tool}: {result}");
        assert_eq!(
            result["_meta"]["tandem/error"]["kind"], "denied",
            "{tool}: {result}"
        );
        assert!(text(&result).ends_with('.'), "{result}");
    }
    assert_eq!(asked.started.load(Ordering::SeqCst), 0);
    let arguments = json!({ "diff": "--- a/src/a.rs\n+++ b/src/a.rs" });
    let result = client.call("commit_message", arguments).await;
    assert_eq!(text(&result), "far", "{result}");
}

#[tokio::test]
async fn an_empty_completion_is_no_error_and_says_why() {
    let mut client = Client::open(router(local(|_| Script::text(""))), ERA).await;
    let tools = client.ask("tools/list", json!({})).await;
    let result = client
        .call("complete_code", json!({ "prefix": "x = " }))
        .await;
    assert_eq!(result["isError"], false, "{result}");
    let data = &result["structuredContent"];
    assert_eq!(data["text"], "");
    assert!(data["empty"].is_string(), "{data}");
    // Model APIs refuse text blocks without text.
    assert!(!text(&result).is_empty());
    jsonschema::validate(&tools["tools"][0]["outputSchema"], data).unwrap();
    // An answer that is empty is none.
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(result["isError"], true, "{result}");
    assert!(text(&result).ends_with('.'), "{result}");
}

#[tokio::test]
async fn many_calls_at_once_get_one_reply_each() {
    let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        let params = json!({ "name": "ask", "arguments": { "question": "?" } });
        ids.push(client.request("tools/call", params).await);
    }
    for id in ids {
        let reply = client.reply(id).await;
        assert_eq!(reply["result"]["content"][0]["text"], "hi", "{reply}");
    }
    assert!(client.hang_up().await.is_empty());
}

#[tokio::test]
async fn a_backend_that_panics_is_an_error_and_the_session_lives_on() {
    let backend = local(|request| match &request.task {
        Task::Chat(chat) if chat.messages[0].text == "panic" => panic!("as the test wants"),
        _ => Script::text("hi"),
    });
    let mut client = Client::open(router(backend), ERA).await;
    let result = client.call("ask", json!({ "question": "panic" })).await;
    assert_eq!(result["isError"], true, "{result}");
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(text(&result), "hi");
}

#[tokio::test]
async fn a_question_with_a_schema_is_answered_as_data() {
    let schema = json!({
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
    });
    let ask = |more: Value| {
        let mut arguments = json!({ "question": "How old?", "schema": schema });
        for (name, value) in more.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        arguments
    };
    let (backend, heard) = listening(r#"{"age": 5}"#);
    let mut client = Client::open(router(backend), ERA).await;
    let tools = client.ask("tools/list", json!({})).await;
    let tool = &tools["tools"][5];
    let arguments = ask(json!({ "max_tokens": 77 }));
    jsonschema::validate(&tool["inputSchema"], &arguments).unwrap();
    let result = client.call("ask", arguments).await;
    assert_eq!(result["isError"], false, "{result}");
    jsonschema::validate(&tool["outputSchema"], &result["structuredContent"]).unwrap();
    assert_eq!(result["structuredContent"]["value"], json!({"age": 5}));
    assert_eq!(text(&result), r#"{"age": 5}"#);
    assert_eq!(heard.lock().unwrap()[0].max_tokens, 77);
    for (more, says) in [
        (json!({ "schema": {"type": "strin"} }), "/type"),
        (json!({ "schema": "string" }), "`schema`"),
        (json!({ "max_tokens": 0 }), "`max_tokens`"),
    ] {
        let result = client.call("ask", ask(more)).await;
        assert_eq!(result["isError"], true, "{result}");
        assert!(text(&result).contains(says), "{result}");
    }
    assert_eq!(heard.lock().unwrap().len(), 1);

    let mut client = Client::open(router(listening("Five.").0), ERA).await;
    let result = client.call("ask", ask(json!({}))).await;
    assert_eq!(result["isError"], true, "{result}");
    assert!(
        text(&result).contains("not valid by the schema"),
        "{result}"
    );
}
