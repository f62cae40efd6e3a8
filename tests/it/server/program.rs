//! The whole program over a server that stands in: who answers, what is shown, and what a project may
//! say about it.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::stand_in::{end, stream, text};
use super::*;

/// What the server says, as it fits `a.py:11`.
const SAYS: &str = "[str, float]";

/// A home and a project in it, for a program that knows of nothing else.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write("a.py", include_str!("../../data/picture/stock.py"));
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    async fn run(&self, server: &StandIn, args: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(args)
            .env_clear()
            .env("HOME", self.path())
            .env("USERPROFILE", self.path())
            .env("APPDATA", self.path())
            .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
            // Nothing that outlives the test.
            .env("TANDEM_DAEMON_ENABLED", "false")
            .env("TANDEM_SERVER_BASE_URL", server.base_url())
            .env("TANDEM_SERVER_CONNECT_TIMEOUT", "10s")
            .env("TANDEM_SERVER_API_KEY", KEY)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        for shown in [&output.stdout, &output.stderr] {
            let shown = String::from_utf8_lossy(shown);
            assert!(!shown.contains(KEY), "{args:?}: {shown}");
        }
        output
    }

    async fn json(&self, server: &StandIn, args: &[&str]) -> Value {
        let output = self.run(server, args).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
    }
}

async fn llama() -> StandIn {
    StandIn::serve(Plays::LlamaServer, "m", Some(KEY), |asked| say(asked, SAYS)).await
}

#[tokio::test]
async fn a_completion_comes_from_the_server_and_says_so() {
    let (home, server) = (Home::new(), llama().await);
    let args = ["complete", "a.py:11", "--json", "--log", "trace"];
    let answer = home.json(&server, &args).await;
    assert_eq!(answer["completion"], SAYS, "{answer}");
    assert_eq!(answer["backend"], "server");
    assert_eq!(answer["model"], "served");
    assert_eq!(answer["reason"], "server-configured");
    assert_eq!(server.paths(), "/v1/models /infill");
    let asked = home.json(&server, &["ask", "--json", "why?"]).await;
    assert_eq!(
        (&asked["backend"], &asked["answer"]),
        (&"server".into(), &SAYS.into())
    );
}

#[tokio::test]
async fn doctor_tries_it_and_status_shows_it() {
    let (home, server) = (Home::new(), llama().await);
    let report = home
        .json(&server, &["doctor", "--json", "--no-embedded"])
        .await;
    let rows = report["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["backend"] == "server").unwrap();
    let outcomes: Vec<_> = row["checks"].as_array().unwrap().iter().collect();
    assert!(
        outcomes.iter().all(|check| check["outcome"] == "passed"),
        "{row}"
    );
    assert_eq!(row["checks"][1]["seen"], format!("{SAYS:?}"), "{row}");
    assert_eq!(
        (&row["model"], &row["matters"]),
        (&"m".into(), &true.into())
    );
    assert_eq!(report["verdict"], "passed");

    let before = server.paths();
    let status = home.json(&server, &["status", "--json"]).await;
    assert_eq!(status["backends"][0]["kind"], "server", "{status}");
    assert_eq!(status["backends"][0]["health"]["state"], "unloaded");
    assert_eq!(status["server"], server.base_url());
    assert_eq!(status["server_key"], "TANDEM_SERVER_API_KEY");
    let words = home.run(&server, &["status"]).await;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("key from TANDEM_SERVER_API_KEY"), "{words}");
    assert!(words.contains("not asked yet"), "{words}");
    let config = home.json(&server, &["config", "show", "--json"]).await;
    assert_eq!(config["server_key"], "TANDEM_SERVER_API_KEY");
    assert_eq!(server.paths(), before, "to show it, nobody asks it");
}

#[tokio::test]
async fn what_is_wrong_with_it_fails_in_doctor_and_says_what_to_do() {
    let home = Home::new();
    let server = StandIn::serve(Plays::LlamaServer, "m", Some("another"), |asked| {
        say(asked, "never")
    })
    .await;
    let args = ["doctor", "--json", "--no-embedded"];
    let output = home.run(&server, &args).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["backend"] == "server").unwrap();
    assert_eq!(row["checks"][0]["outcome"], "failed", "{row}");
    let next = row["checks"][0]["next_step"].as_str().unwrap();
    assert!(next.contains("TANDEM_SERVER_API_KEY"), "{row}");
    // Somebody else completes meanwhile, and it is said why.
    let output = home.run(&server, &["complete", "a.py:11", "--json"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["backend"], &answer["reason"]),
        (&"embedded".into(), &"fell-back".into())
    );
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        note.contains("since the inference server does not"),
        "{note}"
    );
}

#[tokio::test]
async fn nothing_goes_there_where_nothing_may_leave() {
    let (home, server) = (Home::new(), llama().await);
    let answer = home
        .json(&server, &["--local-only", "complete", "a.py:11", "--json"])
        .await;
    assert_eq!(answer["backend"], "embedded");
    let report = home
        .json(
            &server,
            &["--local-only", "doctor", "--json", "--no-embedded"],
        )
        .await;
    let rows = report["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["backend"] == "server").unwrap();
    assert_eq!(row["checks"][0]["outcome"], "skipped", "{row}");
    home.write(".tandem.yaml", "mode: local-only\n");
    let answer = home.json(&server, &["complete", "a.py:11", "--json"]).await;
    assert_eq!(answer["backend"], "embedded");
    home.write(".tandem.yaml", "privacy: {deny: ['*.py']}\n");
    let answer = home.json(&server, &["complete", "a.py:11", "--json"]).await;
    assert_eq!(answer["backend"], "embedded");
    // A project cannot say where text goes.
    for line in [
        "base_url: 'http://127.0.0.1:1'",
        "api_key_command: [sh]",
        "model: m",
    ] {
        home.write(".tandem.yaml", &format!("server: {{{line}}}\n"));
        let output = home.run(&server, &["complete", "a.py:11"]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    assert_eq!(*server.counts().borrow(), Counts::default());
}

#[tokio::test]
async fn an_answer_by_a_schema_that_reached_its_length_may_be_whole() {
    let home = Home::new();
    home.write("schema.json", r#"{"type": ["object", "integer"]}"#);
    for (says, expected) in [
        // A server that lets a model add white space without end.
        ("{\"a\": 1}\n\n  \n", Ok(r#"{"a": 1}"#)),
        (r#"{"a": "#, Err("before its JSON was complete")),
        // There may have been more digits.
        ("1", Err("before its JSON was complete")),
        // One that does not hold the model to anything.
        ("Sure: {}", Err("it is not JSON")),
    ] {
        let server = StandIn::serve(Plays::Vllm, "m", Some(KEY), move |asked| {
            let mut pieces = vec![text(asked.path, says)];
            pieces.extend(end(asked.path, "length"));
            stream(pieces)
        })
        .await;
        let output = home
            .run(&server, &["ask", "--schema", "schema.json", "Which?"])
            .await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        match expected {
            Ok(value) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert_eq!(said.trim(), value, "{stderr}");
            }
            Err(why) => {
                assert_eq!(output.stdout, b"", "{says}");
                assert!(stderr.contains(why), "{says}: {stderr}");
            }
        }
    }
}
