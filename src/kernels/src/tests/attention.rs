//! Attention by pages against the formula in float64.

use half::f16;

use super::Random;
use crate::attention::Scratch;
use crate::cache::{Cache, CacheShape, PAGE, Precision};
use crate::kernels::Kernels;

#[test]
fn attention_by_pages_is_the_formula() {
    let mut random = Random(5);
    for kernels in Kernels::present() {
        for (head_dim, group, before, tokens, precision) in [
            (24, 1, 0, 1, Precision::Half),
            (16, 3, 0, 7, Precision::Single),
            (32, 2, PAGE - 3, 5, Precision::Half),
            (32, 3, PAGE - 3, 5, Precision::Single),
            (128, 2, 3 * PAGE + 5, 16, Precision::Half),
            (64, 7, 130, 4, Precision::Half),
            (40, 7, 130, 4, Precision::Single),
        ] {
            let shape = CacheShape {
                layers: 1,
                heads: 1,
                head_dim,
                precision,
            };
            let mut cache = Cache::new(shape);
            let all = before + tokens;
            cache.reserve(all);
            // Rounded to float16 first where they are kept in it, so that only the arithmetic differs.
            let mut rounded = |size: f32| -> Vec<f32> {
                let numbers = random.numbers(all * head_dim, size).into_iter();
                match precision {
                    Precision::Half => numbers.map(|x| f16::from_f32(x).to_f32()).collect(),
                    Precision::Single => numbers.collect(),
                }
            };
            let (keys, values) = (rounded(3.0), rounded(2.0));
            let to_half = |numbers: &[f32; 16]| numbers.map(|x| f16::from_f32(x).to_bits());
            let of = |x: &[f32], position: usize| x[position * head_dim..][..head_dim].to_vec();
            for position in 0..all {
                let (key, value) = (of(&keys, position), of(&values, position));
                cache.layer_mut(0)[0].write(position, &key, &value, to_half);
            }
            let query = random.numbers(tokens * group * head_dim, 1.0);
            let mut scratch = Scratch::new(tokens * group, head_dim);
            scratch.query.copy_from_slice(&query);
            let mut out = vec![0.0; tokens * group * head_dim];
            scratch.attend(
                &kernels,
                &cache.layer(0)[0],
                head_dim,
                group,
                before,
                &mut out,
            );
            for (row, got) in out.chunks(head_dim).enumerate() {
                let seen = before + row / group + 1;
                let query = of(&query, row);
                let scores: Vec<f64> = (0..seen)
                    .map(|position| {
                        let key = of(&keys, position);
                        query
                            .iter()
                            .zip(key)
                            .map(|(a, b)| f64::from(*a) * f64::from(b))
                            .sum()
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                for (dim, got) in got.iter().enumerate() {
                    let exact: f64 = powers
                        .iter()
                        .enumerate()
                        .map(|(position, power)| {
                            power / sum * f64::from(of(&values, position)[dim])
                        })
                        .sum();
                    assert!(
                        (f64::from(*got) - exact).abs() < 2e-5,
                        "{got} and not {exact}"
                    );
                }
            }
        }
    }
}
