//! Kernels for AVX-512 with VNNI: a register holds all rows of a tile.
//!
//! Each function gives the bits of its counterpart in [`crate::portable`] or [`crate::lanes`].

use std::arch::x86_64::{
    __m512 as Floats, __m512i as Integers, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch,
    _mm256_loadu_si256, _mm512_add_epi32 as add_integers, _mm512_and_si512 as and,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps as to_floats, _mm512_cvtepu8_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32 as add_dots, _mm512_dpwssd_epi32 as add_pairs,
    _mm512_fmadd_ps as multiply_add, _mm512_loadu_ps as load_floats, _mm512_loadu_si512,
    _mm512_mul_ps as multiply_floats, _mm512_or_si512 as or, _mm512_set1_epi8 as every_byte,
    _mm512_set1_epi32 as every_integer, _mm512_set1_ps as every_float, _mm512_setzero_ps as zeros,
    _mm512_slli_epi16 as shift_left, _mm512_srli_epi16 as shift_right,
    _mm512_storeu_ps as store_floats, _mm512_storeu_si512 as store_integers,
    _mm512_xor_si512 as xor,
};

use crate::avx2::{self, AHEAD};
use crate::cache::PAGE;
use crate::kernels::Kernels;
use crate::lanes::{self, Block, Lanes, Pairs, Row, Running};
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
        multiply,
        ..others
    })
}

detected! { "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni":
    product => products, (tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]);
    panel_f32 => panels_f32, (depth: usize, a: &[f32], a_stride: usize, b: &[u8], c: &mut [f32], c_stride: usize);
    panel_codes => panels_codes, (a: &[i16], a_stride: usize, b: &[Pairs], c: &mut [[i32; TILE]], c_stride: usize);
    encode => lanes::encode, (values: &[f32], most: f32, codes: &mut [i16]) -> f32;
    weigh => lanes::weigh, (dots: &[[i32; 16]; PAGE / 16], visible: usize, scales: &[[f32; PAGE]; 2], most: f32, row: &mut Row, weights: &mut [i16; PAGE]);
    add_weighted => lanes::add_weighted, (sums: &mut [f32], dots: &[[i32; 16]], row: &Row);
    add_squares => lanes::add_squares, (sums: &mut [f32; 16], values: &[f32; 16]);
    rms_norm => lanes::rms_norm, (values: &mut [f32], weight: &[f32], epsilon: f32);
    rotate => lanes::rotate, (values: &mut [f32], cosine: &[f32], sine: &[f32]);
    swiglu => lanes::swiglu, (gate: &mut [f32; 16], up: &[f32; 16]);
    soften => lanes::soften, (scores: &mut [f32], running: &mut Running) -> f32;
    multiply => lanes::multiply, (values: &mut [f32], factor: f32);
}

products_of_vnni!("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni");
// Eight sums hide the latency of two multiply-adds a cycle; attention has multiples of eight rows.
panels!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni",
    1 | 2 | 3 | 4 | 5 | 6 | 7,
    8
);

panels_of_codes!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni",
    1 | 2 | 3 | 4 | 5 | 6 | 7,
    8
);

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
