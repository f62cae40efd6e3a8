//! Kernels for AVX-512 with VNNI: a register holds all rows of a tile.
//!
//! Each function gives the bits of its counterpart in [`crate::portable`] or [`crate::lanes`].

use std::arch::x86_64::{
    __m512 as Floats, __m512i as Integers, _CMP_GT_OQ, _CMP_NLT_UQ, _MM_HINT_T0, _MM_HINT_T1,
    _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm512_add_epi32 as add_integers, _mm512_add_ps, _mm512_and_si512 as and, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi16,
    _mm512_cvtepi32_ps as to_floats, _mm512_cvtepu8_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32 as add_dots, _mm512_dpwssd_epi32 as add_pairs,
    _mm512_fmadd_ps as multiply_add, _mm512_loadu_ps as load_floats, _mm512_loadu_si512,
    _mm512_mask_mov_ps, _mm512_maskz_mul_ps, _mm512_max_epi32, _mm512_max_epu32, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps as multiply_floats, _mm512_or_si512 as or,
    _mm512_reduce_max_epi32, _mm512_reduce_max_epu32, _mm512_set1_epi8 as every_byte,
    _mm512_set1_epi32 as every_integer, _mm512_set1_ps as every_float, _mm512_setzero_ps as zeros,
    _mm512_slli_epi16 as shift_left, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_srli_epi16 as shift_right, _mm512_srli_epi32, _mm512_storeu_ps as store_floats,
    _mm512_storeu_si512 as store_integers, _mm512_sub_ps, _mm512_xor_si512 as xor,
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
    let others = avx2::kernels()?;
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
        add_squares,
        rms_norm,
        rotate,
        swiglu,
        soften,
        gather,
        scale,
        multiply,
        ..others
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
    add_squares => lanes::add_squares, (sums: &mut [f32; 16], values: &[f32; 16]);
    rms_norm => lanes::rms_norm, (values: &mut [f32], weight: &[f32], epsilon: f32);
    rotate => lanes::rotate, (values: &mut [f32], cosine: &[f32], sine: &[f32]);
    swiglu => lanes::swiglu, (gate: &mut [f32; 16], up: &[f32; 16]);
    soften => lanes::soften, (scores: &mut [f32], running: &mut Running) -> f32;
    gather => lanes::gather, (from: &[Lanes], stride: usize, to: &mut [f32]);
    scale => lanes::scale, (values: &[f32; 16], factor: f32, weights: &[f32; 16], out: &mut [f32; 16]);
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

/// Rows that are weighed together: what one of them has to wait for takes longer than its work.
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
        weigh_together(dots, visible, scales, most, rows, weights);
    }
}

/// The same of at most [`TOGETHER`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn weigh_together(
    dots: &[[[i32; 16]; PAGE / 16]],
    visible: &[usize],
    [keys, values]: &[[f32; PAGE]; 2],
    most: f32,
    rows: &mut [Row],
    weights: &mut [[i16; PAGE]],
) {
    let mut pages = [[zeros(); PAGE / 16]; TOGETHER];
    let [mut before, mut now] = [[0.0; 16]; 2];
    for (n, ((row, dots), visible)) in rows.iter().zip(dots).zip(visible).enumerate() {
        let query = every_float(row.query);
        let mut largest = every_integer(lanes::order(row.running.largest.to_bits()));
        for (part, (dots, keys)) in dots.iter().zip(keys.as_chunks::<16>().0).enumerate() {
            // SAFETY: these are sixteen each.
            let (dots, keys) = unsafe { (load(dots.as_ptr().cast()), load_floats(keys.as_ptr())) };
            let scores = multiply_floats(to_floats(dots), multiply_floats(query, keys));
            let scores =
                _mm512_mask_mov_ps(every_float(f32::NEG_INFINITY), seen(*visible, part), scores);
            largest = _mm512_max_epi32(largest, orders(scores));
            pages[n][part] = scores;
        }
        before[n] = row.running.largest;
        let largest = lanes::order(_mm512_reduce_max_epi32(largest).cast_unsigned());
        now[n] = f32::from_bits(largest.cast_unsigned());
    }
    // SAFETY: these are sixteen each.
    let (befores, nows) = unsafe { (load_floats(before.as_ptr()), load_floats(now.as_ptr())) };
    let larger = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(nows, befores);
    let powers = exponentials(_mm512_sub_ps(befores, nows));
    let powers = _mm512_mask_mov_ps(every_float(1.0), larger, powers);
    let mut earlier = [0.0; 16];
    // SAFETY: these are sixteen.
    unsafe { store_floats(earlier.as_mut_ptr(), powers) };
    let mut sizes = [0u32; TOGETHER];
    for (n, (row, visible)) in rows.iter_mut().zip(visible).enumerate() {
        row.running.largest = now[n];
        row.earlier = earlier[n];
        let mut sums = zeros();
        let mut size = every_integer(0);
        for (part, values) in values.as_chunks::<16>().0.iter().enumerate() {
            let number = &mut pages[n][part];
            let power = exponentials(_mm512_sub_ps(*number, every_float(now[n])));
            sums = _mm512_add_ps(sums, power);
            // SAFETY: these are sixteen.
            let values = unsafe { load_floats(values.as_ptr()) };
            *number = _mm512_maskz_mul_ps(seen(*visible, part), power, values);
            let bits = _mm512_castps_si512(*number);
            size = _mm512_max_epu32(size, and(bits, every_integer(0x7fff_ffff)));
        }
        sizes[n] = _mm512_reduce_max_epu32(size);
        // SAFETY: these are sixteen.
        unsafe {
            let past = load_floats(row.sums.as_ptr());
            let sums = multiply_add(past, every_float(earlier[n]), sums);
            store_floats(row.sums.as_mut_ptr(), sums);
        }
    }
    for (n, (row, weights)) in rows.iter_mut().zip(weights).enumerate() {
        let (factor, scale) = lanes::factor_of(f32::from_bits(sizes[n]), most);
        row.weight = scale;
        for (part, weights) in weights.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let number = multiply_floats(pages[n][part], every_float(factor));
            let number = _mm512_add_ps(number, every_float(lanes::TO_INTEGER));
            let codes = _mm512_cvtepi32_epi16(_mm512_castps_si512(number));
            // A factor of zero says that there are no codes, whatever the numbers are.
            let codes = if factor == 0.0 {
                _mm256_setzero_si256()
            } else {
                codes
            };
            // SAFETY: these are sixteen codes.
            unsafe { _mm256_storeu_si256(weights.as_mut_ptr().cast(), codes) };
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
