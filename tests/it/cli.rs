//! The command line, as people and scripts meet it: the real program in a clean environment.

mod install;
mod schema;
mod told;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home folder with nothing in it but what a test puts there.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command
            .args(args)
            .env_clear()
            // Nothing that outlives the test.
            .env("TANDEM_DAEMON_ENABLED", "false")
            .env("HOME", self.path())
            // Windows cannot start a process without it, nor find a profile without the other.
            .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
            .env("USERPROFILE", self.path())
            .env("APPDATA", self.path().join(".config"))
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        Ran::from(child.wait_with_output().unwrap())
    }
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[test]
fn a_completion_goes_to_standard_output_and_nothing_else_does() {
    let home = Home::new();
    home.write("a.rs", "fn main() {\n    let x = \n}\n");
    let ran = home.run(&["complete", "a.rs:2", "--scripted-answer", "41 + 1;"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "41 + 1;\n", "")
    );

    let ran = home.run(&[
        "complete",
        "a.rs:2:13",
        "--json",
        "--scripted-answer",
        "41 + 1;",
    ]);
    let json = ran.json();
    assert_eq!(json["completion"], "41 + 1;");
    assert_eq!(json["backend"], "scripted");
    assert!(
        json["reason"].is_string() && json["milliseconds"].is_number(),
        "{json}"
    );
    assert_eq!(json["tokens"]["completion"], 1);

    let ran = home.run(&[
        "complete",
        "a.rs:2",
        "--show",
        "--scripted-answer",
        "41 + 1;",
    ]);
    assert_eq!(
        ran.stdout, "fn main() {\n    let x = 41 + 1;\n}\n",
        "no styles in a pipe"
    );

    let ran = home.run_with_input(
        &["complete", "--stdin", "new.py:1", "--scripted-answer", "1"],
        "x = ",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "1\n"), "{ran:?}");
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let home = Home::new();
    home.write("a.rs", "fn main() {\n");
    home.write("latin1.txt", "x");
    std::fs::write(home.path().join("latin1.txt"), [0xe9]).unwrap();
    let scripted = ["--scripted-answer", "x"];
    for (args, code, told) in [
        (&["complete", "a.rs:1"][..], 0, ""),
        (&["complete", "nowhere.rs:1"], 1, "cannot be read"),
        (&["complete", "latin1.txt:1"], 1, "not UTF-8"),
        #[cfg(unix)]
        (&["complete", "/dev/zero:1"], 1, "larger than 16 MiB"),
        (&["complete", "a.rs"], 2, "FILE:LINE"),
        (
            &["complete", "a.rs:9"],
            2,
            "line 9 is past the end. Choose one from 1 to 2.",
        ),
        (
            &["complete", "a.rs:1:99"],
            2,
            "column 99 is past the end. Choose one from 1 to 12.",
        ),
        (&["complete"], 2, "required"),
        (&["comlete", "a.rs:1"], 2, "complete"),
        (
            &["complete", "a.rs:1", "--mode", "sideways"],
            2,
            "local-only",
        ),
        (
            &["complete", "a.rs:1", "--set", "completion.max_tokns=1"],
            2,
            "`completion.max_tokens`",
        ),
        (
            &["complete", "a.rs:1", "--set", "nonsense"],
            2,
            "has no `=`",
        ),
        (
            &["complete", "a.rs:1", "--log", "lo=ud=est"],
            2,
            "no filter",
        ),
        (
            &["complete", "a.rs:1", "--config", "none.yaml"],
            2,
            "no such file",
        ),
        (
            &["complete", "a.rs:1", "--scripted-answer="],
            3,
            "nothing to suggest",
        ),
        (
            &["complete", "a.rs:1", "--set", "completion.enabled=false"],
            4,
            "completion.enabled",
        ),
        (
            &["schema", "nonsense"],
            2,
            "`tandem schema` lists their names",
        ),
    ] {
        let own = args.iter().any(|arg| arg.starts_with("--scripted-answer"));
        let args: Vec<&str> = if own || args[0] != "complete" {
            args.to_vec()
        } else {
            args.iter().copied().chain(scripted).collect()
        };
        let ran = home.run(&args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(told), "{args:?}: {ran:?}");
        assert!(code == 0 || ran.stdout.is_empty(), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_place() {
    let home = Home::new();
    home.write("a.rs", "fn main() {\n");
    home.write(
        ".config/tandem/config.yaml",
        "mode: auto\ncompletoin:\n  max_tokens: 3\n",
    );
    let ran = home.run(&["complete", "a.rs:1", "--scripted-answer", "x"]);
    assert_eq!(ran.code, Some(2));
    let place = Path::new(".config").join("tandem").join("config.yaml");
    let place = home.path().join(place);
    let expected = format!(
        "tandem: {}:2: unknown key `completoin`. Did you mean `completion`?\n",
        place.display()
    );
    assert_eq!(ran.stderr, expected);
    home.write(".config/tandem/config.yaml", "");
    home.write(".tandem.yaml", "mode: claude-only\n");
    let ran = home.run(&["complete", "a.rs:1", "--scripted-answer", "x"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains(".tandem.yaml:1: `mode` cannot be `claude-only`"),
        "{ran:?}"
    );
}

#[test]
fn every_value_shows_where_it_comes_from_and_the_key_never_shows() {
    const KEY: &str = "sk-ant-very-secret";
    let home = Home::new();
    home.write(
        ".config/tandem/config.yaml",
        "completion:\n  candidates: 5\nlog:\n  filter: trace\n",
    );
    home.write(".tandem.yaml", "mode: local-only\n");
    home.write("a.rs", "fn main() {\n");
    let with_key = |args: &[&str]| {
        let mut command = home.command(args);
        command.env("ANTHROPIC_API_KEY", KEY);
        // Nobody listens there; nothing is sent while a project says local-only.
        command.env("ANTHROPIC_BASE_URL", "http://127.0.0.1:9");
        Ran::from(command.output().unwrap())
    };
    let shown = with_key(&[
        "config",
        "show",
        "--json",
        "--set",
        "completion.max_tokens=7",
    ]);
    let json = shown.json();
    let origin = |key: &str| json["keys"][key]["origins"][0].as_str().unwrap().to_owned();
    assert_eq!(json["claude_key"], "ANTHROPIC_API_KEY");
    assert_eq!(origin("completion.max_tokens"), "--set");
    assert!(origin("completion.candidates").ends_with("config.yaml"));
    assert!(origin("mode").ends_with(".tandem.yaml"));
    assert_eq!(origin("claude.base_url"), "ANTHROPIC_BASE_URL");
    assert_eq!(origin("completion.debounce"), "default");
    assert_eq!(json["keys"]["mode"]["value"], "local-only");
    let all = [
        with_key(&["config", "show"]),
        with_key(&["status"]),
        with_key(&["status", "--json"]),
        with_key(&["complete", "a.rs:1", "--log", "trace"]),
        with_key(&["ask", "why?", "--log", "trace"]),
        with_key(&["lsp", "--log", "trace"]),
        with_key(&["mcp", "--log", "trace"]),
        shown,
    ];
    for ran in all {
        assert!(
            !ran.stdout.contains(KEY) && !ran.stderr.contains(KEY),
            "{ran:?}"
        );
    }
    assert!(
        with_key(&["status"])
            .stdout
            .contains("from ANTHROPIC_API_KEY")
    );
}

#[test]
fn a_configuration_can_be_started_and_found() {
    let home = Home::new();
    let ran = home.run(&["config", "init"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let path = home.run(&["config", "path"]).stdout;
    let text = std::fs::read_to_string(path.trim()).unwrap();
    assert_eq!(home.run(&["config", "init", "--stdout"]).stdout, text);
    assert_eq!(
        home.run(&["config", "show"]).code,
        Some(0),
        "what is written can be read"
    );
    let again = home.run(&["config", "init"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("there is one already"), "{again:?}");
    let mut command = home.command(&["config", "path"]);
    command.env("TANDEM_CONFIG", "other.yaml");
    let other = Ran::from(command.output().unwrap());
    assert!(other.stdout.trim().ends_with("other.yaml"), "{other:?}");
}

#[test]
fn questions_are_answered_with_what_is_piped_in() {
    let home = Home::new();
    let ran = home.run_with_input(
        &["ask", "what", "is", "this?", "--scripted-answer", "A test."],
        "x",
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "A test.\n", "")
    );
    let ran = home.run(&["ask", "why?", "--json", "--scripted-answer", "Because."]);
    let json = ran.json();
    assert_eq!(
        (&json["answer"], &json["complete"]),
        (&"Because.".into(), &true.into())
    );
    let ran = home.run(&["ask", "why?", "--local-only", "--no-embedded"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr.trim_end().ends_with('.'),
        "ends with the next step: {ran:?}"
    );
}

#[test]
fn shell_completions_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!(ran.code, Some(0));
        for word in ["complete", "--local-only", "status"] {
            let word = word.trim_start_matches('-');
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn help_tells_the_exit_codes_and_hides_what_is_for_benches() {
    let home = Home::new();
    let ran = home.run(&["--help"]);
    assert_eq!(ran.code, Some(0));
    for word in ["Exit codes:", "complete", "--model", "--set"] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
    assert!(!ran.stdout.contains("scripted"));
}

#[test]
fn the_schemas_in_the_repository_are_those_of_the_types() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = repository.join("schemas");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        let ran = Home::new().run(&["schema", "--write", committed.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let home = Home::new();
    let ran = home.run(&["schema", "--write", "fresh"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let fresh = files(&home.path().join("fresh"));
    let advice = "run `cargo run -- schema --write schemas` and commit what it writes";
    let names = |files: &[(String, String)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    let committed = files(&committed);
    assert_eq!(names(&committed), names(&fresh), "{advice}");
    for ((name, committed), (_, fresh)) in committed.iter().zip(&fresh) {
        assert!(
            committed == fresh,
            "schemas/{name} is out of step with the types: {advice}"
        );
        let schema: Value = serde_json::from_str(fresh).unwrap();
        assert!(schema["$schema"].is_string(), "{name}");
    }
    let listed = home.run(&["schema"]).stdout;
    for name in listed.lines() {
        assert_eq!(home.run(&["schema", name]).code, Some(0), "{name}");
    }
    assert_eq!(listed.lines().count(), fresh.len());
}

/// Every file below `folder` by its relative name, with line feeds alone.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                found.push((
                    name,
                    std::fs::read_to_string(path).unwrap().replace("\r\n", "\n"),
                ));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = Home::new();
    let mut child = home
        .command(&["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_model_inside_the_program_completes_code_and_says_so() {
    let home = Home::new();
    home.write(
        "a.py",
        "def add(a, b):\n    return \n\n\ndef sub(a, b):\n    return a - b\n",
    );
    let ran = home.run(&["complete", "a.py:2", "--json", "--local-only"]);
    let json = ran.json();
    // Whether it has anything to say here is the model's affair; that it was asked is not.
    assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
    assert_eq!(json["backend"], "embedded", "{json}");
    assert_eq!(json["model"], "tandem-mini", "{json}");
    let prompt = json["tokens"]["prompt"].as_u64();
    assert!(ran.code == Some(3) || prompt > Some(10), "{json}");
    let ran = home.run(&["complete", "a.py:2", "--local-only", "--no-embedded"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let ran = home.run(&["complete", "a.py:2", "--model", "nowhere.gguf", "--json"]);
    assert_eq!(ran.json()["backend"], "embedded", "falls back: {ran:?}");
}

/// A command asks once, so it waits for the model it was given and lets no other stand in.
#[test]
fn a_command_waits_for_the_model_it_was_given() {
    let home = Home::new();
    home.write("a.rs", "fn main() {\n    \n}\n");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for name in ["qwen3-tiny.gguf", "qwen2-tiny"] {
        let model = fixtures.join(name);
        let command = ["--local-only", "--model", model.to_str().unwrap()];
        let ran = home.run(&[&command[..], &["complete", "a.rs:2", "--json"]].concat());
        // Its weights are random: what it says matters less than that it was asked.
        assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
        assert_eq!(ran.json()["backend"], "candle", "{ran:?}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_told_whoever_answers() {
    let home = Home::new();
    home.write("a.rs", "");
    home.write("broken.gguf", "GGUF");
    for (model, told) in [
        ("none.gguf", "none.gguf: there is no such file. Check"),
        ("broken.gguf", "broken.gguf"),
    ] {
        let complete = ["--model", model, "complete", "a.rs:1"];
        let ran = home.run(&complete);
        assert!(ran.stderr.contains("embedded answers"), "{ran:?}");
        assert!(ran.stderr.contains(told), "{ran:?}");
        for more in [&["--no-embedded"][..], &["--no-embedded", "--local-only"]] {
            let ran = home.run(&[&complete[..], more].concat());
            assert_ne!(ran.code, Some(0), "{ran:?}");
            assert!(ran.stderr.contains(told), "{ran:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_session_in_good_order() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let home = Home::new();
        let mut child = home
            .command(&["lsp", "--scripted-answer", "x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its first answer says that it listens to signals by now.
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}"#;
        let mut stdin = child.stdin.take().unwrap();
        write!(stdin, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut first = [0; 14];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        assert_eq!(&first, b"Content-Length");
        let killed = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{signal}");
        drop(stdin);
    }
}

#[test]
fn the_first_byte_decides_what_is_spoken() {
    let home = Home::new();
    let lsp = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}"#;
    let lsp = format!("Content-Length: {}\r\n\r\n{lsp}", lsp.len());
    let ran = home.run_with_input(&["--stdio", "--scripted-answer", "x"], &lsp);
    assert!(ran.stdout.starts_with("Content-Length: "), "{ran:?}");
    assert_eq!(ran.code, Some(1), "the client left without `shutdown`");
    let mcp = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
        r#""capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#,
        "\n"
    );
    let ran = home.run_with_input(&["--scripted-answer", "x"], mcp);
    let first: Value = serde_json::from_str(ran.stdout.lines().next().unwrap_or_default()).unwrap();
    assert_eq!(
        (first["id"].as_i64(), ran.code),
        (Some(1), Some(0)),
        "{ran:?}"
    );
    let ran = home.run_with_input(&[], "hello");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("tandem lsp"), "{ran:?}");
}

#[test]
fn an_editor_that_starts_the_mcp_server_tells_its_settings() {
    let home = Home::new();
    let input = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
        r#""capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#,
        "\n",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        "\n",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"status","arguments":{}}}"#,
        "\n"
    );
    let mode = |settings: &str| {
        let args = [
            "--scripted-answer",
            "x",
            "mcp",
            "--editor-settings",
            settings,
        ];
        let ran = home.run_with_input(&args, input);
        let reply = ran.stdout.lines().find(|line| line.contains(r#""id":2"#));
        let reply: Value = serde_json::from_str(reply.unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let mode = reply["result"]["structuredContent"]["mode"].clone();
        (mode, ran.stderr)
    };
    assert_eq!(mode(r#"{"mode":"local-only"}"#).0, "local-only");
    assert_eq!(mode("{}").0, "auto");
    // What cannot be read may have meant to forbid it.
    let (unreadable, said) = mode(r#"{"mode":"quiet"}"#);
    assert_eq!(unreadable, "local-only");
    assert!(said.contains("Nothing leaves this machine"), "{said}");
    let ran = home.run(&["mcp", "--editor-settings", "mode: local-only"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("is not JSON"), "{ran:?}");
}
