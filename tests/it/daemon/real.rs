//! The program's own daemon with real models: answers by a schema, a model file that breaks, and a model
//! that is too slow.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tandem::config::LocalSettings;
use tandem::daemon::ModelSpec;
use tandem::daemon::client::{OnCrash, SharedBackend, status};
use tandem::inference::{
    AnswerSchema, Backend as _, BackendKind, Descriptor, ErrorKind, Event, FinishReason,
    GenerateRequest, Health, Sampling, Statistics, Task,
};
use tokio_util::sync::CancellationToken;

use super::fake::{Session, build, question};
use super::shared::{Home, daemon, embedded, process, session};
use crate::engine::fixture;

/// Has two strings, a number and one of three words, and an end.
fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "trade": {"enum": ["miller", "baker", "smith"]},
            "motto": {"type": "string", "pattern": "^[a-z]{2,9}$"},
        },
        "required": ["name", "age", "trade", "motto"],
        "additionalProperties": false,
    })
}

/// More than a model says in the time that a test takes to change its mind.
fn many() -> Value {
    json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 150})
}

fn by(json: Value, seed: u64) -> GenerateRequest {
    let mut request = question("?");
    if let Task::Chat(task) = &mut request.task {
        task.schema = Some(AnswerSchema::new(json).unwrap());
    }
    request.max_tokens = 400;
    request.sampling = Sampling {
        temperature: 1.5,
        seed,
        ..Sampling::GREEDY
    };
    request
}

/// The model at `path`, behind `session`'s link.
fn model(session: &Session, path: &Path, settings: &LocalSettings) -> SharedBackend {
    SharedBackend::new(
        Arc::clone(&session.link),
        ModelSpec::new(Some(path), settings).unwrap(),
        Descriptor {
            kind: BackendKind::Candle,
            model: "tiny".to_owned(),
            context_tokens: 512,
        },
        Health::Unloaded,
        None,
        Box::new(|| Err(std::io::Error::other("nothing is opened here"))),
        OnCrash::Fail,
    )
}

/// What the daemon has counted for qwen3-tiny.
async fn statistics(home: &Home) -> Statistics {
    let status = status(&home.place(), &build(0)).await.unwrap().unwrap();
    let tiny = status
        .models
        .iter()
        .find(|model| model.name == "qwen3-tiny");
    tiny.unwrap().statistics.unwrap()
}

/// A daemon, which commands that end at once use and do not start; and the session that holds it.
async fn started(home: &Home) -> Session {
    let session = session(home, daemon(home.folder.path(), &[]));
    let embedded = embedded(&session);
    // It only completes.
    let asked = embedded.generate(question("?"), CancellationToken::new());
    asked.collect().await.unwrap_err();
    session
}

