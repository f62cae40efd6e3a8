//! What is computed besides matrix products, on sixteen numbers at a time.
//!
//! These bodies are compiled for each instruction set and give the same bits in all of them: every
//! sum has its order, and a product that is added is rounded once (`mul_add`).

#![expect(
    clippy::inline_always,
    reason = "a body takes the instructions of the function that it is compiled into"
)]

use crate::cache::PAGE;
use crate::format::BLOCK;

/// Sixteen numbers: what a tile of rows gives for one token.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; 16]);

impl Lanes {
    /// Zeros.
    pub const ZERO: Self = Self([0.0; 16]);
}

/// Two codes of 16 bits for each of sixteen tokens or dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Pairs(pub [[i16; 2]; 16]);

impl Pairs {
    /// Zeros.
    pub const ZERO: Self = Self([[0; 2]; 16]);
}

/// Groups of sixteen tokens or dimensions, whose codes lie one group behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a> {
    /// All groups.
    pub pairs: &'a [Pairs],
    /// Pairs from the beginning of a group to the next's.
    pub apart: usize,
    /// Pairs of each group that count.
    pub depth: usize,
    /// What is read next, to be asked for in the meantime.
    pub ahead: &'a [Pairs],
}

impl<'a> Groups<'a> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pairs.len() / self.apart
    }

    /// Each one's pairs that count.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [Pairs]> {
        let groups = self.pairs.chunks_exact(self.apart);
        groups.map(move |group| &group[..self.depth])
    }
}

/// 32 activations of a token as a product with codes takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Block {
    /// -127 to 127.
    pub codes: [i8; BLOCK],
    /// What a code is worth.
    pub scale: f32,
    /// -8 times the sum of the codes.
    pub minus_8: i32,
    /// -32 times the sums of the first 16 codes and of the others.
    pub minus_32: [i32; 2],
    /// Minus the sum of the codes, times the scale.
    pub minus_sum: f32,
}

impl Block {
    /// Zeros.
    pub const ZERO: Self = Self {
        codes: [0; BLOCK],
        scale: 0.0,
        minus_8: 0,
        minus_32: [0; 2],
        minus_sum: 0.0,
    };

    /// Notes the sums of the first 16 codes and of the others.
    #[inline(always)]
    pub(crate) fn sum_up(&mut self, sums: [i32; 2]) {
        let sum = sums[0] + sums[1];
        self.minus_8 = -8 * sum;
        self.minus_32 = sums.map(|sum| -32 * sum);
        self.minus_sum = -(sum as f32) * self.scale;
    }
}

/// Below it activations count as zero: their reciprocal would not be finite.
pub(crate) const SMALLEST: f32 = 1e-30;

/// Rounds tokens' activations of 32 columns to 8 bits, given in halves. Where one is not finite, the token's
/// scale is not either, and so neither is what comes of it.
#[inline(always)]
pub fn quantize([first, second]: [&[Lanes]; 2], into: &mut [Block]) {
    for (into, (first, second)) in into.iter_mut().zip(first.iter().zip(second)) {
        round([&first.0, &second.0], into);
    }
}

/// The same of one token.
#[inline(always)]
pub(crate) fn round(values: [&[f32; 16]; 2], into: &mut Block) {
    // As bits, so that what is not a number counts as the largest.
    let mut lanes = [0u32; 16];
    for (i, lane) in lanes.iter_mut().enumerate() {
        let [a, b] = values.map(|values| values[i].to_bits() & 0x7fff_ffff);
        *lane = a.max(b);
    }
    let largest = f32::from_bits(lanes.iter().fold(0, |a, b| a.max(*b)));
    let (factor, scale) = factor_and_scale(largest).unwrap_or((0.0, largest));
    into.scale = scale;
    let mut sums = [0i32; 2];
    let halves = into.codes.as_chunks_mut::<16>().0.iter_mut().zip(values);
    for (sum, (codes, values)) in sums.iter_mut().zip(halves) {
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value * factor).round_ties_even() as i32 as i8;
        }
        *sum = codes.iter().map(|code| i32::from(*code)).sum();
    }
    into.sum_up(sums);
}

