//! A language client that does as little as it can, so that what it measures is the server.

use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::wire::{answer, frame, message, read_frame};

/// Far beyond any answer that is measured here.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and the conversation with it.
pub struct Client {
    child: Child,
    input: Arc<Mutex<ChildStdin>>,
    replies: Receiver<Reply>,
    reader: Option<JoinHandle<()>>,
    next_id: u64,
}

struct Reply {
    arrived: Instant,
    message: Value,
}

/// A request's answer and how long it took, from the first byte of the first message sent for it.
pub struct Answer {
    /// The round trip.
    pub took: Duration,
    /// The `result`.
    pub result: Value,
}

impl Client {
    /// Starts a server with pipes for its standard input and output.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let input = child.stdin.take().context("no pipe to the server")?;
        let output = child.stdout.take().context("no pipe from the server")?;
        let input = Arc::new(Mutex::new(input));
        let (sender, replies) = sync_channel(64);
        let answers = Arc::clone(&input);
        // Ends with the server's output, which ends with the server.
        let reader = std::thread::spawn(move || read_all(output, &answers, &sender));
        Ok(Self {
            child,
            input,
            replies,
            reader: Some(reader),
            next_id: 1,
        })
    }

    /// Shakes hands.
    pub fn initialize(&mut self, root: &str, options: &Value) -> anyhow::Result<Answer> {
        let params = json!({
            "processId": std::process::id(),
            "rootUri": root,
            "workspaceFolders": [{"uri": root, "name": "bench"}],
            "capabilities": {"textDocument": {"inlineCompletion": {}, "completion": {}}},
            "initializationOptions": options,
        });
        let answer = self.request("initialize", &params)?;
        self.notify("initialized", &json!({}))?;
        Ok(answer)
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: &Value) -> anyhow::Result<()> {
        self.write(&frame(&message(None, method, params)))
    }

    /// Sends a request and waits for its answer.
    pub fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Answer> {
        self.measure(None, method, params)
    }

    /// Sends a change and, behind it, a request; waits for the answer.
    pub fn change_and_request(
        &mut self,
        change: &Value,
        method: &str,
        params: &Value,
    ) -> anyhow::Result<Answer> {
        let change = frame(&message(None, "textDocument/didChange", change));
        self.measure(Some(&change), method, params)
    }

    fn measure(
        &mut self,
        first: Option<&[u8]>,
        method: &str,
        params: &Value,
    ) -> anyhow::Result<Answer> {
        let id = self.next_id;
        self.next_id += 1;
        let request = frame(&message(Some(id), method, params));
        let started = Instant::now();
        if let Some(first) = first {
            self.write(first)?;
        }
        self.write(&request)?;
        loop {
            let reply = self
                .replies
                .recv_timeout(PATIENCE)
                .with_context(|| format!("no answer to {method}"))?;
            if reply.message["id"] != json!(id) {
                continue;
            }
            if let Some(error) = reply.message.get("error") {
                bail!("{method} failed: {error}");
            }
            return Ok(Answer {
                took: reply.arrived - started,
                result: reply.message["result"].clone(),
            });
        }
    }

    /// Says goodbye and waits for the end; a server that does not end is ended.
    pub fn shut_down(mut self) -> anyhow::Result<()> {
        self.request("shutdown", &Value::Null)?;
        // A server may go without waiting for `exit`.
        let _ = self.notify("exit", &Value::Null);
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.child.try_wait()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.write_all(bytes)?;
        Ok(input.flush()?)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only for a server that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read_all(output: ChildStdout, answers: &Mutex<ChildStdin>, replies: &SyncSender<Reply>) {
    let mut output = BufReader::new(output);
    while let Some(body) = read_frame(&mut output) {
        let arrived = Instant::now();
        let Ok(message) = serde_json::from_slice::<Value>(&body) else {
            return;
        };
        if message["method"].is_null() {
            if replies.send(Reply { arrived, message }).is_err() {
                return;
            }
            continue;
        }
        let Some(answer) = answer(&message) else {
            continue;
        };
        let mut input = answers.lock().unwrap_or_else(PoisonError::into_inner);
        if input
            .write_all(&frame(&answer))
            .and_then(|()| input.flush())
            .is_err()
        {
            return;
        }
    }
}
