//! What a token of a Core ML model costs above Core ML: `cargo bench --bench overhead`.
//!
//! The pipeline runs over a runtime that returns at once, in the sizes of Qwen3-0.6B: context 512,
//! batches of 64, logits in 16 parts of 9,496. What is left is our own: masks, positions, copies,
//! and choosing among 151,936 logits. Beside it stands choosing by sorting all of them, which is how
//! candle-coreml 0.3.1 does it (`utils::sampling::sample_top_k`). Medians over the rounds, and the
//! worst of them.
#![expect(clippy::print_stdout, reason = "a bench reports on stdout")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tandem::backend::local::anemll::bundle::{LogitsOutput, LogitsPart};
use tandem::backend::local::anemll::contract::{
    ComponentSpec, Element, FunctionSpec, MAIN, Role, RuntimeError, Shape, StateId, StateSpec,
    TensorSpec,
};
use tandem::backend::local::anemll::instant::InstantRuntime;
use tandem::backend::local::anemll::pipeline::Pipeline;
use tandem::backend::local::anemll::plan::{Layout, PartCalls};
use tandem::backend::local::sampler::{Sampler, Scores};
use tandem::inference::Sampling;

const CONTEXT: usize = 512;
const BATCH: usize = 64;
const HIDDEN: usize = 1024;
const PARTS: usize = 16;
const PART: usize = 9496;
const ROUNDS: usize = 300;

const FFN: Role = Role::Ffn { chunk: 1, of: 1 };

fn main() -> anyhow::Result<()> {
    let mut pipeline = Pipeline::new(Box::new(InstantRuntime::new(components())), &layout())?;
    let state = pipeline.make_state()?;
    let mut scores = Scores::default();

    let mut step = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let started = Instant::now();
        pipeline.next(1, 100 + round, state, &mut scores)?;
        step.push(started.elapsed());
    }
    report("a decode step, logits gathered as float32", &mut step);

    let warm = Sampling {
        temperature: 0.7,
        top_k: 40,
        top_p: 0.95,
        ..Sampling::GREEDY
    };
    for (what, sampling) in [
        ("a token, greedy: step and choice", Sampling::GREEDY),
        (
            "a token, sampled (top-k 40, top-p 0.95): step and choice",
            warm,
        ),
    ] {
        let mut sampler = Sampler::new(sampling);
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            let started = Instant::now();
            pipeline.next(1, 100 + round, state, &mut scores)?;
            black_box(sampler.choose(&mut scores, &[1, 2, 3])?);
            times.push(started.elapsed());
        }
        report(what, &mut times);
    }
    report(
        "for comparison: the choice alone, by sorting all logits",
        &mut sorted(&scores.logits),
    );
    report(
        "prefill, a batch of 64",
        &mut batches(&mut pipeline, state)?,
    );
    Ok(())
}

/// Choosing the best 40 by sorting everything.
fn sorted(logits: &[f32]) -> Vec<Duration> {
    let mut times = Vec::with_capacity(ROUNDS / 10);
    for _ in 0..ROUNDS / 10 {
        let started = Instant::now();
        let mut all: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(40);
        black_box(&all);
        times.push(started.elapsed());
    }
    times
}

fn batches(pipeline: &mut Pipeline, state: StateId) -> Result<Vec<Duration>, RuntimeError> {
    let tokens: Vec<u32> = (0..CONTEXT as u32).collect();
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let start = round % (CONTEXT / BATCH) * BATCH;
        let started = Instant::now();
        pipeline.prefill(&tokens, start..start + BATCH, state)?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what:<60} median {:>8.4} ms  worst {:>8.4} ms",
        milliseconds(times[times.len() / 2]),
        milliseconds(times[times.len() - 1])
    );
}

fn layout() -> Layout {
    let part = |role, infer: &str, prefill: Option<&str>| PartCalls {
        role,
        infer: infer.to_owned(),
        prefill: prefill.map(str::to_owned),
    };
    let logits = (1..=PARTS).map(|number| LogitsPart {
        name: format!("logits{number}"),
        size: PART,
    });
    Layout {
        context: CONTEXT,
        batch: Some(BATCH),
        parts: vec![
            part(Role::Embeddings, MAIN, Some(MAIN)),
            part(FFN, "infer", Some("prefill")),
            part(Role::LmHead, MAIN, None),
        ],
        logits: LogitsOutput::Parts(logits.collect()),
    }
}

fn tensor(name: &str, element: Element, shape: Shape) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        element,
        shape,
    }
}

/// The components as Anemll's converter declares them for Qwen3-0.6B.
fn components() -> Vec<ComponentSpec> {
    let half =
        |name: &str, shape: &[usize]| tensor(name, Element::Float16, Shape::Fixed(shape.to_vec()));
    let whole =
        |name: &str, shape: &[usize]| tensor(name, Element::Int32, Shape::Fixed(shape.to_vec()));
    let blocks = |name: &str, tokens: usize| FunctionSpec {
        name: name.to_owned(),
        inputs: vec![
            half("hidden_states", &[1, tokens, HIDDEN]),
            whole("position_ids", &[tokens]),
            half("causal_mask", &[1, 1, tokens, CONTEXT]),
            whole("current_pos", &[1]),
        ],
        outputs: vec![half("output_hidden_states", &[1, 1, HIDDEN])],
        states: vec![StateSpec {
            name: "model_model_kv_cache_0".to_owned(),
            element: Element::Float16,
            shape: vec![56, 8, CONTEXT, 128],
        }],
    };
    let only = |inputs, outputs| FunctionSpec {
        name: MAIN.to_owned(),
        inputs,
        outputs,
        states: Vec::new(),
    };
    let ids = Shape::Enumerated(vec![vec![1, 1], vec![1, BATCH]]);
    let logits = (1..=PARTS).map(|number| half(&format!("logits{number}"), &[1, 1, PART]));
    vec![
        ComponentSpec {
            role: Role::Embeddings,
            functions: vec![only(
                vec![tensor("input_ids", Element::Int32, ids)],
                vec![tensor("hidden_states", Element::Float16, Shape::Dynamic)],
            )],
        },
        ComponentSpec {
            role: FFN,
            functions: vec![blocks("infer", 1), blocks("prefill", BATCH)],
        },
        ComponentSpec {
            role: Role::LmHead,
            functions: vec![only(
                vec![half("hidden_states", &[1, 1, HIDDEN])],
                logits.collect(),
            )],
        },
    ]
}