/// What numbers are multiplied by to become codes when the largest is `largest` in size, and what a code is
/// worth then. `None` where it is not finite.
#[inline(always)]
pub(crate) fn factor_and_scale(largest: f32) -> Option<(f32, f32)> {
    if largest < SMALLEST {
        return Some((0.0, 0.0));
    }
    largest
        .is_finite()
        .then_some((127.0 / largest, largest / 127.0))
}

/// Added to a number below 2^22 in size it rounds it to an integer, ties to even, which the lowest bits then
/// hold: 1.5 times 2^23.
pub(crate) const TO_INTEGER: f32 = 12_582_912.0;

/// The largest code of which `depth` products of two fit into 32 bits.
#[must_use]
pub fn most_of(depth: usize) -> f32 {
    ((f64::from(i32::MAX) / depth as f64).sqrt().floor() as f32).min(f32::from(i16::MAX))
}

/// Rounds numbers to codes of at most `most` in size. Returns what a code is worth; where a number is not
/// finite that is not either, and so neither is what comes of it.
#[inline(always)]
#[must_use]
pub fn encode(values: &[f32], most: f32, codes: &mut [i16]) -> f32 {
    // As bits, so that what is not a number counts as the largest.
    let sizes = values.iter().map(|value| value.to_bits() & 0x7fff_ffff);
    let largest = f32::from_bits(sizes.fold(0, u32::max));
    let (factor, scale) = factor_of(largest, most);
    if factor == 0.0 {
        codes.fill(0);
        return scale;
    }
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * factor + TO_INTEGER).to_bits() as i16;
    }
    scale
}

/// What numbers are multiplied by to become codes of at most `most` when the largest is `largest` in size, and
/// what a code is worth then. A factor of 0 where the largest is next to nothing or not finite.
#[inline(always)]
pub(crate) fn factor_of(largest: f32, most: f32) -> (f32, f32) {
    if largest < SMALLEST {
        (0.0, 0.0)
    } else if largest.is_finite() {
        (most / largest, largest / most)
    } else {
        (0.0, largest)
    }
}

/// Adds the squares of tokens' numbers to their sums, sixteen each.
#[inline(always)]
pub fn add_squares(sums: &mut [Lanes], values: &[Lanes]) {
    for (sums, values) in sums.iter_mut().zip(values) {
        for (sum, value) in sums.0.iter_mut().zip(&values.0) {
            *sum = value.mul_add(*value, *sum);
        }
    }
}

