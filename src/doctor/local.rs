//! The checklist of a model on this machine: a bundle by one of its runtimes, or a whole model by
//! the portable engine.

use std::path::Path;
use std::time::Instant;

use super::{Examination, Measured, Outcome, Row, Step};
use crate::backend::local::anemll::bundle::AnemllBundle;
use crate::backend::local::anemll::choice::{RuntimeName, System, to_try};
use crate::backend::local::anemll::contract::{Shape, TensorSpec};
use crate::backend::local::anemll::runtimes;
use crate::backend::local::greedy::{Greedy, Model, greedy};
use crate::backend::local::probe::{Floor, TOO_SLOW};
use crate::backend::local::{ModelSource, device};
use crate::config::{BundleRuntime, ComputeDevice, ComputeEngine};
use crate::inference::{BackendKind, GenerateError, Speed};
use crate::prompt::Vocabulary;
use crate::prompt::profile::Profile;

/// What is continued.
const PROMPT: &str = "fn main() {\n    let x = ";

/// Tokens that are generated: enough for a rate, few on a slow machine.
const TOKENS: usize = 24;

/// Tokens generated behind each prompt of the prefill comparison.
const COMPARED: usize = 4;

/// The largest difference of a logit between the two ways to compute a prompt: half precision in
/// other orders of summing. Random models were seen to differ by 0.085 at most.
const TOLERANCE: f32 = 0.25;

/// A bundle by the runtime `name`. One that was not asked for and that this system lacks is told,
/// not failed.
pub(super) fn bundle(
    folder: &Path,
    name: RuntimeName,
    asked: bool,
    examination: &Examination<'_>,
) -> Row {
    let mut row = Row::new(BackendKind::CoreMl.as_str(), asked);
    row.runtime = Some(name.to_string());
    let started = Instant::now();
    let bundle = match AnemllBundle::open(folder) {
        Ok(bundle) => bundle,
        Err(error) => {
            row.matters = true;
            let next = error.next_step().to_owned();
            row.told(Step::Configuration, Outcome::Failed, error.facts(), next);
            return row;
        }
    };
    row.model = Some(bundle.name.clone());
    row.passed(Step::Download, folder.display().to_string(), None);
    let seen = format!(
        "version {}, context {}, batch {}, {} layers, vocabulary {}",
        bundle.version,
        bundle.context_length,
        bundle
            .batch_size
            .map_or_else(|| "none".to_owned(), |batch| batch.to_string()),
        bundle.layers,
        bundle.vocabulary
    );
    row.passed(Step::Configuration, seen, Some(started));
    let names: Vec<String> = bundle
        .components
        .iter()
        .map(|part| part.spec.role.name())
        .collect();
    row.passed(Step::Components, names.join(", "), None);
    row.passed(Step::TensorSpecs, specs(&bundle), None);

    if let Err(why) = to_try(Some(name), System::here()) {
        let (seen, next) = why.split_once(". ").unwrap_or((&why, ""));
        let outcome = if asked {
            Outcome::Failed
        } else {
            Outcome::Skipped
        };
        row.told(Step::Initialization, outcome, seen, next);
        return row;
    }
    let started = Instant::now();
    let opened = runtimes::open(name, &bundle, examination.weights)
        .and_then(|runtime| Model::of_components(&bundle, runtime));
    let mut model = match opened {
        Ok(model) => model,
        Err(error) => {
            // Without the original weights there is nothing to check against, which is no fault.
            let unasked = name == RuntimeName::Reference && !asked;
            let outcome = if unasked {
                Outcome::Skipped
            } else {
                Outcome::Failed
            };
            row.matters = asked || !unasked;
            row.told(
                Step::Initialization,
                outcome,
                error.message,
                error.next_step,
            );
            return row;
        }
    };
    row.matters = asked || name != RuntimeName::Reference;
    row.passed(
        Step::Initialization,
        "all components are loaded",
        Some(started),
    );
    row.prompts = Some(prompts(model.profile()));
    generate(&mut row, &mut model, examination.floor);
    compare_prefill(&mut row, &mut model, &bundle);
    if let Some(observed) = model.observed() {
        row.requested = Some(observed.requested);
        let shares: Vec<String> = observed
            .neural_engine_share
            .iter()
            .map(|(place, share)| format!("{place} {:.0} % on the Neural Engine", share * 100.0))
            .chain(observed.notes)
            .collect();
        if !shares.is_empty() {
            row.observed = Some(shares.join("; "));
        }
    }
    row
}

