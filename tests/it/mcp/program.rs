//! The program itself over real pipes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the program in an empty home with `input` on its standard input.
fn run(args: &[&str], input: &str) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(args)
        .env_clear()
        // Nothing that outlives the test.
        .env("TANDEM_DAEMON_ENABLED", "false")
        .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
        .env("HOME", home.path())
        .env("USERPROFILE", home.path())
        .env("APPDATA", home.path())
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

const INPUT: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    "\n",
    r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"ask","arguments":{"question":"What is in the red box?"}}}"#,
    "\n"
);

#[test]
fn requests_that_are_piped_in_are_answered_and_the_program_ends() {
    for args in [
        &["mcp", "--scripted-answer", "A blue ball."][..],
        &["--scripted-answer", "A blue ball."],
    ] {
        let ran = run(args, INPUT);
        assert!(ran.status.success(), "{ran:?}");
        let lines: Vec<Value> = String::from_utf8(ran.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["result"]["protocolVersion"], "2025-11-25");
        assert_eq!(lines[1]["result"]["content"][0]["text"], "A blue ball.");
    }
}

#[test]
fn no_log_holds_what_was_asked_or_answered() {
    let args = ["mcp", "--scripted-answer", "A blue ball.", "--log", "trace"];
    let ran = run(&args, INPUT);
    let log = String::from_utf8(ran.stderr).unwrap();
    assert!(!log.is_empty());
    for text in ["red box", "blue ball"] {
        assert!(!log.contains(text), "{log}");
    }
}