/// The sum of sixteen numbers, by halves.
#[inline(always)]
#[must_use]
pub fn total(lanes: [f32; 16]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// One over the root of the mean square of `count` numbers whose squares sum to `squares`.
#[inline(always)]
#[must_use]
pub fn inverse_rms(squares: f32, count: usize, epsilon: f32) -> f32 {
    1.0 / (squares / count as f32 + epsilon).sqrt()
}

/// Norms a head in place: a number over the root mean square, times its weight. Any length.
#[inline(always)]
pub fn rms_norm(values: &mut [f32], weight: &[f32], epsilon: f32) {
    let mut sums = [0.0; 16];
    let (whole, rest) = values.as_chunks::<16>();
    for values in whole {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = value.mul_add(*value, *sum);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum = value.mul_add(*value, *sum);
    }
    let inverse = inverse_rms(total(sums), values.len(), epsilon);
    for (value, weight) in values.iter_mut().zip(weight) {
        *value = *value * inverse * weight;
    }
}

/// Turns a head by its position: each number of the first half with its counterpart in the second.
#[inline(always)]
pub fn rotate(values: &mut [f32], cosine: &[f32], sine: &[f32]) {
    let half = values.len() / 2;
    let (first, second) = values.split_at_mut(half);
    let turns = cosine.iter().zip(sine);
    for ((a, b), (cosine, sine)) in first.iter_mut().zip(second).zip(turns) {
        (*a, *b) = (
            a.mul_add(*cosine, -(*b * sine)),
            b.mul_add(*cosine, *a * sine),
        );
    }
}

/// `gate / (1 + exp(-gate)) * up`, into `gates`.
#[inline(always)]
pub fn swiglu(gates: &mut [Lanes], ups: &[Lanes]) {
    for (gates, ups) in gates.iter_mut().zip(ups) {
        for (gate, up) in gates.0.iter_mut().zip(&ups.0) {
            *gate = *gate / (1.0 + exponential(-*gate)) * up;
        }
    }
}

/// Below it a power of e counts as zero.
pub(crate) const LOWEST: f32 = -87.3;
/// Minus ln 2 in two parts, the first exact in few bits (Cody and Waite).
pub(crate) const LN_2: [f32; 2] = [-0.693_359_4, 2.121_944_4e-4];
/// The series of e to the power of x, the highest power's factor first.
pub(crate) const SERIES: [f32; 8] = [
    1.0 / 5040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e to the power of `x`, within 2 units in the last place; 0 below -87.3, and no more than at 88.
#[inline(always)]
#[must_use]
pub fn exponential(x: f32) -> f32 {
    // Comparisons that let through what is not a number.
    let bounded = if x > 88.0 { 88.0 } else { x };
    let bounded = if bounded < LOWEST { LOWEST } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + TO_INTEGER;
    let power = shifted - TO_INTEGER;
    let rest = power.mul_add(LN_2[0], bounded);
    let rest = power.mul_add(LN_2[1], rest);
    let mut value = SERIES[0];
    for factor in &SERIES[1..] {
        value = rest.mul_add(value, *factor);
    }
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let value = value * scale;
    if x < LOWEST { 0.0 } else { value }
}

/// One row's part of a softmax that is computed piece by piece.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    /// The largest score so far.
    pub largest: f32,
    /// The sum of what [`soften`] left, in units of e to the power of the largest.
    pub sum: f32,
}

impl Running {
    /// Of no scores.
    pub const NONE: Self = Self {
        largest: f32::NEG_INFINITY,
        sum: 0.0,
    };
}

/// Turns a piece of a row's scores (a multiple of 16; what must not count is minus infinity) into
/// powers of e over the largest so far. Returns what all earlier ones have to be multiplied by.
#[inline(always)]
pub fn soften(scores: &mut [f32], running: &mut Running) -> f32 {
    let largest = largest(scores, running.largest);
    let earlier = earlier(running.largest, largest);
    let sum = total(powers(scores, largest));
    running.largest = largest;
    running.sum = running.sum.mul_add(earlier, sum);
    earlier
}

/// The largest of the scores and of what was the largest before.
#[inline(always)]
fn largest(scores: &[f32], before: f32) -> f32 {
    let orders = scores.iter().map(|score| order(score.to_bits()));
    let largest = orders.fold(order(before.to_bits()), i32::max);
    f32::from_bits(order(largest.cast_unsigned()).cast_unsigned())
}

/// A number's bits as an integer in the order of the numbers, and back. What is not a number comes first or
/// last by its sign.
#[inline(always)]
pub(crate) fn order(bits: u32) -> i32 {
    let bits = bits.cast_signed();
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

/// What powers over the largest before have to be multiplied by.
#[inline(always)]
fn earlier(before: f32, largest: f32) -> f32 {
    let power = exponential(before - largest);
    if largest > before { power } else { 1.0 }
}

/// Turns scores into powers of e over the largest. Returns their sums, sixteen apart.
#[inline(always)]
fn powers(scores: &mut [f32], largest: f32) -> [f32; 16] {
    let mut sums = [0.0; 16];
    for piece in scores.as_chunks_mut::<16>().0 {
        for (sum, score) in sums.iter_mut().zip(piece) {
            *score = exponential(*score - largest);
            *sum += *score;
        }
    }
    sums
}

/// Tokens' sixteen numbers times the token's factor, each times its weight.
#[inline(always)]
pub fn scale(values: &[Lanes], factors: &[f32], weights: &[f32; 16], out: &mut [Lanes]) {
    for ((out, values), factor) in out.iter_mut().zip(values).zip(factors) {
        for ((out, value), weight) in out.0.iter_mut().zip(&values.0).zip(weights) {
            *out = value * factor * weight;
        }
    }
}

/// Puts sixteens that are `stride` apart one behind the other.
#[inline(always)]
pub fn gather(from: &[Lanes], stride: usize, to: &mut [f32]) {
    let from = from.iter().step_by(stride);
    for (to, from) in to.as_chunks_mut::<16>().0.iter_mut().zip(from) {
        *to = from.0;
    }
}

/// Multiplies numbers by a factor.
#[inline(always)]
pub fn multiply(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}

/// A row of attention: a query head of a token.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What a code of its query is worth.
    pub query: f32,
    /// Its softmax so far. On codes the sum is in `sums`.
    pub running: Running,
    /// The softmax's sum on codes so far, sixteen apart.
    pub sums: [f32; 16],
    /// What all earlier sums have to be multiplied by.
    pub earlier: f32,
    /// What a code of its weights is worth.
    pub weight: f32,
}

impl Row {
    /// Of no scores.
    pub const NONE: Self = Self {
        query: 0.0,
        running: Running::NONE,
        sums: [0.0; 16],
        earlier: 1.0,
        weight: 0.0,
    };

    /// The softmax's sum.
    pub(crate) fn sum(&self) -> f32 {
        self.running.sum + total(self.sums)
    }
}

/// Turns rows' dot products with a page's keys, of which each sees the first so many, into the weights of
/// its values, as codes of at most `most`. `scales` are what a code of each token's key and of its value is
/// worth.
#[inline(always)]
pub fn weigh(
    dots: &[[[i32; 16]; PAGE / 16]],
    visible: &[usize],
    scales: &[[f32; PAGE]; 2],
    most: f32,
    rows: &mut [Row],
    weights: &mut [[i16; PAGE]],
) {
    let [keys, values] = scales;
    let dots = dots.iter().zip(visible);
    for ((dots, visible), (row, weights)) in dots.zip(rows.iter_mut().zip(weights)) {
        let mut numbers = [0.0; PAGE];
        for ((number, dot), key) in numbers.iter_mut().zip(dots.as_flattened()).zip(keys) {
            *number = *dot as f32 * (row.query * key);
        }
        if *visible < PAGE {
            numbers[*visible..].fill(f32::NEG_INFINITY);
        }
        let before = row.running.largest;
        row.running.largest = largest(&numbers, before);
        row.earlier = earlier(before, row.running.largest);
        let sums = powers(&mut numbers, row.running.largest);
        for (sum, more) in row.sums.iter_mut().zip(sums) {
            *sum = sum.mul_add(row.earlier, more);
        }
        for (number, value) in numbers.iter_mut().zip(values) {
            *number *= value;
        }
        if *visible < PAGE {
            numbers[*visible..].fill(0.0);
        }
        row.weight = encode(&numbers, most, weights);
    }
}

/// Brings a row's sums, over so many dimensions, up to date by the dot products of its weights and the
/// values.
#[inline(always)]
pub fn add_weighted(sums: &mut [f32], dots: &[[i32; 16]], row: &Row) {
    for (sum, dot) in sums.iter_mut().zip(dots.as_flattened()) {
        *sum = (*dot as f32).mul_add(row.weight, *sum * row.earlier);
    }
}