/// A whole model by the portable engine.
pub(super) fn whole(
    source: &ModelSource,
    kind: BackendKind,
    device: ComputeDevice,
    examination: &Examination<'_>,
) -> Row {
    let mut row = Row::new(kind.as_str(), true);
    row.model = Some(source.name());
    try_whole(&mut row, source, device, examination);
    row
}

/// A GPU that no row of a model tells about: tried with the whole model at `model`, where this build can.
pub(super) fn gpu(model: Option<&Path>, gpu: ComputeDevice, examination: &Examination<'_>) -> Row {
    let name = gpu.as_str();
    let mut row = Row::new(name, false);
    row.requested = Some(name.to_owned());
    if let Err(error) = device::open(gpu) {
        row.told(
            Step::Initialization,
            Outcome::Skipped,
            error.fact,
            error.next_step,
        );
        return row;
    }
    let Some(model) = model else {
        row.told(
            Step::Generation,
            Outcome::Skipped,
            "the device is there, and no GGUF file or folder with safetensors to try on it",
            "Name one with --model.",
        );
        return row;
    };
    let source = ModelSource::at(model, BundleRuntime::Auto);
    row.model = Some(source.name());
    // What was chosen is for the device that was.
    let examination = Examination {
        engine: ComputeEngine::Auto,
        ..examination.clone()
    };
    try_whole(&mut row, &source, gpu, &examination);
    row
}

/// A profile in words, its name first.
pub(super) fn prompts(profile: &Profile) -> String {
    format!("{}: {}", profile.name, profile.about)
}

fn try_whole(
    row: &mut Row,
    source: &ModelSource,
    device: ComputeDevice,
    examination: &Examination<'_>,
) {
    row.requested = Some(device.as_str().to_owned());
    let started = Instant::now();
    let mut model = match Model::whole(source, device, examination.engine) {
        Ok(model) => model,
        Err(error) => return failed(row, Step::Initialization, error),
    };
    row.observed = model.placement().observed;
    row.prompts = Some(prompts(model.profile()));
    row.passed(Step::Initialization, "loaded", Some(started));
    generate(row, &mut model, examination.floor);
}

/// Holds the runtimes that generated to each other.
pub(super) fn compare(rows: &mut [Row]) {
    let said = |row: &Row| {
        let generated = row
            .checks
            .iter()
            .find(|check| check.step == Step::Generation)?;
        (generated.outcome == Outcome::Passed).then(|| generated.seen.clone())
    };
    let Some((first, expected)) = rows
        .iter()
        .find_map(|row| Some((row.runtime.clone()?, said(row)?)))
    else {
        return;
    };
    for row in rows
        .iter_mut()
        .filter(|row| row.runtime.as_ref() != Some(&first))
    {
        if said(row).is_some_and(|said| said != expected) {
            row.told(
                Step::OutputQuality,
                Outcome::Warned,
                format!("it generates other tokens than {first}"),
                "Report both rows; until then set `local.runtime` to the one that makes sense.",
            );
        }
    }
}

fn generate(row: &mut Row, model: &mut Model, floor: Floor) {
    let prompt = match model.tokenizer().encode(PROMPT) {
        Ok(prompt) if !prompt.is_empty() => prompt,
        Ok(_) => vec![0],
        Err(error) => return failed(row, Step::Generation, error),
    };
    let started = Instant::now();
    let first = match greedy(model, &prompt, TOKENS, |_| {}) {
        Ok(first) => first,
        Err(error) => return failed(row, Step::Generation, error),
    };
    row.passed(
        Step::Generation,
        format!("{} tokens: {:?}", first.tokens.len(), first.text),
        Some(started),
    );
    // What is measured next is its speed in use, where it has a moment for this.
    model.settle();
    match greedy(model, &prompt, TOKENS, |_| {}) {
        Ok(again) if again.tokens == first.tokens => {
            row.passed(Step::RuntimeErrors, "none, and the same answer twice", None);
            quality(row, &first);
            speed(row, &again, prompt.len(), floor);
        }
        Ok(_) => row.told(
            Step::RuntimeErrors,
            Outcome::Failed,
            "it gave two answers to the same question",
            "Download the model again; if that does not help, choose another one.",
        ),
        Err(error) => failed(row, Step::RuntimeErrors, error),
    }
}

fn failed(row: &mut Row, step: Step, error: GenerateError) {
    row.told(step, Outcome::Failed, error.message, error.next_step);
}

