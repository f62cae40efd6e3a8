//! Attention by pages against the formula in float64.

use half::f16;

use super::Random;
use crate::attention::Scratch;
use crate::cache::{Cache, CacheShape, PAGE, Precision};
use crate::kernels::Kernels;
use crate::lanes::{encode, most_of};

/// Some rows of queries, and what they attend to.
struct Case {
    head_dim: usize,
    /// Rows of a token.
    group: usize,
    /// Tokens before those of the queries.
    before: usize,
    query: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn new(
        random: &mut Random,
        head_dim: usize,
        group: usize,
        before: usize,
        tokens: usize,
    ) -> Self {
        let all = (before + tokens) * head_dim;
        Self {
            head_dim,
            group,
            before,
            query: random.numbers(tokens * group * head_dim, 1.0),
            keys: random.numbers(all, 3.0),
            values: random.numbers(all, 2.0),
        }
    }

    /// With keys and values as codes can say them.
    fn into_codes(mut self) -> Self {
        let most = [most_of(self.head_dim), most_of(PAGE)];
        for (numbers, most) in [&mut self.keys, &mut self.values].into_iter().zip(most) {
            for row in numbers.chunks_exact_mut(self.head_dim) {
                let mut codes = vec![0; row.len()];
                let scale = encode(row, most, &mut codes);
                for (number, code) in row.iter_mut().zip(codes) {
                    *number = f32::from(code) * scale;
                }
            }
        }
        self
    }

    /// Attention by pages.
    fn attend(&self, kernels: &Kernels, precision: Precision) -> Vec<f32> {
        let head_dim = self.head_dim;
        let mut cache = Cache::new(CacheShape {
            layers: 1,
            heads: 1,
            head_dim,
            precision,
        });
        cache.reserve(self.keys.len() / head_dim);
        let mut codes = vec![0; head_dim];
        let tokens = self.keys.chunks(head_dim).zip(self.values.chunks(head_dim));
        for (position, (key, value)) in tokens.enumerate() {
            cache.layer_mut(0)[0].write(position, key, value, &mut codes, kernels.encode);
        }
        let mut scratch = Scratch::new(self.query.len() / head_dim, head_dim);
        scratch.query.copy_from_slice(&self.query);
        let mut out = vec![0.0; self.query.len()];
        let heads = cache.layer(0);
        scratch.attend(kernels, heads, head_dim, self.group, self.before, &mut out);
        out
    }

    /// The formula.
    fn formula(&self) -> Vec<f64> {
        let dims = self.head_dim;
        let mut out = Vec::new();
        for (row, query) in self.query.chunks(dims).enumerate() {
            let seen = self.before + row / self.group + 1;
            let score = |key: &[f32]| -> f64 {
                let products = query.iter().zip(key);
                products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let scores: Vec<f64> = self.keys.chunks(dims).take(seen).map(score).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            out.extend((0..dims).map(|dim| {
                let values = self.values[dim..].iter().step_by(dims);
                let weighted = powers
                    .iter()
                    .zip(values)
                    .map(|(p, v)| p / sum * f64::from(*v));
                weighted.sum::<f64>()
            }));
        }
        out
    }
}

#[test]
fn attention_by_pages_is_the_formula() {
    let mut random = Random(5);
    for kernels in Kernels::present() {
        for (head_dim, group, before, tokens, precision) in [
            (24, 1, 0, 1, Precision::Codes),
            (16, 3, 0, 7, Precision::Single),
            (32, 2, PAGE - 3, 5, Precision::Codes),
            (32, 3, PAGE - 3, 5, Precision::Single),
            (128, 2, 3 * PAGE + 5, 16, Precision::Codes),
            (64, 7, 130, 4, Precision::Codes),
            (40, 7, 130, 4, Precision::Single),
        ] {
            let mut case = Case::new(&mut random, head_dim, group, before, tokens);
            // Queries and weights are rounded to codes as well, which scores of up to 40 show.
            let bound = match precision {
                Precision::Codes => 5e-3,
                Precision::Single => 2e-5,
            };
            if precision == Precision::Codes {
                case = case.into_codes();
            }
            let got = case.attend(&kernels, precision);
            for (got, exact) in got.iter().zip(case.formula()) {
                let off = (f64::from(*got) - exact).abs();
                assert!(off < bound, "{got} and not {exact}");
            }
        }
    }
}

/// The root of the mean square of what is off, all roundings counted, beside what keys and values in float16
/// alone would cost.
#[test]
fn codes_of_16_bits_lose_what_float16_loses() {
    let mut random = Random(9);
    let off = |got: &mut dyn Iterator<Item = f64>, exact: &[f64]| -> f64 {
        got.zip(exact).map(|(a, b)| (a - b).powi(2)).sum()
    };
    for head_dim in [64, 128] {
        let (mut ours, mut theirs) = (0.0, 0.0);
        for _ in 0..8 {
            let mut case = Case::new(&mut random, head_dim, 2, 200, 4);
            let scale = (head_dim as f32).sqrt().recip();
            for number in &mut case.query {
                *number *= scale;
            }
            let exact = case.formula();
            let got = case.attend(&Kernels::portable(), Precision::Codes);
            ours += off(&mut got.iter().map(|x| f64::from(*x)), &exact);
            for number in case.keys.iter_mut().chain(&mut case.values) {
                *number = f16::from_f32(*number).to_f32();
            }
            theirs += off(&mut case.formula().into_iter(), &exact);
        }
        let times = (ours / theirs).sqrt();
        assert!(times < 1.2, "{head_dim}: {times} times");
    }
}
