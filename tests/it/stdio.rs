//! The real program over real pipes: which protocol it speaks, what is on stdout, how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Notifications that came between replies.
    told: Vec<Value>,
    _home: TempDir,
}

impl Program {
    /// The program, answering every request with the same text.
    fn scripted(args: &[&str]) -> Self {
        Self::start(&[&["--scripted-answer", "answer"], args].concat())
    }

    fn start(args: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(args)
            .env_clear()
            // Nothing that outlives the test.
            .env("TANDEM_DAEMON_ENABLED", "false")
            .env("HOME", home.path())
            .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
            .env("USERPROFILE", home.path())
            .env("APPDATA", home.path())
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            told: Vec::new(),
            _home: home,
        }
    }

    fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        self.write(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// The next message; nothing else may stand between messages.
    fn receive(&mut self) -> Option<Value> {
        let mut header = String::new();
        if self.stdout.read_line(&mut header).unwrap() == 0 {
            return None;
        }
        let length = header
            .strip_prefix("Content-Length: ")
            .and_then(|rest| rest.strip_suffix("\r\n"))
            .unwrap_or_else(|| panic!("{header:?} is no header"));
        let mut body = vec![0; length.parse::<usize>().unwrap() + 2];
        self.stdout.read_exact(&mut body).unwrap();
        assert_eq!(&body[..2], b"\r\n");
        Some(serde_json::from_slice(&body[2..]).unwrap())
    }

    fn call(&mut self, id: i64, method: &str, params: &Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let message = self.receive().unwrap();
            if message["id"] == id && message.get("method").is_none() {
                assert!(message.get("error").is_none(), "{message}");
                return message["result"].clone();
            }
            self.told.push(message);
        }
    }

    fn notify(&mut self, method: &str, params: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    fn handshake(&mut self) {
        let result = self.call(0, "initialize", &json!({"capabilities": {}}));
        assert!(result["capabilities"]["inlineCompletionProvider"].is_object());
        self.notify("initialized", &json!({}));
    }

    /// Opens a document and gets a completion, whatever it is, at its end.
    fn completes_a_sum(&mut self) {
        let text = "def total(items):\n    result = 0\n    for item in items:\n        result += ";
        let document =
            json!({"uri": "untitled:a", "languageId": "python", "version": 1, "text": text});
        self.notify("textDocument/didOpen", &json!({"textDocument": document}));
        let result = self.call(
            1,
            "textDocument/inlineCompletion",
            &json!({
                "textDocument": {"uri": "untitled:a"},
                "position": {"line": 3, "character": 18},
                "context": {"triggerKind": 1},
            }),
        );
        let inserted = result["items"][0]["insertText"].as_str().unwrap();
        assert!(inserted.len() > "        result += ".len(), "{inserted:?}");
    }

    /// The exit code, with what was on stdout besides messages read before, and on stderr.
    fn end(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap();
        while self.receive().is_some() {}
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        (code, stderr)
    }
}

#[test]
fn an_editor_is_served_and_exit_ends_the_process_while_its_input_is_open() {
    for args in [&[][..], &["lsp"]] {
        let mut program = Program::scripted(args);
        program.handshake();
        let document =
            json!({"uri": "untitled:a", "languageId": "rust", "version": 1, "text": "let a = "});
        program.notify("textDocument/didOpen", &json!({"textDocument": document}));
        let result = program.call(
            1,
            "textDocument/inlineCompletion",
            &json!({
                "textDocument": {"uri": "untitled:a"},
                "position": {"line": 0, "character": 8},
                "context": {"triggerKind": 1},
            }),
        );
        assert_eq!(
            result["items"][0]["insertText"], "let a = answer",
            "{args:?}"
        );
        program.call(2, "shutdown", &Value::Null);
        program.notify("exit", &Value::Null);
        assert_eq!(program.end(), (0, String::new()), "{args:?}");
    }
}

#[test]
fn an_end_without_shutdown_has_its_own_code() {
    let mut program = Program::scripted(&["lsp"]);
    program.handshake();
    program.notify("exit", &Value::Null);
    assert_eq!(program.end().0, 1);
    let mut program = Program::scripted(&["lsp"]);
    program.handshake();
    program.stdin = None;
    assert_eq!(program.end().0, 1);
}

#[test]
fn what_is_neither_protocol_is_refused_with_the_next_step() {
    for (input, expected) in [("GET / HTTP/1.1\r\n", "tandem lsp"), ("", "--help")] {
        let mut program = Program::scripted(&[]);
        program.write(input);
        program.stdin = None;
        let (code, stderr) = program.end();
        assert_ne!(code, 0);
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn an_editors_completion_comes_from_a_bundles_components() {
    let bundle = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/anemll-tiny/anemll"
    );
    let mut program = Program::start(&[
        "lsp",
        "--model",
        bundle,
        "--set",
        "local.runtime=reference",
        "--no-embedded",
    ]);
    program.handshake();
    program.completes_a_sum();
    program.call(2, "shutdown", &Value::Null);
    let answered = program.told.iter().any(|message| {
        let status = &message["params"];
        message["method"] == "tandem/status"
            && status["backend"] == "core-ml"
            && status["model"] == "anemll"
            // Which of two it is depends on whether the load was quicker than the request.
            && matches!(status["reason"].as_str(), Some("local-healthy" | "local-loading"))
    });
    assert!(answered, "{:?}", program.told);
    program.notify("exit", &Value::Null);
    assert_eq!(program.end(), (0, String::new()));
}

#[test]
#[cfg(not(any(feature = "metal", feature = "cuda")))]
fn the_embedded_model_answers_an_editor_whose_gpu_is_not_built_in() {
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/qwen3-tiny.gguf"
    );
    for gpu in ["metal", "cuda"] {
        let device = format!("local.device={gpu}");
        let mut program = Program::start(&[
            "lsp",
            "--model",
            model,
            "--set",
            &device,
            "--mode",
            "local-only",
        ]);
        program.handshake();
        program.completes_a_sum();
        let feature = format!("--features {gpu}");
        let refused = |message: &Value| {
            let told = &message["params"]["message"];
            told.as_str().is_some_and(|told| told.contains(&feature))
        };
        // The answer does not wait for the model that fails to load.
        while !program.told.iter().any(refused) {
            let message = program.receive().unwrap();
            program.told.push(message);
        }
        program.call(2, "shutdown", &Value::Null);
        let told = program.told.iter().map(|message| &message["params"]);
        let answered: Vec<&Value> = told
            .filter(|params| params["reason"].is_string())
            .map(|params| &params["backend"])
            .collect();
        assert!(!answered.is_empty(), "{gpu}: {:?}", program.told);
        assert!(
            answered.iter().all(|backend| **backend == "embedded"),
            "{gpu}: {:?}",
            program.told
        );
        program.notify("exit", &Value::Null);
        assert_eq!(program.end().0, 0);
    }
}
