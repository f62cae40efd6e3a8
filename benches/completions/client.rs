//! A language client that can do other things while an answer is on its way.

use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::wire;

/// Far beyond any answer that is measured here.
const PATIENCE: Duration = Duration::from_mins(2);

/// Messages that may wait to be looked at; while they do, the server is not read.
const WAITING: usize = 256;

/// A server and the conversation with it.
pub struct Client {
    child: Child,
    input: Arc<Mutex<ChildStdin>>,
    heard: Receiver<Heard>,
    reader: Option<JoinHandle<()>>,
    next_id: u64,
}

/// What the server said: a reply or a notification.
pub struct Heard {
    pub at: Instant,
    pub message: Value,
}

impl Heard {
    /// Whether it is the reply to the request of this number.
    pub fn answers(&self, id: u64) -> bool {
        self.message["method"].is_null() && self.message["id"] == json!(id)
    }
}

impl Client {
    /// Starts a server and shakes hands.
    pub fn start(command: &mut Command, root: &str) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let input = child.stdin.take().context("no pipe to the server")?;
        let output = child.stdout.take().context("no pipe from the server")?;
        let input = Arc::new(Mutex::new(input));
        let (sender, heard) = sync_channel(WAITING);
        let answers = Arc::clone(&input);
        // Ends with the server's output, which ends with the server.
        let reader = std::thread::spawn(move || listen(output, &answers, &sender));
        let mut client = Self {
            child,
            input,
            heard,
            reader: Some(reader),
            next_id: 1,
        };
        let params = json!({
            "processId": std::process::id(),
            "rootUri": root,
            "workspaceFolders": [{"uri": root, "name": "bench"}],
            "capabilities": {"textDocument": {"inlineCompletion": {}}},
        });
        client.request("initialize", &params)?;
        client.notify("initialized", &json!({}))?;
        Ok(client)
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: &Value) -> anyhow::Result<()> {
        write(&self.input, &wire::message(None, method, params))
    }

    /// Sends a request and gives its number.
    pub fn send(&mut self, method: &str, params: &Value) -> anyhow::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        write(&self.input, &wire::message(Some(id), method, params))?;
        Ok(id)
    }

    /// What the server says next, `None` if it says nothing until then.
    pub fn hear(&mut self, until: Instant) -> anyhow::Result<Option<Heard>> {
        let patience = until.saturating_duration_since(Instant::now());
        match self.heard.recv_timeout(patience) {
            Ok(heard) => Ok(Some(heard)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the server is gone: run it by hand with the same arguments to see why")
            }
        }
    }

    /// Sends a request and waits for its result; what else is heard meanwhile is forgotten.
    pub fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let id = self.send(method, params)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let heard = self
                .hear(until)?
                .with_context(|| format!("no answer to {method} in {} s", PATIENCE.as_secs()))?;
            if heard.answers(id) {
                return result(heard.message);
            }
        }
    }

    /// Says goodbye and waits for the end; a server that does not end is ended.
    pub fn shut_down(mut self) -> anyhow::Result<()> {
        self.request("shutdown", &Value::Null)?;
        // A server may go without waiting for `exit`.
        let _ = self.notify("exit", &Value::Null);
        // Its output ends when it ends.
        let until = Instant::now() + Duration::from_secs(5);
        while self.hear(until).is_ok_and(|heard| heard.is_some()) {}
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only for a server that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The reader ends with the output, unless it waits for somebody to take what it heard.
        while self.heard.recv().is_ok() {}
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The result of a reply.
pub fn result(mut reply: Value) -> anyhow::Result<Value> {
    if let Some(error) = reply.get("error") {
        bail!("the server failed: {error}");
    }
    Ok(reply["result"].take())
}

fn listen(output: ChildStdout, answers: &Mutex<ChildStdin>, heard: &SyncSender<Heard>) {
    let mut output = BufReader::new(output);
    while let Some(body) = wire::read_frame(&mut output) {
        let at = Instant::now();
        let Ok(message) = serde_json::from_slice::<Value>(&body) else {
            return;
        };
        let ended = match wire::answer(&message) {
            Some(answer) => write(answers, &answer).is_err(),
            None => heard.send(Heard { at, message }).is_err(),
        };
        if ended {
            return;
        }
    }
}

fn write(input: &Mutex<ChildStdin>, message: &Value) -> anyhow::Result<()> {
    let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
    input.write_all(&wire::frame(message))?;
    Ok(input.flush()?)
}
