//! The server that is measured: the program with a home of its own, asked over pipes.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, Heard, result};
use crate::measure::edit;

/// How long a model may take until it answers: it may have to be downloaded or compiled.
const LOADING: Duration = Duration::from_mins(20);

/// How long a completion may take. The server's own limit is 15 seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks whether the model is loaded.
const LOOK: Duration = Duration::from_millis(100);

/// What is run.
#[derive(Debug, Clone)]
pub struct Setup {
    pub program: PathBuf,
    /// After `tandem lsp`.
    pub arguments: Vec<String>,
    /// Names of variables that are handed on, such as a key's.
    pub environment: Vec<String>,
}

/// A server, and the home that it and its daemon keep everything in.
pub struct Server {
    setup: Setup,
    home: TempDir,
    /// `None` once it has ended.
    client: Option<Client>,
    /// Why the last completion was empty.
    reason: Option<String>,
}

/// A document that the server has open.
#[derive(Debug, Clone)]
pub struct Document {
    pub uri: String,
    pub text: String,
    pub version: u64,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What is to be inserted at the cursor; empty if nothing is.
    pub text: String,
    /// Why that is so.
    pub reason: Option<String>,
    /// The item, for those who tell what became of it.
    pub item: Option<Value>,
}

impl Server {
    /// Starts the server and waits until its model answers.
    pub fn start(setup: &Setup) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let root = format!("file://{}", home.path().display());
        let mut command = Self::command(setup, &home);
        command.arg("lsp").args(&setup.arguments);
        let mut server = Self {
            setup: setup.clone(),
            client: Some(Client::start(&mut command, &root)?),
            home,
            reason: None,
        };
        server.warm_up()?;
        Ok(server)
    }

    fn command(setup: &Setup, home: &TempDir) -> Command {
        let mut command = Command::new(&setup.program);
        command
            .env_clear()
            .env("HOME", home.path())
            .current_dir(home.path());
        for name in &setup.environment {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    pub fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("it has not ended")
    }

    fn warm_up(&mut self) -> anyhow::Result<()> {
        let document = self.document("warm-up.rs", "fn main() {\n    let one = \n}\n".to_owned());
        self.open(&document, "rust")?;
        let until = Instant::now() + LOADING;
        loop {
            self.complete(&document, document.text.len() - 3)?;
            let status = self.client().request("tandem/status", &Value::Null)?;
            let state = status["state"].as_str().unwrap_or_default();
            if matches!(state, "healthy" | "degraded") {
                return self.close(&document);
            }
            if matches!(state, "absent" | "failed") || Instant::now() > until {
                let message = status["message"].as_str().unwrap_or("it does not say why");
                bail!("the model is {state}: {message}");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Who would be asked first.
    pub fn model(&mut self) -> anyhow::Result<String> {
        let status = self.client().request("tandem/status", &Value::Null)?;
        Ok(status["backends"][0]["model"]
            .as_str()
            .unwrap_or("unknown")
            .to_owned())
    }

    /// How many requests reached a model of this machine, as its daemon counts them; `None` where no
    /// daemon is, or nothing was asked of it.
    pub fn reached(&self) -> anyhow::Result<Option<u64>> {
        let output = Self::command(&self.setup, &self.home)
            .args(["status", "--json"])
            .output()?;
        let status: Value = serde_json::from_slice(&output.stdout).context("tandem status")?;
        let sessions = status["daemon"]["sessions"].as_array();
        Ok(sessions.map(|all| all.iter().filter_map(|one| one["requests"].as_u64()).sum()))
    }

    /// A document of the workspace that is not open yet.
    pub fn document(&self, path: &str, text: String) -> Document {
        let path: String = path
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'@' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect();
        Document {
            uri: format!("file://{}/{path}", self.home.path().display()),
            text,
            version: 1,
        }
    }

    pub fn open(&mut self, document: &Document, language: &str) -> anyhow::Result<()> {
        let params = json!({"textDocument": {
            "uri": document.uri, "languageId": language, "version": document.version,
            "text": document.text,
        }});
        self.client().notify("textDocument/didOpen", &params)
    }

    pub fn close(&mut self, document: &Document) -> anyhow::Result<()> {
        let params = json!({"textDocument": {"uri": document.uri}});
        self.client().notify("textDocument/didClose", &params)
    }

    /// Replaces bytes of a document.
    pub fn change(
        &mut self,
        document: &mut Document,
        bytes: std::ops::Range<usize>,
        by: &str,
    ) -> anyhow::Result<()> {
        let start = edit::position(&document.text, bytes.start);
        let end = edit::position(&document.text, bytes.end);
        document.version += 1;
        document.text.replace_range(bytes, by);
        let params = json!({
            "textDocument": {"uri": document.uri, "version": document.version},
            "contentChanges": [{"range": {"start": start, "end": end}, "text": by}],
        });
        self.client().notify("textDocument/didChange", &params)
    }

    /// Asks for a completion, as an editor does that was told to (1), or by itself (2); gives the
    /// request's number.
    pub fn ask(&mut self, document: &Document, cursor: usize, trigger: u8) -> anyhow::Result<u64> {
        let params = json!({
            "textDocument": {"uri": document.uri},
            "position": edit::position(&document.text, cursor),
            "context": {"triggerKind": trigger},
        });
        self.client().send("textDocument/inlineCompletion", &params)
    }

    /// Makes sense of what was heard: the answer to the request `id` about `document`, if it is that.
    pub fn answer(
        &mut self,
        heard: Heard,
        id: u64,
        document: &Document,
        cursor: usize,
    ) -> anyhow::Result<Option<Answer>> {
        if heard.message["method"] == "tandem/status" {
            let reason = heard.message["params"]["emptyReason"].as_str();
            self.reason = reason.map(str::to_owned);
        }
        if !heard.answers(id) {
            return Ok(None);
        }
        let mut result = result(heard.message)?;
        let Some(item) = result["items"].get_mut(0).map(Value::take) else {
            let reason = self.reason.take();
            ensure!(
                reason.is_some(),
                "an empty completion came without a reason"
            );
            return Ok(Some(Answer {
                text: String::new(),
                reason,
                item: None,
            }));
        };
        let text = edit::inserted(&document.text, cursor, &item).with_context(|| {
            format!(
                "an item does more than insert at the cursor of {}: {item}",
                document.uri
            )
        })?;
        Ok(Some(Answer {
            text,
            reason: None,
            item: Some(item),
        }))
    }

    /// Asks by hand and waits.
    pub fn complete(
        &mut self,
        document: &Document,
        cursor: usize,
    ) -> anyhow::Result<(Answer, Duration)> {
        let asked = Instant::now();
        let id = self.ask(document, cursor, 1)?;
        loop {
            let heard = self
                .client()
                .hear(asked + PATIENCE)?
                .with_context(|| format!("no completion in {} s", PATIENCE.as_secs()))?;
            let at = heard.at;
            if let Some(answer) = self.answer(heard, id, document, cursor)? {
                return Ok((answer, at - asked));
            }
        }
    }

    /// Ends the server and its daemon.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.client.take().map_or(Ok(()), Client::shut_down)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.client.take());
        // Where no daemon was there is none to stop.
        let _ = Self::command(&self.setup, &self.home)
            .args(["daemon", "stop"])
            .output();
    }
}