#[tokio::test]
async fn a_live_daemon_answers_by_a_schema() {
    let home = Home::new();
    let session = session(&home, daemon(home.folder.path(), &[]));
    let tiny = model(
        &session,
        &fixture("qwen3-tiny.gguf"),
        &LocalSettings::default(),
    );
    let ask = |json: Value, seed| tiny.generate(by(json, seed), CancellationToken::new());
    for seed in 0..4 {
        let said = ask(person(), seed).collect().await.unwrap();
        assert_eq!(said.finish.reason, FinishReason::Stop, "{said:?}");
        let value = serde_json::from_str(&said.text).unwrap();
        jsonschema::validate(&person(), &value).unwrap();
    }
    let serving = process(&home).await;

    // Cancelled once it has begun.
    let cancel = CancellationToken::new();
    let mut stream = tiny.generate(by(many(), 1), cancel.clone());
    loop {
        match stream.next().await {
            Some(Event::Delta(text)) if text.is_empty() => {}
            Some(Event::Delta(text)) => {
                assert!(text.starts_with('['), "{text}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    cancel.cancel();
    drop(stream);
    // Refused by its keyword, which is nobody's fault.
    let error = ask(json!({"not": {"type": "string"}}), 1)
        .collect()
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("`not`"), "{error}");
    assert!(error.may_fall_back() && !error.is_backend_fault());
    // Nothing of that is left behind, and the next one is answered by the same daemon.
    let said = ask(person(), 5).collect().await.unwrap();
    jsonschema::validate(&person(), &serde_json::from_str(&said.text).unwrap()).unwrap();
    let seen = statistics(&home).await;
    assert_eq!(
        (seen.active, seen.waiting, seen.failed),
        (0, 0, 1),
        "{seen:?}"
    );
    assert_eq!(seen.answered + seen.cancelled, 6, "{seen:?}");
    assert_eq!(process(&home).await, serving);
    home.close().await;
}

/// Runs the program in `home`, whose sessions share a daemon.
fn run(home: &Home, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(args)
        .env_clear()
        .env("HOME", home.folder.path())
        .env("XDG_RUNTIME_DIR", home.folder.path())
        .current_dir(home.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn a_schema_holds_from_a_shell_and_from_an_agent_alike() {
    // Its prompt is short, as the model's context is.
    let choice = json!({"enum": ["yes", "no"]});
    let home = Home::new();
    let held = started(&home).await;
    let schema = home.folder.path().join("choice.json");
    fs::write(&schema, choice.to_string()).unwrap();
    let model = fixture("qwen3-tiny.gguf");
    let model = [
        "--local-only",
        "--no-embedded",
        "--model",
        model.to_str().unwrap(),
    ];
    let ask = ["ask", "?", "--max-tokens", "40", "--schema", "choice.json"];
    let (code, said, told) = run(&home, &[&ask[..], &model].concat(), "");
    assert_eq!(code, Some(0), "{told}");
    jsonschema::validate(&choice, &serde_json::from_str(&said).unwrap()).unwrap();
    let serving = process(&home).await;

    let call = |id: u32, schema: Value| {
        let arguments = json!({"question": "?", "max_tokens": 40, "schema": schema});
        json!({
            "jsonrpc": "2.0",
            "id": id,
            "method": "tools/call",
            "params": {"name": "ask", "arguments": arguments},
        })
        .to_string()
    };
    let hello = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    });
    let refused = json!({"not": {"const": 1}});
    let lines = [hello.to_string(), call(2, choice.clone()), call(3, refused)];
    let (_, said, told) = run(
        &home,
        &[&["mcp"][..], &model].concat(),
        &(lines.join("\n") + "\n"),
    );
    let answers: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let result = |id: u32| {
        let answer = answers.iter().find(|answer| answer["id"] == id);
        &answer.unwrap_or_else(|| panic!("{said} {told}"))["result"]
    };
    assert_eq!(result(2)["isError"], false, "{said}");
    jsonschema::validate(&choice, &result(2)["structuredContent"]["value"]).unwrap();
    assert_eq!(result(3)["isError"], true, "{said}");
    assert!(result(3).to_string().contains("`not`"), "{said}");
    // All three by one daemon, which has them in its count.
    assert_eq!(process(&home).await, serving);
    let seen = statistics(&home).await;
    assert_eq!((seen.answered, seen.failed), (2, 1), "{seen:?}");
    drop(held);
    home.close().await;
}

#[tokio::test]
async fn a_model_file_that_was_cut_is_told_and_loaded_once_it_is_whole() {
    let home = Home::new();
    let path = home.folder.path().join("model.gguf");
    let whole = fs::read(fixture("qwen3-tiny-q8_0.gguf")).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let session = session(&home, daemon(home.folder.path(), &[]));
    let tiny = model(&session, &path, &LocalSettings::default());
    let ask = || {
        tiny.generate(question("?"), CancellationToken::new())
            .collect()
    };
    let error = ask().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Backend);
    let told = error.to_string();
    assert!(told.contains("model.gguf"), "{told}");
    assert!(
        told.ends_with("cut short: download the model again."),
        "{told}"
    );
    let serving = process(&home).await;
    let Health::Failed { error, .. } = tiny.health().borrow().clone() else {
        panic!("it works")
    };
    assert!(error.contains("cut short"), "{error}");
    // Whoever downloads it again puts the whole file in its place.
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, &whole).unwrap();
    fs::rename(&fresh, &path).unwrap();
    let unloaded = |health: &Health| *health == Health::Unloaded;
    tiny.health().wait_for(unloaded).await.unwrap();
    assert!(ask().await.unwrap().finish.usage.completion_tokens > 0);
    assert_eq!(process(&home).await, serving);
    fs::remove_file(&path).unwrap();
    home.close().await;
}

#[tokio::test]
async fn a_model_that_is_too_slow_is_not_admitted_and_says_what_was_measured() {
    let home = Home::new();
    let held = started(&home).await;
    let path = home.folder.path().join("a.rs");
    fs::write(&path, "fn main() {\n    let x = \n}\n").unwrap();
    let model = fixture("qwen3-tiny.gguf");
    let model = model.to_str().unwrap();
    let slow = [
        "--local-only",
        "--set",
        "local.min_tokens_per_second=1000000",
    ];
    let complete = ["complete", "a.rs:2", "--json", "--model", model];
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (_, said, told) = run(&home, &[&complete[..], &slow].concat(), "");
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {told}"));
        answers.push((said["backend"].clone(), said["reason"].clone()));
    }
    // Measured when it is loaded, it leaves completions to the model inside the program.
    let embedded = (json!("embedded"), json!("local-degraded"));
    assert_eq!(answers, [embedded.clone(), embedded]);
    let (_, said, _) = run(
        &home,
        &[&["status", "--model", model][..], &slow].concat(),
        "",
    );
    let line = said.lines().find(|line| line.contains("qwen3-tiny"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    for told in [
        "degraded: the local model is too slow for completions: first token after ",
        " ms (at most 1000), then ",
        " tokens/s (at least 1000000). ",
        "Choose a smaller model, allow Claude, or lower `local.min_tokens_per_second`",
    ] {
        assert!(line.contains(told), "{line}");
    }
    // What any speed is enough for is admitted.
    let any = [
        "--set",
        "local.min_tokens_per_second=0",
        "--set",
        "local.max_first_token=10m",
    ];
    let any = [&["--local-only"][..], &any].concat();
    let (_, said, told) = run(&home, &[&complete[..], &any].concat(), "");
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {told}"));
    assert_eq!(said["backend"], "candle", "{said}");
    drop(held);
    home.close().await;
}
