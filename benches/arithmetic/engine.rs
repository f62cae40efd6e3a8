//! One engine's figures, in a process of its own.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use tandem::backend::local::ModelSource;
use tandem::backend::local::loader::{Arithmetic, Loaded, load_by};
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::Sequence;
use tandem::config::ComputeDevice;

use super::{Figures, machine};

/// Measures the engine of this name on `file`.
pub fn measure(engine: &str, file: &Path, quick: bool) -> anyhow::Result<Figures> {
    let arithmetic = match engine {
        "tandem" => Arithmetic::Packed,
        "candle" => Arithmetic::Candle,
        other => bail!("there is no engine {other}"),
    };
    let rounds = if quick { 3 } else { 5 };
    let mut figures = Figures::new();
    let started = Instant::now();
    let source = ModelSource::Gguf(file.to_owned());
    let mut model = load_by(&source, 4096, ComputeDevice::Cpu, arithmetic)?;
    figures.insert("load".to_owned(), started.elapsed().as_secs_f64());
    let mut sequence = model.model.sequence()?;
    // Once unmeasured: memory is touched for the first time.
    step(&mut model, &mut sequence, 0, 64)?;
    for length in [64, 512, 1000] {
        let seconds = median(rounds, || step(&mut model, &mut sequence, 0, length))?;
        figures.insert(format!("prefill {length}"), length as f64 / seconds);
    }
    // The sequence holds 1,000 tokens now.
    let seconds = median(2 * rounds, || step(&mut model, &mut sequence, 992, 8))?;
    let key = "first token, 1,000 warm, last 8 changed";
    figures.insert(key.to_owned(), seconds * 1e3);
    for at in [128, 512, 2000] {
        sequence.truncate(at.min(sequence.len()));
        while sequence.len() < at {
            let from = sequence.len();
            step(&mut model, &mut sequence, from, (at - from).min(250))?;
        }
        let one = median(4 * rounds, || step(&mut model, &mut sequence, at, 1))?;
        figures.insert(format!("decode at {at}"), 1.0 / one);
        if at == 512 {
            let four = median(2 * rounds, || step(&mut model, &mut sequence, at, 4))?;
            figures.insert("batch of 4 over batch of 1".to_owned(), four / one);
        }
    }
    figures.insert("file".to_owned(), file.metadata()?.len() as f64 / 1e6);
    if let Some(bytes) = machine::own_memory("VmHWM:") {
        figures.insert("resident at peak".to_owned(), bytes / 1e6);
    }
    if let Some(bytes) = machine::own_memory("RssAnon:") {
        figures.insert("resident beside the file's pages".to_owned(), bytes / 1e6);
    }
    Ok(figures)
}

/// Computes `count` tokens behind the first `from` of the sequence, the last one's logits with them; in
/// seconds.
fn step(
    model: &mut Loaded,
    sequence: &mut Sequence,
    from: usize,
    count: usize,
) -> anyhow::Result<f64> {
    sequence.truncate(from);
    let tokens: Vec<u32> = (from..from + count)
        .map(|at| (at as u32).wrapping_mul(2_654_435_761) % 150_000)
        .collect();
    let mut scores = Scores::default();
    let started = Instant::now();
    model.model.forward(&tokens, sequence, Some(&mut scores))?;
    let seconds = started.elapsed().as_secs_f64();
    if scores.logits.iter().any(|logit| !logit.is_finite()) {
        bail!("a logit is not finite");
    }
    Ok(seconds)
}

fn median(rounds: usize, mut run: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(run()?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
