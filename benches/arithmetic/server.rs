//! llama.cpp's own server, for what it says of tokens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// A model takes a moment to load, on a busy machine many.
const START: Duration = Duration::from_mins(2);

/// A server that ends with this.
pub struct Server {
    process: Child,
    address: SocketAddr,
}

/// A token, and what was likely in its place, best first: ids and logarithms of probabilities.
pub struct Said {
    pub token: u32,
    pub likely: Vec<(u32, f64)>,
}

impl Server {
    /// Starts the `llama-server` of a folder on a model, on one thread: more would wait for each other on a
    /// machine that is busy, and say the same.
    pub fn start(folder: &Path, model: &Path) -> anyhow::Result<Self> {
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = folder.join("llama-server");
        let port = address.port().to_string();
        let process = Command::new(&program)
            .arg("-m")
            .arg(model)
            .args(["--host", "127.0.0.1", "--port", &port])
            .args(["-c", "1024", "-np", "1", "-t", "1", "-tb", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let mut server = Self { process, address };
        let started = Instant::now();
        while server.get("/health").is_err() {
            if let Some(status) = server.process.try_wait()? {
                bail!("{} ended with {status}", program.display());
            }
            ensure!(
                started.elapsed() < START,
                "{} does not serve",
                program.display()
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// The tokens of a text, in which special tokens are not looked for.
    pub fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let question = json!({"content": text, "add_special": false, "parse_special": false});
        let answer = self.post("/tokenize", &question)?;
        Ok(serde_json::from_value(answer["tokens"].clone())?)
    }

    /// What comes behind `prompt`, greedily: up to `most` tokens, `likely` others told of each; and
    /// whether the model ended before.
    pub fn complete(
        &self,
        prompt: &[u32],
        most: usize,
        likely: usize,
    ) -> anyhow::Result<(Vec<Said>, bool)> {
        let question = json!({
            "prompt": prompt, "n_predict": most, "temperature": 0.0, "n_probs": likely,
            "cache_prompt": true,
        });
        let answer = self.post("/completion", &question)?;
        let told = answer["completion_probabilities"].as_array();
        let said = told.into_iter().flatten().map(|told| {
            let number = |value: &Value| -> anyhow::Result<(u32, f64)> {
                let id = value["id"].as_u64().context("a token has no id")?;
                let logprob = value["logprob"]
                    .as_f64()
                    .context("a token has no logprob")?;
                Ok((u32::try_from(id)?, logprob))
            };
            let others = told["top_logprobs"].as_array().into_iter().flatten();
            Ok(Said {
                token: number(told)?.0,
                likely: others.map(number).collect::<anyhow::Result<_>>()?,
            })
        });
        let said = said.collect::<anyhow::Result<Vec<Said>>>()?;
        Ok((said, answer["stop_type"] == "eos"))
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(&format!("GET {path}"), "")
    }

    fn post(&self, path: &str, question: &Value) -> anyhow::Result<Value> {
        self.ask(&format!("POST {path}"), &question.to_string())
    }

    fn ask(&self, what: &str, body: &str) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        let length = body.len();
        write!(
            stream,
            "{what} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.context("llama-server ended the connection")? + 4);
        let head = String::from_utf8_lossy(head);
        ensure!(
            head.starts_with("HTTP/1.1 200 "),
            "llama-server does not answer {what}: {head}{}",
            String::from_utf8_lossy(body)
        );
        Ok(serde_json::from_slice(body)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
