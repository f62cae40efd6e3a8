//! Quantized models against Hugging Face `transformers` (`tests/fixtures/make_quantized.py`): by candle, by
//! our kernels in float32, and by our kernels on the file's codes.

use std::fs;

use serde::Deserialize;
use tandem::backend::local::ModelSource;
use tandem::backend::local::loader::{Arithmetic, Loaded, load_by};
use tandem::backend::local::sampler::Scores;
use tandem::config::{BundleRuntime, ComputeDevice};

use super::{CONTEXT, fixture};

/// The errors allowed, as shares of the logits' size. Measured are 0.00003 in float32, and 0.021 with our
/// kernels on codes, which round what goes into each product to 8 bits. The weights' own error is 0.012 to
/// 0.029 in Q8_0 and 0.14 to 0.5 in the types of 4 bits: such small models of random numbers feel it more than
/// trained ones do.
const IN_FLOAT32: f64 = 1e-4;
const ON_CODES: f64 = 0.04;

#[derive(Deserialize)]
struct Golden {
    file: String,
    cases: Vec<Case>,
}

/// The logits behind a prompt, in float32.
#[derive(Deserialize)]
struct Case {
    input_ids: Vec<u32>,
    /// With what the file holds.
    logits: Vec<f32>,
    /// With the weights before they were quantized.
    unquantized: Vec<f32>,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_slice(&fs::read(fixture("quantized.golden.json")).unwrap()).unwrap()
}

fn load(file: &str, arithmetic: Arithmetic) -> Loaded {
    let source = ModelSource::at(&fixture(file), BundleRuntime::Auto);
    load_by(&source, CONTEXT, ComputeDevice::Cpu, arithmetic).unwrap()
}

/// The logits behind `tokens`, which are computed in blocks of `block`.
fn logits(model: &mut Loaded, tokens: &[u32], block: usize) -> Vec<f32> {
    let mut sequence = model.model.sequence().unwrap();
    let mut scores = Scores::default();
    for tokens in tokens.chunks(block) {
        model
            .model
            .forward(tokens, &mut sequence, Some(&mut scores))
            .unwrap();
    }
    scores.logits
}

/// The root mean square of the difference, as a share of that of `b`.
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// What comes of all roundings together is no more than the weights' own error and that of the codes, which
/// are independent.
#[test]
fn quantized_models_are_hugging_faces() {
    let goldens = goldens();
    for architecture in ["qwen2-", "qwen3-"] {
        for kind in ["q4_0", "q8_0", "q4_k"] {
            let is_one = |golden: &Golden| {
                golden.file.starts_with(architecture) && golden.file.contains(kind)
            };
            assert!(goldens.iter().any(is_one), "no {architecture}{kind}");
        }
    }
    for Golden { file, cases } in goldens {
        let mut candle = load(&file, Arithmetic::Candle);
        let mut exact = load(&file, Arithmetic::Packed);
        let mut rounded = load(&file, Arithmetic::Rounded);
        for case in cases {
            let (tokens, expected) = (&case.input_ids, &case.logits);
            let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            assert!(size > 1.0, "{file}: logits of {size} tell nothing");
            let quantized = error(expected, &case.unquantized);
            for block in [256, 7] {
                let by_candle = error(&logits(&mut candle, tokens, block), expected);
                let by_exact = error(&logits(&mut exact, tokens, block), expected);
                let got = logits(&mut rounded, tokens, block);
                let by_codes = error(&got, expected);
                let in_all = error(&got, &case.unquantized);
                let what = format!("{file}, {} tokens in blocks of {block}", tokens.len());
                assert!(
                    by_candle < IN_FLOAT32,
                    "{what}: candle is off by {by_candle}"
                );
                assert!(
                    by_exact < IN_FLOAT32,
                    "{what}: float32 is off by {by_exact}"
                );
                assert!(by_codes < ON_CODES, "{what}: codes are off by {by_codes}");
                assert!(
                    in_all < quantized.hypot(ON_CODES) * 1.03,
                    "{what}: off by {in_all} in all, quantized weights by {quantized}"
                );
            }
        }
    }
}
