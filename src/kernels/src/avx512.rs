//! Kernels for AVX-512 with VNNI: a register holds all rows of a tile.
//!
//! Each function gives the bits of its counterpart in [`crate::portable`] or [`crate::lanes`].

use std::arch::x86_64::{
    __m128, __m128i, __m512 as Floats, __m512i as Integers, _CMP_GT_OQ, _CMP_LT_OQ, _CMP_NLT_UQ,
    _MM_HINT_NTA, _MM_HINT_T0, _mm_castps_si128, _mm_castsi128_ps, _mm_cmp_ps_mask,
    _mm_loadu_si128, _mm_mask_mov_ps, _mm_maskz_div_ps, _mm_max_epi32, _mm_prefetch, _mm_set1_ps,
    _mm_setr_ps, _mm_srai_epi32, _mm_srli_epi32, _mm_storeu_ps, _mm_sub_ps, _mm_xor_si128,
    _mm256_add_epi32, _mm256_dpbusd_epi32, _mm256_loadu_si256, _mm256_set_m128i, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm512_add_epi32 as add_integers, _mm512_add_ps,
    _mm512_and_si512 as and, _mm512_castps_si512, _mm512_castps128_ps512, _mm512_castps512_ps128,
    _mm512_castsi512_ps, _mm512_castsi512_si128, _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps as to_floats, _mm512_cvtepu8_epi32, _mm512_cvtph_ps,
    _mm512_cvtps_epi32, _mm512_dpbusd_epi32 as add_dots, _mm512_dpwssd_epi32 as add_pairs,
    _mm512_fmadd_ps as multiply_add, _mm512_loadu_ps as load_floats, _mm512_loadu_si512,
    _mm512_mask_mov_ps, _mm512_maskz_cvtepi32_epi16, _mm512_maskz_mul_ps, _mm512_max_epi32,
    _mm512_max_epu32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps as multiply_floats,
    _mm512_or_si512 as or, _mm512_set1_epi8 as every_byte, _mm512_set1_epi32 as every_integer,
    _mm512_set1_ps as every_float, _mm512_setzero_ps as zeros, _mm512_shuffle_i64x2,
    _mm512_slli_epi16 as shift_left, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_srli_epi16 as shift_right, _mm512_srli_epi32, _mm512_storeu_ps as store_floats,
    _mm512_storeu_si512 as store_integers, _mm512_sub_ps, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512 as xor,
};

use crate::avx2::{self, AHEAD};
use crate::cache::PAGE;
use crate::kernels::Kernels;
use crate::lanes::{self, Block, Groups, Lanes, Pairs, Row, Running};
use crate::matrix::{Packed, TILE, Tile};
use crate::x86::{detected, panels, panels_of_codes, products_of_vnni};

/// Rows that a register holds.
const ROWS: usize = 16;

/// The kernels, where the processor has the instructions.
#[must_use]
pub fn kernels() -> Option<Kernels> {
    // Those of AVX2 and what it comes with are used here, too.
    avx2::kernels()?;
    let there = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    // Each function below is reached through this value alone, so the instructions are there.
    there.then_some(Kernels {
        name: "avx512vnni",
        product,
        pair: Some(pair),
        panel_f32,
        panel_codes,
        encode,
        weigh,
        add_weighted,
        quantize,
        add_squares,
        rms_norm,
        rotate,
        swiglu,
        soften,
        gather,
        scale,
        multiply,
    })
}

detected! { "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni":
    product => one, (tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]);
    pair => products, (tiles: [Tile<'_>; 2], blocks: &[Block], stride: usize, out: [&mut [Lanes]; 2]);
    panel_f32 => panels_f32, (depth: usize, a: &[f32], a_stride: usize, b: &[u8], c: &mut [f32], c_stride: usize);
    panel_codes => panels_codes, (a: &[i16], a_stride: usize, b: Groups<'_>, c: &mut [[i32; TILE]], c_stride: usize);
    encode => lanes::encode, (values: &[f32], most: f32, codes: &mut [i16]) -> f32;
    weigh => weigh_rows, (dots: &[[[i32; 16]; PAGE / 16]], visible: &[usize], scales: &[[f32; PAGE]; 2], most: f32, rows: &mut [Row], weights: &mut [[i16; PAGE]]);
    add_weighted => lanes::add_weighted, (sums: &mut [f32], dots: &[[i32; 16]], row: &Row);
    quantize => rounded, (halves: [&[Lanes]; 2], into: &mut [Block]);
    add_squares => squares, (sums: &mut [Lanes], values: &[Lanes]);
    rms_norm => lanes::rms_norm, (values: &mut [f32], weight: &[f32], epsilon: f32);
    rotate => lanes::rotate, (values: &mut [f32], cosine: &[f32], sine: &[f32]);
    swiglu => lanes::swiglu, (gates: &mut [Lanes], ups: &[Lanes]);
    soften => lanes::soften, (scores: &mut [f32], running: &mut Running) -> f32;
    gather => lanes::gather, (from: &[Lanes], stride: usize, to: &mut [f32]);
    scale => scaled, (values: &[Lanes], factors: &[f32], weights: &[f32; 16], out: &mut [Lanes]);
    multiply => lanes::multiply, (values: &mut [f32], factor: f32);
}

products_of_vnni!("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni");

/// The products of one tile.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn one(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    products([tile], blocks, stride, [out]);
}

// Eight sums hide the latency of two multiply-adds a cycle; attention has multiples of eight rows.
panels!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni",
    1 | 2 | 3 | 4 | 5 | 6 | 7,
    8
);

