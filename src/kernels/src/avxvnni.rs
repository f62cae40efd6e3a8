//! The products of [`crate::avx2`] by AVX-VNNI, which processors for laptops have had since 2021 without
//! AVX-512. All else is as with AVX2.

use std::arch::x86_64::{
    __m256 as Floats, __m256i as Integers, _MM_HINT_NTA, _MM_HINT_T0, _mm_loadl_epi64,
    _mm_prefetch, _mm256_add_epi32 as add_integers, _mm256_and_si256 as and, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps as to_floats, _mm256_cvtepu8_epi32, _mm256_dpbusd_avx_epi32 as add_dots,
    _mm256_dpwssd_avx_epi32 as add_pairs, _mm256_fmadd_ps as multiply_add,
    _mm256_loadu_ps as load_floats, _mm256_mul_ps as multiply_floats, _mm256_or_si256 as or,
    _mm256_set1_epi8 as every_byte, _mm256_set1_epi32 as every_integer,
    _mm256_set1_ps as every_float, _mm256_setzero_ps as zeros, _mm256_slli_epi16 as shift_left,
    _mm256_srli_epi16 as shift_right, _mm256_storeu_ps as store_floats,
    _mm256_storeu_si256 as store_integers, _mm256_xor_si256 as xor,
};

use crate::avx2::{self, AHEAD, load, scales};
use crate::kernels::Kernels;
use crate::lanes::{Block, Groups, Lanes, Pairs};
use crate::matrix::{Packed, TILE, Tile};
use crate::x86::{detected, panels_of_codes, products_of_vnni};

/// Rows that a register holds.
const ROWS: usize = 8;

/// The kernels, where the processor has the instructions.
#[must_use]
pub fn kernels() -> Option<Kernels> {
    let others = avx2::kernels()?;
    // Each function below is reached through this value alone, so the instructions are there.
    is_x86_feature_detected!("avxvnni").then_some(Kernels {
        name: "avxvnni",
        product,
        panel_codes,
        ..others
    })
}

detected! { "avx2,fma,f16c,avxvnni":
    product => one, (tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]);
    panel_codes => panels_codes, (a: &[i16], a_stride: usize, b: Groups<'_>, c: &mut [[i32; TILE]], c_stride: usize);
}

products_of_vnni!("avx2,fma,f16c,avxvnni");

/// The products of one tile.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn one(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    products([tile], blocks, stride, [out]);
}
panels_of_codes!("avx2,fma,f16c,avxvnni", 1 => 2, 2 => 2, 3 => 2, 4 => 1, 5 => 1; 6 => 1);

/// # Safety
/// 8 bytes must be there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn unsigned_bytes(from: *const u8) -> Integers {
    // SAFETY: as required of the caller.
    _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(from.cast()) })
}

/// # Safety
/// 8 bytes must be there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn signed_bytes(from: *const u8) -> Integers {
    // SAFETY: as required of the caller.
    _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(from.cast()) })
}
