//! llama.cpp's figures, by its own `llama-bench`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::{Arguments, Figures};

/// Runs `program` on `file`.
pub fn measure(program: &Path, file: &Path, arguments: &Arguments) -> anyhow::Result<Figures> {
    let rounds = if arguments.quick { "2" } else { "4" };
    let run = |what: &[&str]| -> anyhow::Result<Vec<serde_json::Value>> {
        let output = Command::new(program)
            .arg("-m")
            .arg(file)
            .args([
                "-t",
                &arguments.threads.to_string(),
                "-r",
                rounds,
                "-o",
                "json",
            ])
            .args(what)
            .output()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        if !output.status.success() {
            bail!("llama-bench: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let rate = |result: &serde_json::Value| result["avg_ts"].as_f64();
    let mut figures = Figures::new();
    for result in run(&["-p", "64,512,1000", "-n", "0"])? {
        let length = result["n_prompt"].as_u64().unwrap_or(0);
        figures.extend(rate(&result).map(|rate| (format!("prefill {length}"), rate)));
    }
    for result in run(&["-p", "0", "-n", "16", "-d", "128,512,2000"])? {
        let depth = result["n_depth"].as_u64().unwrap_or(0);
        figures.extend(rate(&result).map(|rate| (format!("decode at {depth}"), rate)));
    }
    let at_512 = figures.get("decode at 512").copied();
    for result in run(&["-p", "4,8", "-n", "0", "-d", "512,992"])? {
        let (length, depth) = (result["n_prompt"].as_u64(), result["n_depth"].as_u64());
        let Some(rate) = rate(&result) else { continue };
        match (length, depth, at_512) {
            (Some(8), Some(992), _) => {
                let key = "first token, 1,000 warm, last 8 changed";
                figures.insert(key.to_owned(), 8.0 / rate * 1e3);
            }
            (Some(4), Some(512), Some(one)) => {
                figures.insert("batch of 4 over batch of 1".to_owned(), 4.0 / rate * one);
            }
            _ => {}
        }
    }
    Ok(figures)
}