panels_of_codes!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni",
    1 => 4, 2 => 4, 3 => 4, 4 => 4, 5 => 2, 6 => 2, 7 => 2; 8 => 2
);

/// Rows that are weighed together: what one of them has to wait for takes longer than its work, and what
/// there is one of for each row is computed in one register for all.
const TOGETHER: usize = 4;

/// [`lanes::weigh`], several rows at once.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn weigh_rows(
    dots: &[[[i32; 16]; PAGE / 16]],
    visible: &[usize],
    scales: &[[f32; PAGE]; 2],
    most: f32,
    rows: &mut [Row],
    weights: &mut [[i16; PAGE]],
) {
    let dots = dots.chunks(TOGETHER).zip(visible.chunks(TOGETHER));
    let rows = rows.chunks_mut(TOGETHER).zip(weights.chunks_mut(TOGETHER));
    for ((dots, visible), (rows, weights)) in dots.zip(rows) {
        if visible.iter().all(|visible| *visible >= PAGE) {
            weigh_together::<true>(dots, visible, scales, most, rows, weights);
        } else {
            weigh_together::<false>(dots, visible, scales, most, rows, weights);
        }
    }
}

/// The same of at most [`TOGETHER`], which see the `WHOLE` page, or not all of it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn weigh_together<const WHOLE: bool>(
    dots: &[[[i32; 16]; PAGE / 16]],
    visible: &[usize],
    [keys, values]: &[[f32; PAGE]; 2],
    most: f32,
    rows: &mut [Row],
    weights: &mut [[i16; PAGE]],
) {
    let mut pages = [[zeros(); PAGE / 16]; TOGETHER];
    let mut orders_of = [every_integer(0); TOGETHER];
    let mut before = [0.0; TOGETHER];
    for (n, ((row, dots), visible)) in rows.iter().zip(dots).zip(visible).enumerate() {
        let query = every_float(row.query);
        before[n] = row.running.largest;
        orders_of[n] = every_integer(i32::MIN);
        for (part, (dots, keys)) in dots.iter().zip(keys.as_chunks::<16>().0).enumerate() {
            // SAFETY: these are sixteen each.
            let (dots, keys) = unsafe { (load(dots.as_ptr().cast()), load_floats(keys.as_ptr())) };
            let mut scores = multiply_floats(to_floats(dots), multiply_floats(query, keys));
            if !WHOLE {
                let nothing = every_float(f32::NEG_INFINITY);
                scores = _mm512_mask_mov_ps(nothing, seen(*visible, part), scores);
            }
            orders_of[n] = _mm512_max_epi32(orders_of[n], orders(scores));
            pages[n][part] = scores;
        }
    }
    let [a, b, c, d] = before;
    let before = _mm_setr_ps(a, b, c, d);
    let order = |bits| _mm_xor_si128(bits, _mm_srli_epi32::<1>(_mm_srai_epi32::<31>(bits)));
    let largest = reduced(orders_of, |a, b| _mm512_max_epi32(a, b));
    let largest = _mm_max_epi32(largest, order(_mm_castps_si128(before)));
    let largest = _mm_castsi128_ps(order(largest));
    let larger = _mm_cmp_ps_mask::<_CMP_GT_OQ>(largest, before);
    let powers = exponentials(_mm512_castps128_ps512(_mm_sub_ps(before, largest)));
    let powers = _mm_mask_mov_ps(_mm_set1_ps(1.0), larger, _mm512_castps512_ps128(powers));
    let (now, earlier) = (numbers_of(largest), numbers_of(powers));
    let mut sizes = [every_integer(0); TOGETHER];
    for (n, (row, visible)) in rows.iter_mut().zip(visible).enumerate() {
        row.running.largest = now[n];
        row.earlier = earlier[n];
        let mut sums = zeros();
        for (part, values) in values.as_chunks::<16>().0.iter().enumerate() {
            let number = &mut pages[n][part];
            let power = exponentials(_mm512_sub_ps(*number, every_float(now[n])));
            sums = _mm512_add_ps(sums, power);
            // SAFETY: these are sixteen.
            let values = unsafe { load_floats(values.as_ptr()) };
            *number = if WHOLE {
                multiply_floats(power, values)
            } else {
                _mm512_maskz_mul_ps(seen(*visible, part), power, values)
            };
            sizes[n] = _mm512_max_epu32(sizes[n], size_of(*number));
        }
        // SAFETY: these are sixteen.
        unsafe {
            let past = load_floats(row.sums.as_ptr());
            let sums = multiply_add(past, every_float(earlier[n]), sums);
            store_floats(row.sums.as_mut_ptr(), sums);
        }
    }
    let (factors, scales) = factors_of(reduced(sizes, |a, b| _mm512_max_epu32(a, b)), most);
    let (factors, scales) = (numbers_of(factors), numbers_of(scales));
    for (n, (row, weights)) in rows.iter_mut().zip(weights).enumerate() {
        row.weight = scales[n];
        // A factor of zero says that there are no codes, whatever the numbers are.
        let there = if factors[n] == 0.0 { 0 } else { u16::MAX };
        for (part, weights) in weights.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let number = multiply_floats(pages[n][part], every_float(factors[n]));
            let number = _mm512_add_ps(number, every_float(lanes::TO_INTEGER));
            let codes = _mm512_maskz_cvtepi32_epi16(there, _mm512_castps_si512(number));
            // SAFETY: these are sixteen codes.
            unsafe { _mm256_storeu_si256(weights.as_mut_ptr().cast(), codes) };
        }
    }
}

