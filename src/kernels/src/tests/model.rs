//! A whole model held to itself: by other kernels, on more threads, in other batches, from a cache that
//! was cut back or copied.

use super::Random;
use crate::cache::Cache;
use crate::format::Stored;
use crate::kernels::Kernels;
use crate::matrix::Matrix;
use crate::model::{BATCH, Dimensions, Layer, Model, Projection, Weights};

const SIZES: Dimensions = Dimensions {
    hidden: 256,
    intermediate: 512,
    heads: 8,
    kv_heads: 2,
    head_dim: 32,
    vocabulary: 300,
    norm_epsilon: 1e-6,
    rope_theta: 1e4,
};

/// Random weights, with or without biases and norms of heads.
fn model(stored: Stored, norms: bool, kernels: Kernels, threads: usize) -> Model {
    let mut random = Random(6);
    // So that numbers keep about the size of one through the layers.
    let scale = match stored {
        Stored::Q4K | Stored::Q6K => 4e-4,
        Stored::Q8_0 => 2e-3,
        _ => 2e-2,
    };
    let mut matrix = |rows, columns| -> Matrix { random.matrix(stored, rows, columns, scale) };
    let mut layers = Vec::new();
    for _ in 0..2 {
        let mut projection = |heads: usize, normed: bool| Projection {
            weight: matrix(heads * SIZES.head_dim, SIZES.hidden),
            bias: if norms {
                Vec::new()
            } else {
                vec![0.1; heads * SIZES.head_dim]
            },
            norm: if norms && normed {
                vec![1.1; SIZES.head_dim]
            } else {
                Vec::new()
            },
        };
        layers.push(Layer {
            attention_norm: vec![0.9; SIZES.hidden],
            query: projection(SIZES.heads, true),
            key: projection(SIZES.kv_heads, true),
            value: projection(SIZES.kv_heads, false),
            output: matrix(SIZES.hidden, SIZES.heads * SIZES.head_dim),
            mlp_norm: vec![1.0; SIZES.hidden],
            gate: matrix(SIZES.intermediate, SIZES.hidden),
            up: matrix(SIZES.intermediate, SIZES.hidden),
            down: matrix(SIZES.hidden, SIZES.intermediate),
        });
    }
    let weights = Weights {
        embedding: matrix(SIZES.vocabulary, SIZES.hidden),
        layers,
        norm: vec![1.0; SIZES.hidden],
        head: (!norms).then(|| matrix(SIZES.vocabulary, SIZES.hidden)),
    };
    Model::new(SIZES, weights, kernels, threads)
}

fn tokens(count: usize) -> Vec<u32> {
    let mut random = Random(7);
    (0..count)
        .map(|_| random.below(SIZES.vocabulary) as u32)
        .collect()
}

/// The logits of the last token, computed behind `start` tokens in blocks of `block`.
fn logits(
    model: &mut Model,
    cache: &mut Cache,
    tokens: &[u32],
    start: usize,
    block: usize,
) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut at = start;
    while at < tokens.len() {
        let end = tokens.len().min(at + block);
        let scored = usize::from(end == tokens.len());
        model.forward(&tokens[at..end], at, cache, scored, &mut logits);
        at = end;
    }
    assert_eq!(logits.len(), SIZES.vocabulary);
    assert!(logits.iter().all(|logit| logit.is_finite()));
    assert!(logits.iter().any(|logit| logit.abs() > 1e-3));
    logits
}

#[test]
fn kernels_threads_and_batches_make_no_difference() {
    let tokens = tokens(70);
    for (stored, norms) in [
        (Stored::F32, true),
        (Stored::Q4_0, false),
        (Stored::Q8_0, true),
        (Stored::Q4K, true),
        (Stored::Q6K, false),
    ] {
        let mut reference = model(stored, norms, Kernels::portable(), 1);
        let mut cache = Cache::new(reference.cache_shape());
        let expected = logits(&mut reference, &mut cache, &tokens, 0, 70);
        for kernels in Kernels::present() {
            // The portable ones are slow, and were the reference.
            let portable = kernels.name == reference.kernels().name;
            let ways = if portable { 1 } else { 4 };
            for (threads, block) in [(3, 7), (1, 70), (2, 64), (2, 1)].into_iter().take(ways) {
                let mut model = model(stored, norms, kernels, threads);
                let mut cache = Cache::new(model.cache_shape());
                let got = logits(&mut model, &mut cache, &tokens, 0, block);
                let what = format!("{stored:?}, {}, {threads}, {block}", kernels.name);
                // A sum over pages of a softmax is scaled at other moments where blocks differ.
                close(&got, &expected, &what);
            }
        }
    }
}

