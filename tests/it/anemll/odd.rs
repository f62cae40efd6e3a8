//! The pipeline on the second bundle, in which every size is another one: nothing is tuned to the first
//! (`tests/fixtures/anemll-odd/README.md`).

use std::fs;

use serde::Deserialize;
use tandem::backend::local::anemll::bundle::AnemllBundle;
use tandem::backend::local::anemll::contract::{ComponentSpec, StateId};
use tandem::backend::local::anemll::pipeline::Pipeline;
use tandem::backend::local::anemll::plan::Layout;
use tandem::backend::local::anemll::reference::ReferenceRuntime;
use tandem::backend::local::sampler::Scores;

use super::fixture;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    eos_cases: Vec<Case>,
    overflow: Case,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
    shift_before_step: Option<usize>,
    first_step_top5: Vec<Best>,
}

#[derive(Deserialize)]
struct Best {
    id: usize,
    logit: f32,
}

/// Tokens that stay when the window shifts: `min(max(1, 320/48 - 2) x 48, 320 - 48)`.
const KEPT: usize = 192;

fn cases() -> Vec<Case> {
    let text = fs::read(fixture("anemll-odd/golden.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&text).unwrap();
    let mut cases = golden.cases;
    cases.extend(golden.eos_cases);
    cases.push(golden.overflow);
    assert_eq!(cases.len(), 9);
    cases
}

fn pipeline() -> Pipeline {
    let bundle = AnemllBundle::open(&fixture("anemll-odd/anemll")).unwrap();
    let parts = bundle.components.iter();
    let specs: Vec<ComponentSpec> = parts.map(|part| part.spec.clone()).collect();
    let runtime = ReferenceRuntime::load(&specs, &fixture("anemll-odd/hf")).unwrap();
    Pipeline::new(Box::new(runtime), &Layout::from(&bundle)).unwrap()
}

fn best(scores: &Scores) -> u32 {
    let ranked = (0..).zip(&scores.logits);
    let best = ranked.max_by(|a: &(u32, _), b| a.1.total_cmp(b.1));
    best.unwrap().0
}

/// The greedy tokens of a case, the window shifted where its rule says so. The kept window is computed
/// over the old one, whose slots are still in the state.
fn greedy(pipeline: &mut Pipeline, case: &Case, state: StateId) -> Vec<u32> {
    let mut window = case.input_ids.clone();
    pipeline.prefill(&window, 0..window.len(), state).unwrap();
    let mut scores = Scores::default();
    let mut found = Vec::new();
    for step in 0..case.greedy.len() {
        if case.shift_before_step == Some(step) {
            window.drain(..window.len() - KEPT);
            pipeline.prefill(&window, 0..window.len(), state).unwrap();
        }
        let last = window.len() - 1;
        pipeline
            .next(window[last], last, state, &mut scores)
            .unwrap();
        if step == 0 {
            for best in &case.first_step_top5 {
                let difference = scores.logits[best.id] - best.logit;
                assert!(difference.abs() < 0.15, "{}: {difference}", case.name);
            }
        }
        found.push(best(&scores));
        window.push(*found.last().unwrap());
    }
    found
}

#[test]
fn every_golden_comes_out_in_batches_and_token_by_token() {
    let mut pipeline = pipeline();
    let mut shifted = 0;
    for batched in [true, false] {
        pipeline.use_batches(batched);
        for case in cases() {
            let state = pipeline.make_state().unwrap();
            let found = greedy(&mut pipeline, &case, state);
            assert_eq!(found, case.greedy, "{}, batched: {batched}", case.name);
            pipeline.drop_state(state);
            shifted += usize::from(case.shift_before_step.is_some());
        }
    }
    assert_eq!(shifted, 4, "two cases shift the window, on both paths");
}
