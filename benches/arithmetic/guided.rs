//! What it costs to hold an answer to a JSON Schema: the same number of tokens with a grammar and without,
//! in turns.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;
use tandem::backend::local::ModelSource;
use tandem::backend::local::continuation::Pace;
use tandem::backend::local::decode::{DecodeRequest, Decoding, Step};
use tandem::backend::local::guide::Guide;
use tandem::backend::local::loader::{Loaded, load};
use tandem::backend::local::sampler::Scores;
use tandem::config::ComputeDevice;
use tandem::inference::{AnswerSchema, Sampling};

/// Tokens of an answer, and of the prompt before it.
const ANSWER: usize = 64;
const PROMPT: usize = 128;

/// As `tandem ask` has it.
const SAMPLING: Sampling = Sampling {
    temperature: 0.7,
    top_k: 20,
    top_p: 0.8,
    ..Sampling::GREEDY
};

/// Records with a text and a number, more of them than there is room for: the answer goes on.
fn schema() -> anyhow::Result<AnswerSchema> {
    let record = json!({
        "type": "object",
        "properties": {"text": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["text", "count"],
        "additionalProperties": false,
    });
    let json = json!({"type": "array", "items": record, "minItems": 500});
    Ok(AnswerSchema::new(json)?)
}

/// A row for `file`: tokens a second of both, and the median of their ratio over the rounds.
pub fn measure(file: &Path, quick: bool) -> anyhow::Result<String> {
    let source = ModelSource::Gguf(file.to_owned());
    let mut model = load(&source, 2048, ComputeDevice::Cpu)?;
    let schema = schema()?;
    let ends = Arc::new(HashSet::new());
    // The first one makes what all of them share.
    model.tokenizer.grammar(&schema, &ends)?;
    let mut ratios = Vec::new();
    let (mut seconds, mut making) = ([0.0; 2], Vec::new());
    let rounds = if quick { 5 } else { 15 };
    for round in 0..=rounds {
        let mut took = [0.0; 2];
        for turn in 0..2 {
            let held = (round + turn) % 2;
            let guide = if held == 1 {
                let started = Instant::now();
                let grammar = model.tokenizer.grammar(&schema, &ends)?;
                making.push(started.elapsed().as_secs_f64() * 1e3);
                Guide::by(grammar)
            } else {
                Guide::default()
            };
            took[held] = say(&mut model, guide, round as u64)?;
        }
        // The first round is not measured: memory is touched for the first time.
        if round > 0 {
            ratios.push(took[1] / took[0]);
            seconds[0] += took[0];
            seconds[1] += took[1];
        }
    }
    let rate = |seconds: f64| (rounds * (ANSWER - 1)) as f64 / seconds;
    Ok(format!(
        "| {:.1} | {:.1} | {:.3} | {:.2} |",
        rate(seconds[0]),
        rate(seconds[1]),
        median(ratios),
        median(making),
    ))
}

/// Says an answer; the seconds of all its tokens but the first.
fn say(model: &mut Loaded, guide: Guide, seed: u64) -> anyhow::Result<f64> {
    let prompt = (0..PROMPT as u64).map(|at| ((at + seed) * 7919 % 60_000) as u32);
    let request = DecodeRequest {
        prompt: prompt.collect(),
        sampling: Sampling { seed, ..SAMPLING },
        max_tokens: ANSWER,
        ends: Arc::new(HashSet::new()),
        stop: Vec::new(),
        guide,
        lookup: None,
    };
    let computes = model.model.as_mut();
    let sequence = computes.sequence()?;
    let mut decoding = Decoding::new(request, computes, sequence, Pace::default());
    let mut scores = Scores::default();
    let mut first = None;
    loop {
        let step = decoding.step(computes, &model.tokenizer, &mut scores)?;
        if !decoding.answer().is_empty() {
            first.get_or_insert_with(Instant::now);
        }
        if let Step::Finished(..) = step {
            break;
        }
    }
    ensure!(decoding.answer().len() == ANSWER, "the answer ended early");
    Ok(first.context("nothing was said")?.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