fn quality(row: &mut Row, said: &Greedy) {
    let stuck = said.tokens.len() > 8 && said.tokens.iter().all(|token| *token == said.tokens[0]);
    if stuck {
        row.told(
            Step::OutputQuality,
            Outcome::Warned,
            "it says the same token over and over",
            "Compare with another runtime: `tandem doctor --runtime reference`.",
        );
    } else if !said.tokens.is_empty() {
        row.passed(
            Step::OutputQuality,
            "the answer goes somewhere; read it above",
            None,
        );
    } else {
        row.told(
            Step::OutputQuality,
            Outcome::Warned,
            "it ends its answer at once",
            "Try another prompt: `tandem generate --text ...`.",
        );
    }
}

fn speed(row: &mut Row, said: &Greedy, prompt_tokens: usize, floor: Floor) {
    let first_token_ms = said.first_token.as_secs_f64() * 1e3;
    let others = said.tokens.len().saturating_sub(1);
    if others == 0 {
        let next = "Ask for a longer answer with `tandem generate`.";
        row.told(
            Step::Speed,
            Outcome::Skipped,
            "too few tokens to measure",
            next,
        );
        return;
    }
    let tokens_per_second = others as f64 / said.others.as_secs_f64().max(1e-9);
    let speed = Speed {
        first_token_ms,
        tokens_per_second,
    };
    let admitted = floor.admits(speed);
    row.measured = Some(Measured {
        first_token_ms,
        prompt_tokens,
        tokens_per_second,
        admitted: Some(admitted),
    });
    let measured = format!(
        "{}, for {prompt_tokens} tokens of prompt",
        floor.beside(speed)
    );
    if admitted {
        let seen = format!("admitted for completions: {measured}");
        row.passed(Step::Speed, seen, None);
    } else {
        let seen = format!("too slow for completions: {measured}");
        row.told(Step::Speed, Outcome::Warned, seen, TOO_SLOW);
    }
}

/// Prompts of several lengths, in batches and token by token: both must give the same.
fn compare_prefill(row: &mut Row, model: &mut Model, bundle: &AnemllBundle) {
    let Some(batch) = bundle.batch_size else {
        return;
    };
    let rows = bundle.tokenizer_tokens.max(1);
    let room = bundle.context_length.saturating_sub(COMPARED + 2);
    let started = Instant::now();
    let mut lengths = vec![10, batch, batch + 1, 200];
    lengths.retain(|length| (1..room).contains(length));
    lengths.dedup();
    let mut worst = 0_f32;
    for length in &lengths {
        // Any tokens will do; a stride that is no divisor of the vocabulary scatters them.
        let prompt: Vec<u32> = (0..*length).map(|at| (at * 7919 % rows) as u32).collect();
        let mut said = Vec::new();
        for batched in [true, false] {
            model.use_batches(batched);
            match greedy(model, &prompt, COMPARED, |_| {}) {
                Ok(tokens) => said.push(tokens),
                Err(error) => {
                    model.use_batches(true);
                    return failed(row, Step::RuntimeErrors, error);
                }
            }
        }
        model.use_batches(true);
        let pairs = said[0].first_step.iter().zip(&said[1].first_step);
        let apart = pairs
            .map(|(a, b)| (a.logit - b.logit).abs())
            .fold(0.0, f32::max);
        worst = worst.max(apart);
        if said[0].tokens != said[1].tokens && apart > TOLERANCE {
            row.told(
                Step::OutputQuality,
                Outcome::Failed,
                format!(
                    "a prompt of {length} tokens gives {:?} in batches and {:?} token by token",
                    said[0].tokens, said[1].tokens
                ),
                "Tandem then computes prompts token by token, which is slower; report it.",
            );
            return;
        }
    }
    row.passed(
        Step::OutputQuality,
        format!(
            "prompts of {lengths:?} tokens give the same in batches of {batch} and token by token \
             (logits within {worst:.3})"
        ),
        Some(started),
    );
}

/// Every function with its inputs and outputs.
fn specs(bundle: &AnemllBundle) -> String {
    let described = |tensor: &TensorSpec| match &tensor.shape {
        Shape::Fixed(shape) => format!("{} {shape:?}", tensor.name),
        Shape::Enumerated(shapes) => format!("{} one of {shapes:?}", tensor.name),
        Shape::Dynamic => format!("{} of open shape", tensor.name),
    };
    let mut told = Vec::new();
    for part in &bundle.components {
        for function in &part.spec.functions {
            let inputs: Vec<String> = function.inputs.iter().map(described).collect();
            let outputs = match function.outputs.as_slice() {
                [only] => described(only),
                several => format!("{} outputs", several.len()),
            };
            told.push(format!(
                "{} {}: {} -> {outputs}",
                part.spec.role.name(),
                function.name,
                inputs.join(", ")
            ));
        }
    }
    told.join("; ")
}