fn close(got: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got - expected).abs() <= largest * 1e-6,
            "{what}: {got} and not {expected}"
        );
    }
}

#[test]
fn a_cache_that_was_cut_back_or_copied_is_as_good_as_new() {
    let kernels = Kernels::present()[0];
    let mut model = model(Stored::Q4_0, true, kernels, 2);
    let long = tokens(200);
    let mut cache = Cache::new(model.cache_shape());
    logits(&mut model, &mut cache, &long, 0, 64);
    let mut other = long[..90].to_vec();
    other.extend([5, 4, 3, 2, 1]);
    let mut fresh = Cache::new(model.cache_shape());
    let expected = logits(&mut model, &mut fresh, &other, 0, 95);
    let mut copy = cache.copy_prefix(90);
    assert_eq!(copy.capacity(), 128);
    close(
        &logits(&mut model, &mut copy, &other, 90, 64),
        &expected,
        "copied",
    );
    close(
        &logits(&mut model, &mut cache, &other, 90, 1),
        &expected,
        "cut back",
    );
}

#[test]
fn several_tokens_can_be_scored_at_once() {
    let kernels = Kernels::present()[0];
    let mut model = model(Stored::Q6K, true, kernels, 2);
    let tokens = tokens(70);
    let mut cache = Cache::new(model.cache_shape());
    let mut all = Vec::new();
    model.forward(&tokens, 0, &mut cache, 3, &mut all);
    assert_eq!(all.len(), 3 * SIZES.vocabulary);
    for (row, end) in all.chunks(SIZES.vocabulary).zip(68..) {
        let mut fresh = Cache::new(model.cache_shape());
        let expected = logits(&mut model, &mut fresh, &tokens[..end], 0, 64);
        close(row, &expected, &format!("token {end}"));
        // What is said of a guess is what would have been said one token after another, to the bit.
        let mut one_by_one = Cache::new(model.cache_shape());
        let expected = logits(&mut model, &mut one_by_one, &tokens[..end], 0, 1);
        assert!(row == expected, "token {end} one by one");
    }
}

#[test]
#[should_panic(expected = "another model's cache")]
fn another_models_cache_is_refused() {
    let mut model = model(Stored::F32, true, Kernels::portable(), 1);
    let mut shape = model.cache_shape();
    shape.layers += 1;
    model.forward(&[1], 0, &mut Cache::new(shape), 0, &mut Vec::new());
}

/// Stopped between layers of the second batch, the first is kept, and what is computed again is the same.
#[test]
fn a_computation_that_is_stopped_keeps_the_batches_before() {
    let kernels = Kernels::present()[0];
    let mut model = model(Stored::Q4_0, true, kernels, 2);
    let tokens = tokens(2 * BATCH - 10);
    let half = BATCH - 5;
    let mut cache = Cache::new(model.cache_shape());
    let expected = logits(&mut model, &mut cache, &tokens, 0, half);
    for (looks, kept) in [(0, 0), (1, 0), (2, half), (3, half), (4, 2 * half)] {
        let looked = std::cell::Cell::new(0);
        let stop = || looked.replace(looked.get() + 1) == looks;
        let mut cache = Cache::new(model.cache_shape());
        let mut row = Vec::new();
        let computed = model.forward_until(&tokens, 0, &mut cache, 1, &mut row, stop);
        assert_eq!(computed, kept, "{looks} looks");
        let all = kept == tokens.len();
        assert_eq!(row.len(), if all { SIZES.vocabulary } else { 0 });
        if !all {
            row = logits(&mut model, &mut cache, &tokens, kept, half);
        }
        assert!(row == expected, "{looks} looks");
    }
}
