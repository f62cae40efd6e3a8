//! One engine's figures, in a process of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use tandem::backend::local::ModelSource;
use tandem::backend::local::loader::{Arithmetic, Loaded, load_by};
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::Sequence;
use tandem::config::ComputeDevice;

use super::{Samples, machine};

/// What would take longer than this once is not measured.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// After so long nothing is measured again.
const ENOUGH: Duration = Duration::from_secs(6);
/// Tokens of a prompt that are computed at once, where they are not what is measured.
const BLOCK: usize = 250;

/// A model, and what it has computed so far.
struct Engine {
    model: Loaded,
    sequence: Sequence,
    rounds: usize,
    /// Seconds of a token of a prompt, by the longest that was measured.
    pace: f64,
    samples: Samples,
}

impl Engine {
    fn load(engine: &str, file: &Path, context: usize, rounds: usize) -> anyhow::Result<Self> {
        let arithmetic = match engine {
            "tandem" => Arithmetic::Packed,
            "candle" => Arithmetic::Candle,
            other => bail!("there is no engine {other}"),
        };
        let source = ModelSource::Gguf(file.to_owned());
        let started = Instant::now();
        let mut model = load_by(&source, context, ComputeDevice::Cpu, arithmetic)?;
        let load = started.elapsed().as_secs_f64();
        let sequence = model.model.sequence()?;
        let mut loaded = Self {
            model,
            sequence,
            rounds,
            pace: 0.0,
            samples: Samples::new(),
        };
        loaded.sample("load", load);
        // As it does where it has nothing to do.
        let started = Instant::now();
        while loaded.model.model.settle() {}
        loaded.sample(
            "into large pages, once idle",
            started.elapsed().as_secs_f64(),
        );
        // Once unmeasured: memory is touched for the first time.
        loaded.pace = loaded.step(0, 64)? / 64.0;
        Ok(loaded)
    }

    fn sample(&mut self, figure: &str, value: f64) {
        self.samples
            .entry(figure.to_owned())
            .or_default()
            .push(value);
    }

    /// Computes `count` tokens behind the first `from` of the sequence, the last one's logits with them;
    /// in seconds.
    fn step(&mut self, from: usize, count: usize) -> anyhow::Result<f64> {
        self.sequence.truncate(from);
        let tokens: Vec<u32> = (from..from + count)
            .map(|at| (at as u32).wrapping_mul(2_654_435_761) % 150_000)
            .collect();
        let mut scores = Scores::default();
        let started = Instant::now();
        self.model
            .model
            .forward(&tokens, &mut self.sequence, Some(&mut scores))?;
        let seconds = started.elapsed().as_secs_f64();
        if scores.logits.iter().any(|logit| !logit.is_finite()) {
            bail!("a logit is not finite");
        }
        Ok(seconds)
    }

    /// Seconds of a step, in up to `rounds` rounds; none where one would take too long.
    fn times(&mut self, rounds: usize, from: usize, count: usize) -> anyhow::Result<Vec<f64>> {
        if self.pace * count as f64 > PATIENCE.as_secs_f64() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let mut times = Vec::new();
        while times.len() < rounds && (times.is_empty() || started.elapsed() < ENOUGH) {
            times.push(self.step(from, count)?);
        }
        Ok(times)
    }

    fn prefill(&mut self, length: usize) -> anyhow::Result<()> {
        for seconds in self.times(self.rounds, 0, length)? {
            self.pace = seconds / length as f64;
            self.sample(&format!("prefill {length}"), length as f64 / seconds);
        }
        Ok(())
    }

    /// Makes the sequence this long, if it does not take too long.
    fn reach(&mut self, length: usize) -> anyhow::Result<bool> {
        let missing = length.saturating_sub(self.sequence.len());
        if self.pace * missing as f64 > PATIENCE.as_secs_f64() {
            return Ok(false);
        }
        self.sequence.truncate(length);
        while self.sequence.len() < length {
            let from = self.sequence.len();
            self.step(from, (length - from).min(BLOCK))?;
        }
        Ok(true)
    }

    fn decode(&mut self, at: usize) -> anyhow::Result<()> {
        for seconds in self.times(4 * self.rounds, at, 1)? {
            self.sample(&format!("decode at {at}"), 1.0 / seconds);
        }
        Ok(())
    }
}

/// Measures the engine of this name on `file`, with the longest prompt if `long`.
pub fn measure(engine: &str, file: &Path, rounds: usize, long: bool) -> anyhow::Result<Samples> {
    let mut engine = Engine::load(engine, file, 4096, rounds)?;
    for length in [64, 512, 1000] {
        engine.prefill(length)?;
    }
    if engine.reach(1000)? {
        for seconds in engine.times(2 * rounds, 992, 8)? {
            engine.sample("first token, 1,000 warm, last 8 changed", seconds * 1e3);
        }
    }
    if long {
        engine.rounds = 1;
        engine.prefill(4000)?;
        engine.rounds = rounds;
    }
    for at in [2000, 512, 128] {
        if !engine.reach(at)? {
            continue;
        }
        engine.decode(at)?;
        if at == 512 {
            let (ones, fours) = (engine.times(rounds, at, 1)?, engine.times(rounds, at, 4)?);
            if let (Some(one), Some(four)) = (super::median(ones), super::median(fours)) {
                engine.sample("batch of 4 over batch of 1", four / one);
            }
        }
    }
    engine.sample("file", file.metadata()?.len() as f64 / 1e6);
    for (figure, name) in [
        ("resident at peak", "VmHWM:"),
        ("resident beside the file's pages", "RssAnon:"),
    ] {
        if let Some(bytes) = machine::own_memory(name) {
            engine.sample(figure, bytes / 1e6);
        }
    }
    Ok(engine.samples)
}

/// Single tokens behind so many others, ascending. Those before are zeros in the cache and were never
/// computed, which for the larger models would take most of an hour: what a token costs depends on how many
/// there are, not on what they say.
pub fn decode_at(file: &Path, contexts: &[usize], rounds: usize) -> anyhow::Result<Samples> {
    let most = contexts.last().copied().unwrap_or(0) + 1;
    let mut engine = Engine::load("tandem", file, most, rounds)?;
    // However long it takes.
    engine.pace = 0.0;
    for at in contexts {
        let missing = at - engine.sequence.len().min(*at);
        engine.sequence.reserve(missing)?;
        engine.sequence.push(&vec![0; missing]);
        if let Some(cache) = engine.sequence.pages() {
            // Memory that was never written is the same page of zeros everywhere, and is read too fast.
            *cache = cache.copy_prefix(*at);
        }
        engine.decode(*at)?;
    }
    Ok(engine.samples)
}
