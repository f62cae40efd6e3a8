//! llama.cpp's figures, by its own `llama-bench`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::Samples;

/// `llama-bench` on a file.
pub struct Bench<'a> {
    /// The folder with llama.cpp's programs.
    pub folder: &'a Path,
    pub file: &'a Path,
    pub threads: usize,
}

impl Bench<'_> {
    /// What each test came to: its length, how many tokens were there before, and each round's rate.
    fn run(&self, what: &[&str]) -> anyhow::Result<Vec<(u64, u64, Vec<f64>)>> {
        let program = self.folder.join("llama-bench");
        let output = Command::new(&program)
            .arg("-m")
            .arg(self.file)
            .args(["-t", &self.threads.to_string(), "-o", "json"])
            .args(what)
            .output()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        if !output.status.success() {
            bail!("llama-bench: {}", String::from_utf8_lossy(&output.stderr));
        }
        let results: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
        let number = |result: &serde_json::Value, name: &str| result[name].as_u64().unwrap_or(0);
        let results = results.iter().map(|result| {
            let rates = result["samples_ts"].as_array().into_iter().flatten();
            (
                number(result, "n_prompt"),
                number(result, "n_depth"),
                rates.filter_map(serde_json::Value::as_f64).collect(),
            )
        });
        Ok(results.collect())
    }

    /// The figures of the table; those that take longest if `long`.
    pub fn measure(&self, long: bool) -> anyhow::Result<Samples> {
        let mut samples = Samples::new();
        let prompts: &[&[&str]] = &[
            &["-p", "64", "-r", "2"],
            &["-p", "512,1000", "-r", "1", "--no-warmup"],
            &["-p", "4000", "-r", "1", "--no-warmup"],
        ];
        for what in &prompts[..if long { 3 } else { 2 }] {
            for (length, _, rates) in self.run(&[what, &["-n", "0"][..]].concat())? {
                samples.insert(format!("prefill {length}"), rates);
            }
        }
        samples.extend(self.decode_at(&[128, 512, 2000])?);
        if !long {
            return Ok(samples);
        }
        let at_512 = samples
            .get("decode at 512")
            .cloned()
            .and_then(super::median);
        for (_, _, rates) in self.run(&["-p", "8", "-n", "0", "-d", "992", "-r", "2"])? {
            let times = rates.iter().map(|rate| 8.0 / rate * 1e3).collect();
            let key = "first token, 1,000 warm, last 8 changed";
            samples.insert(key.to_owned(), times);
        }
        for (_, _, rates) in self.run(&["-p", "4", "-n", "0", "-d", "512", "-r", "2"])? {
            if let (Some(four), Some(one)) = (super::median(rates), at_512) {
                let key = "batch of 4 over batch of 1";
                samples.insert(key.to_owned(), vec![4.0 / four * one]);
            }
        }
        Ok(samples)
    }

    /// Single tokens behind so many others.
    pub fn decode_at(&self, contexts: &[usize]) -> anyhow::Result<Samples> {
        let depths: Vec<String> = contexts.iter().map(ToString::to_string).collect();
        let depths = depths.join(",");
        let results = self.run(&["-p", "0", "-n", "16", "-d", &depths, "-r", "1"])?;
        let results = results.into_iter();
        Ok(results
            .map(|(_, depth, rates)| (format!("decode at {depth}"), rates))
            .collect())
    }
}