/// What the sixteen numbers of each of four registers come to, by `both` of two.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn reduced(four: [Integers; 4], both: impl Fn(Integers, Integers) -> Integers) -> __m128i {
    let [a, b, c, d] = four;
    let [a, b] = [(a, b), (c, d)]
        .map(|(a, b)| both(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)));
    // Now each quarter has one of each.
    let all = both(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let all = both(all, _mm512_shuffle_i64x2::<0b01_00_11_10>(all, all));
    let all = both(all, _mm512_shuffle_i64x2::<0b10_11_00_01>(all, all));
    _mm512_castsi512_si128(all)
}

/// Numbers without their signs, as bits, which are in the order of the sizes: what is not a number is the
/// largest.
#[inline]
#[target_feature(enable = "avx512f")]
fn size_of(numbers: Floats) -> Integers {
    and(_mm512_castps_si512(numbers), every_integer(i32::MAX))
}

/// [`lanes::factor_of`] of four sizes, as bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn factors_of(sizes: __m128i, most: f32) -> (__m128, __m128) {
    let (largest, most) = (_mm_castsi128_ps(sizes), _mm_set1_ps(most));
    let counts = _mm_cmp_ps_mask::<_CMP_NLT_UQ>(largest, _mm_set1_ps(lanes::SMALLEST));
    let finite = _mm_cmp_ps_mask::<_CMP_LT_OQ>(largest, _mm_set1_ps(f32::INFINITY));
    let factors = _mm_maskz_div_ps(counts & finite, most, largest);
    let scales = _mm_maskz_div_ps(counts, largest, most);
    (factors, _mm_mask_mov_ps(largest, finite, scales))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn numbers_of(four: __m128) -> [f32; 4] {
    let mut numbers = [0.0; 4];
    // SAFETY: there are four.
    unsafe { _mm_storeu_ps(numbers.as_mut_ptr(), four) };
    numbers
}

/// [`lanes::quantize`], four tokens at once: what one number of each is computed with, and what their sums
/// need, is in one register for all.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn rounded([first, second]: [&[Lanes]; 2], into: &mut [Block]) {
    let whole = into.len() / 4 * 4;
    let (fours, rest) = into.split_at_mut(whole);
    let halves = first.chunks_exact(4).zip(second.chunks_exact(4));
    for (into, (first, second)) in fours.chunks_exact_mut(4).zip(halves) {
        round_four(first, second, into);
    }
    avx2::rounded([&first[whole..], &second[whole..]], rest);
}

