//! Weights for what a proposal is known by: logistic regression by Newton's method, with a little
//! shrinkage, so that it ends also where something decides alone.

/// How many numbers describe a case.
pub const WIDTH: usize = tandem::next_edit::FEATURES;

/// Something that was proposed, and whether it was right.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is known of it.
    pub features: [f32; WIDTH],
    /// Whether it was right.
    pub right: bool,
    /// How much it counts.
    pub weight: f64,
}

/// How strongly weights are held near 0.
const SHRINKAGE: f64 = 1.0;

/// Newton's method doubles the digits in each round.
const ROUNDS: usize = 25;

/// The weights under which the cases are likeliest.
#[must_use]
pub fn fit(cases: &[Case]) -> [f64; WIDTH] {
    let mut weights = [0.0; WIDTH];
    for _ in 0..ROUNDS {
        let mut slope = weights.map(|weight| -SHRINKAGE * weight);
        let mut curve = [[0.0; WIDTH]; WIDTH];
        for (at, row) in curve.iter_mut().enumerate() {
            row[at] = SHRINKAGE;
        }
        for case in cases {
            let x = case.features.map(f64::from);
            let sum: f64 = x.iter().zip(&weights).map(|(a, b)| a * b).sum();
            let guess = 1.0 / (1.0 + (-sum).exp());
            let miss = f64::from(u8::from(case.right)) - guess;
            let bend = case.weight * guess * (1.0 - guess);
            for i in 0..WIDTH {
                if x[i] == 0.0 {
                    continue;
                }
                slope[i] += case.weight * miss * x[i];
                for j in 0..=i {
                    curve[i][j] += bend * x[i] * x[j];
                }
            }
        }
        let step = solve(curve, slope);
        for (weight, step) in weights.iter_mut().zip(step) {
            *weight += step;
        }
    }
    weights
}

/// Solves a symmetric, positive system of which the lower half is given, by Cholesky's method.
fn solve(mut a: [[f64; WIDTH]; WIDTH], mut b: [f64; WIDTH]) -> [f64; WIDTH] {
    for i in 0..WIDTH {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            a[i][j] = if i == j {
                (a[i][i] - sum).max(f64::MIN_POSITIVE).sqrt()
            } else {
                (a[i][j] - sum) / a[j][j]
            };
        }
    }
    for i in 0..WIDTH {
        let sum: f64 = (0..i).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i][i];
    }
    for i in (0..WIDTH).rev() {
        let sum: f64 = (i + 1..WIDTH).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i][i];
    }
    b
}