/// The same of four tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn round_four(first: &[Lanes], second: &[Lanes], into: &mut [Block]) {
    let mut numbers = [[zeros(); 2]; 4];
    let mut sizes = [every_integer(0); 4];
    for (n, (first, second)) in first.iter().zip(second).enumerate() {
        // SAFETY: these are sixteen each.
        numbers[n] = unsafe {
            [
                load_floats(first.0.as_ptr()),
                load_floats(second.0.as_ptr()),
            ]
        };
        let [a, b] = numbers[n].map(|half| size_of(half));
        sizes[n] = _mm512_max_epu32(a, b);
    }
    let (factors, scales) = factors_of(reduced(sizes, |a, b| _mm512_max_epu32(a, b)), 127.0);
    let (factors, scales) = (numbers_of(factors), numbers_of(scales));
    let mut fours = [_mm256_setzero_si256(); 4];
    for (n, into) in into.iter_mut().enumerate() {
        // The lowest bits of what becomes of no number are zeros.
        let [a, b] = numbers[n].map(|half| {
            let codes = multiply_floats(half, every_float(factors[n]));
            _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(codes))
        });
        let codes = _mm256_set_m128i(b, a);
        // SAFETY: there are 32 codes.
        unsafe { _mm256_storeu_si256(into.codes.as_mut_ptr().cast(), codes) };
        fours[n] = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
    }
    let [a, b, c, d] = fours;
    let [a, b] = [(a, b), (c, d)]
        .map(|(a, b)| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)));
    let sums = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let mut halves = [[0; 4]; 2];
    // SAFETY: there are twice four.
    unsafe { _mm256_storeu_si256(halves.as_mut_ptr().cast(), sums) };
    for (n, into) in into.iter_mut().enumerate() {
        into.scale = scales[n];
        into.sum_up(halves.map(|half| half[n]));
    }
}

/// [`lanes::add_squares`]. LLVM would gather numbers of several tokens.
#[target_feature(enable = "avx512f")]
fn squares(sums: &mut [Lanes], values: &[Lanes]) {
    for (sums, values) in sums.iter_mut().zip(values) {
        // SAFETY: these are sixteen each.
        unsafe {
            let values = load_floats(values.0.as_ptr());
            let sum = multiply_add(values, values, load_floats(sums.0.as_ptr()));
            store_floats(sums.0.as_mut_ptr(), sum);
        }
    }
}

/// [`lanes::scale`]. LLVM would gather numbers of several tokens.
#[target_feature(enable = "avx512f")]
fn scaled(values: &[Lanes], factors: &[f32], weights: &[f32; 16], out: &mut [Lanes]) {
    // SAFETY: these are sixteen.
    let weights = unsafe { load_floats(weights.as_ptr()) };
    for ((out, values), factor) in out.iter_mut().zip(values).zip(factors) {
        // SAFETY: these are sixteen each.
        unsafe {
            let values = load_floats(values.0.as_ptr());
            let scaled = multiply_floats(values, every_float(*factor));
            store_floats(out.0.as_mut_ptr(), multiply_floats(scaled, weights));
        }
    }
}

/// Which of a sixteen of a page's tokens are among the first `visible`.
#[inline]
fn seen(visible: usize, part: usize) -> u16 {
    let count = visible.saturating_sub(part * 16).min(16);
    ((1u32 << count) - 1) as u16
}

/// [`lanes::order`].
#[inline]
#[target_feature(enable = "avx512f")]
fn orders(numbers: Floats) -> Integers {
    let bits = _mm512_castps_si512(numbers);
    xor(bits, _mm512_srli_epi32::<1>(_mm512_srai_epi32::<31>(bits)))
}

/// [`lanes::exponential`].
#[inline]
#[target_feature(enable = "avx512f")]
fn exponentials(x: Floats) -> Floats {
    let lowest = every_float(lanes::LOWEST);
    // Of a number and what is not one these take the latter.
    let bounded = _mm512_max_ps(lowest, _mm512_min_ps(every_float(88.0), x));
    let to_integer = every_float(lanes::TO_INTEGER);
    let product = multiply_floats(bounded, every_float(std::f32::consts::LOG2_E));
    let shifted = _mm512_add_ps(product, to_integer);
    let power = _mm512_sub_ps(shifted, to_integer);
    let [more, less] = lanes::LN_2.map(|part| every_float(part));
    let rest = multiply_add(power, less, multiply_add(power, more, bounded));
    let mut value = every_float(lanes::SERIES[0]);
    for coefficient in &lanes::SERIES[1..] {
        value = multiply_add(rest, value, every_float(*coefficient));
    }
    let scale = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let scale = add_integers(scale, every_integer(127 << 23));
    let not_lower = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, lowest);
    _mm512_maskz_mul_ps(not_lower, value, _mm512_castsi512_ps(scale))
}

/// # Safety
/// 64 bytes must be there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(from: *const u8) -> Integers {
    // SAFETY: as required of the caller.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// Sixteen scales of float16.
///
/// # Safety
/// 32 bytes must be there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scales(from: *const u8) -> Floats {
    // SAFETY: as required of the caller.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
}

/// # Safety
/// 16 bytes must be there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn unsigned_bytes(from: *const u8) -> Integers {
    // SAFETY: as required of the caller.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(from.cast()) })
}

/// # Safety
/// 16 bytes must be there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn signed_bytes(from: *const u8) -> Integers {
    // SAFETY: as required of the caller.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) })
}
