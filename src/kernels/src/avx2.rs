//! Kernels for AVX2 with FMA and F16C.
//!
//! Each function gives the bits of its counterpart in [`crate::portable`] or [`crate::lanes`]:
//! integers are exact, and floats are summed in the same order. `vpmaddubsw` adds two products of an
//! unsigned and a signed byte in 16 bits and saturates, so the bounds of each sum stand beside it.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadl_epi64,
    _mm_loadu_si128, _mm_max_epi32, _mm_prefetch, _mm_shuffle_epi32, _mm256_abs_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_castps_si256,
    _mm256_castsi256_si128, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_epi32,
    _mm256_mul_ps, _mm256_or_si256, _mm256_packs_epi16, _mm256_packs_epi32,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_slli_epi16,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256,
};
// By the names that the macros of `x86` use.
use std::arch::x86_64::{
    _mm256_fmadd_ps as multiply_add, _mm256_loadu_ps as load_floats,
    _mm256_set1_epi32 as every_integer, _mm256_set1_ps as every_float, _mm256_setzero_ps as zeros,
    _mm256_storeu_ps as store_floats, _mm256_storeu_si256 as store_integers,
};

mod alternating;

use crate::cache::PAGE;
use crate::kernels::Kernels;
use crate::lanes::{self, Block, Groups, Lanes, Pairs, Row, Running};
use crate::matrix::{Packed, TILE, Tile};
use crate::x86::{detected, panels, panels_of_codes};

/// Rows that a register holds.
const ROWS: usize = 8;

/// The kernels, where the processor has the instructions.
#[must_use]
pub fn kernels() -> Option<Kernels> {
    let there = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    // Each function below is reached through this value alone, so the instructions are there.
    there.then_some(Kernels {
        name: "avx2",
        product,
        pair: None,
        panel_f32,
        panel_codes,
        encode,
        weigh,
        add_weighted,
        quantize,
        gather,
        scale,
        add_squares,
        rms_norm,
        rotate,
        swiglu,
        soften,
        multiply,
    })
}

detected! { "avx2,fma,f16c":
    product => products, (tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]);
    panel_f32 => panels_f32, (depth: usize, a: &[f32], a_stride: usize, b: &[u8], c: &mut [f32], c_stride: usize);
    panel_codes => panels_codes, (a: &[i16], a_stride: usize, b: Groups<'_>, c: &mut [[i32; TILE]], c_stride: usize);
    encode => lanes::encode, (values: &[f32], most: f32, codes: &mut [i16]) -> f32;
    weigh => lanes::weigh, (dots: &[[[i32; 16]; PAGE / 16]], visible: &[usize], scales: &[[f32; PAGE]; 2], most: f32, rows: &mut [Row], weights: &mut [[i16; PAGE]]);
    add_weighted => lanes::add_weighted, (sums: &mut [f32], dots: &[[i32; 16]], row: &Row);
    quantize => rounded, (halves: [&[Lanes]; 2], into: &mut [Block]);
    gather => lanes::gather, (from: &[Lanes], stride: usize, to: &mut [f32]);
    scale => lanes::scale, (values: &[Lanes], factors: &[f32], weights: &[f32; 16], out: &mut [Lanes]);
    add_squares => lanes::add_squares, (sums: &mut [Lanes], values: &[Lanes]);
    rms_norm => lanes::rms_norm, (values: &mut [f32], weight: &[f32], epsilon: f32);
    rotate => lanes::rotate, (values: &mut [f32], cosine: &[f32], sine: &[f32]);
    swiglu => lanes::swiglu, (gates: &mut [Lanes], ups: &[Lanes]);
    soften => lanes::soften, (scores: &mut [f32], running: &mut Running) -> f32;
    multiply => lanes::multiply, (values: &mut [f32], factor: f32);
}

/// So many bytes ahead of what is unpacked the next codes are asked for: few tokens are done with a block
/// before the processor's own prefetching has the next, and it stops at each page.
pub(crate) const AHEAD: usize = 6144;
/// Tokens whose dot products with half a block of bytes wait for its other half.
const WAITING: usize = 16;

/// The sums of tokens are in memory: the registers hold the codes of half a tile's block, which all tokens
/// then meet one after another, so that the unpacking is shared by as many as there are.
#[target_feature(enable = "avx2,fma,f16c")]
fn products(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    // All that is read below lies within these bounds.
    let code_bytes = tile.packed.code_bytes();
    assert!(tile.codes.len() >= tile.blocks * code_bytes);
    assert!(tile.scales.len() >= tile.packed.scale_bytes(tile.blocks));
    assert!(tile.blocks == 0 || blocks.len() >= (tile.blocks - 1) * stride + out.len());
    out.fill(Lanes::ZERO);
    // SAFETY: the tile has so many blocks and each token its activations, as was checked above.
    unsafe {
        if out.len() < alternating::MANY {
            few(&tile, blocks, stride, out);
        } else {
            alternating::many(&tile, blocks, stride, out);
        }
    }
}

/// The products of few tokens: less than it costs to have their instructions alternate.
///
/// # Safety
/// The tile must have its blocks, and each token its activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few(tile: &Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    for block in 0..tile.blocks {
        let tokens = &blocks[block * stride..][..out.len()];
        ask_ahead(tile, block);
        for half in 0..2 {
            // SAFETY: the tile has so many blocks.
            unsafe { add_block(tile, block, half, tokens, out) };
        }
    }
}

/// Asks for the codes some way behind a block's.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn ask_ahead(tile: &Tile<'_>, block: usize) {
    let code_bytes = tile.packed.code_bytes();
    for line in (0..code_bytes).step_by(64) {
        let ahead = tile.codes.as_ptr();
        let ahead = ahead.wrapping_add(block * code_bytes + AHEAD + line);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
    // The scales of the same block in the tile that comes next.
    let scales = tile.scales.len() + tile.packed.scale_bytes(block);
    _mm_prefetch::<_MM_HINT_T0>(tile.scales.as_ptr().wrapping_add(scales).cast());
}

/// Adds the products of half a tile's block with tokens.
///
/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_block(
    tile: &Tile<'_>,
    block: usize,
    half: usize,
    tokens: &[Block],
    sums: &mut [Lanes],
) {
    // SAFETY: as required of the caller.
    unsafe {
        match tile.packed {
            Packed::Q4_0 => q4_0(tile, block, half, tokens, sums),
            Packed::Q8_0 => q8_0(tile, block, half, tokens, sums),
            Packed::Q4K => q4_k(tile, block, half, tokens, sums),
            Packed::Q6K => q6_k(tile, block, half, tokens, sums),
            Packed::F32 => {}
        }
    }
}

/// Four codes of an activation in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn four(block: &Block, group: usize) -> __m256i {
    let [a, b, c, d] = [0, 1, 2, 3].map(|lane| block.codes[group * 4 + lane]);
    _mm256_set1_epi32(i32::from_ne_bytes([a, b, c, d].map(i8::cast_unsigned)))
}

/// # Safety
/// 32 bytes must be there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn load(from: *const u8) -> __m256i {
    // SAFETY: as required of the caller.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// Eight scales of float16.
///
/// # Safety
/// 16 bytes must be there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn scales(from: *const u8) -> __m256 {
    // SAFETY: as required of the caller.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
}

/// Adds `dot` times the two scales to half the sums of a token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_scaled(sums: &mut Lanes, half: usize, dot: __m256i, scale: __m256, activation: f32) {
    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(activation));
    add(sums, half, _mm256_cvtepi32_ps(dot), scale);
}

/// Adds a product to half the sums of a token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add(sums: &mut Lanes, half: usize, a: __m256, b: __m256) {
    let sums = &mut sums.0.as_chunks_mut::<8>().0[half];
    // SAFETY: these are eight numbers.
    unsafe {
        let sum = _mm256_fmadd_ps(a, b, _mm256_loadu_ps(sums.as_ptr()));
        _mm256_storeu_ps(sums.as_mut_ptr(), sum);
    }
}

/// The eight groups of four columns of a block of codes of four bits.
///
/// # Safety
/// 256 bytes must be there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn groups_of_four(codes: *const u8, half: usize) -> [__m256i; 8] {
    let mask = _mm256_set1_epi8(15);
    let mut groups = [_mm256_setzero_si256(); 8];
    for pair in 0..4 {
        // SAFETY: the pair's half lies within the 256 bytes.
        let both = unsafe { load(codes.add(pair * 64 + half * 32)) };
        groups[2 * pair] = _mm256_and_si256(both, mask);
        groups[2 * pair + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
    }
    groups
}

/// The dot products of a block of codes of four bits with a token. Before the pairs of 16 bits are
/// added up, each holds eight times two products of at most 15 * 127 each: at most 30,480.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_of_four(groups: &[__m256i; 8], token: &Block) -> __m256i {
    let mut pairs = _mm256_maddubs_epi16(groups[0], four(token, 0));
    for (group, codes) in groups.iter().enumerate().skip(1) {
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(*codes, four(token, group)));
    }
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_0(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    // SAFETY: a block has 256 bytes of codes and 32 of scales.
    let (groups, scale) = unsafe {
        (
            groups_of_four(tile.codes.as_ptr().add(block * 256), half),
            scales(tile.scales.as_ptr().add(block * 32 + half * 16)),
        )
    };
    for (sum, token) in sums.iter_mut().zip(tokens) {
        let dot = _mm256_add_epi32(
            dot_of_four(&groups, token),
            _mm256_set1_epi32(token.minus_8),
        );
        add_scaled(sum, half, dot, scale, token.scale);
    }
}

/// What a code of each row is worth in a block of Q4_K, and what is taken off.
///
/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales_and_minima(tile: &Tile<'_>, block: usize, half: usize) -> [__m256; 2] {
    // SAFETY: eight blocks have 320 bytes of scales: 32 with scales of float16, 32 with minima, then 32
    // for each block.
    unsafe {
        let base = tile.scales.as_ptr().add(block / 8 * 320);
        let own = base.add(64 + block % 8 * 32 + half * 8);
        let factor = _mm256_cvtepu8_epi32(_mm_loadl_epi64(own.cast()));
        let offset = _mm256_cvtepu8_epi32(_mm_loadl_epi64(own.add(16).cast()));
        let base = base.add(half * 16);
        [
            _mm256_mul_ps(scales(base), _mm256_cvtepi32_ps(factor)),
            _mm256_mul_ps(scales(base.add(32)), _mm256_cvtepi32_ps(offset)),
        ]
    }
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_k(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    // SAFETY: a block has 256 bytes of codes.
    let groups = unsafe { groups_of_four(tile.codes.as_ptr().add(block * 256), half) };
    // SAFETY: the tile has the block.
    let [scale, minimum] = unsafe { scales_and_minima(tile, block, half) };
    for (sum, token) in sums.iter_mut().zip(tokens) {
        add_scaled(sum, half, dot_of_four(&groups, token), scale, token.scale);
        add(sum, half, minimum, _mm256_set1_ps(token.minus_sum));
    }
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8_0(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: a block has 32 bytes of scales.
    let scale = unsafe { scales(tile.scales.as_ptr().add(block * 32 + half * 16)) };
    for (tokens, sums) in tokens.chunks(WAITING).zip(sums.chunks_mut(WAITING)) {
        let mut dots = [_mm256_setzero_si256(); WAITING];
        // In two parts, so that codes and their sizes fit into registers.
        for part in 0..2 {
            // SAFETY: a block has 512 bytes of codes.
            let codes = [0, 1, 2, 3].map(|group| unsafe {
                load(
                    tile.codes
                        .as_ptr()
                        .add(block * 512 + half * 32 + (part * 4 + group) * 64),
                )
            });
            let sizes = codes.map(|codes| _mm256_abs_epi8(codes));
            for (dot, token) in dots.iter_mut().zip(tokens) {
                for group in 0..4 {
                    // The code's sign goes to the activation: two products of at most 128 * 127 make at
                    // most 32,512, which 16 bits hold, and four do not.
                    let signed = _mm256_sign_epi8(four(token, part * 4 + group), codes[group]);
                    let pairs = _mm256_maddubs_epi16(sizes[group], signed);
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for ((sum, dot), token) in sums.iter_mut().zip(dots).zip(tokens) {
            add_scaled(sum, half, dot, scale, token.scale);
        }
    }
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q6_k(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    let ones = _mm256_set1_epi16(1);
    let low = _mm256_set1_epi8(15);
    let high = _mm256_set1_epi8(0x30);
    for part in 0..2 {
        // SAFETY: a block has 384 bytes of codes, and eight blocks have 288 of scales: 32 of float16,
        // then 32 for each block.
        let (upper, a, b, scale) = unsafe {
            let codes = tile.codes.as_ptr().add(block * 384 + half * 32);
            let base = tile.scales.as_ptr().add(block / 8 * 288);
            let own = base.add(32 + block % 8 * 32 + half * 8 + part * 16);
            let factor = _mm256_cvtepi8_epi32(_mm_loadl_epi64(own.cast()));
            (
                load(codes.add(256 + part * 64)),
                load(codes.add(part * 128)),
                load(codes.add(part * 128 + 64)),
                _mm256_mul_ps(scales(base.add(half * 16)), _mm256_cvtepi32_ps(factor)),
            )
        };
        let code = |four: __m256i, bits: __m256i| {
            _mm256_or_si256(_mm256_and_si256(four, low), _mm256_and_si256(bits, high))
        };
        let groups = [
            code(a, _mm256_slli_epi16::<4>(upper)),
            code(_mm256_srli_epi16::<4>(a), _mm256_slli_epi16::<2>(upper)),
            code(b, upper),
            code(_mm256_srli_epi16::<4>(b), _mm256_srli_epi16::<2>(upper)),
        ];
        for (sum, token) in sums.iter_mut().zip(tokens) {
            // Four products of at most 63 * 127 make at most 32,004.
            let two = |group: usize| {
                let pairs = _mm256_add_epi16(
                    _mm256_maddubs_epi16(groups[group], four(token, part * 4 + group)),
                    _mm256_maddubs_epi16(groups[group + 1], four(token, part * 4 + group + 1)),
                );
                _mm256_madd_epi16(pairs, ones)
            };
            let dot = _mm256_add_epi32(two(0), two(2));
            let dot = _mm256_add_epi32(dot, _mm256_set1_epi32(token.minus_32[part]));
            add_scaled(sum, half, dot, scale, token.scale);
        }
    }
}

// Twelve sums, of sixteen registers.
panels!("avx2,fma,f16c", 1 | 2 | 3 | 4 | 5, 6);

panels_of_codes!("avx2,fma,f16c", 1 => 2, 2 => 2, 3 => 1, 4 => 1, 5 => 1; 6 => 1);

/// Adds the products of pairs to sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_pairs(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(a, b))
}

/// [`lanes::quantize`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn rounded([first, second]: [&[Lanes]; 2], into: &mut [Block]) {
    for (into, (first, second)) in into.iter_mut().zip(first.iter().zip(second)) {
        round([&first.0, &second.0], into);
    }
}

/// [`lanes::round`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round(values: [&[f32; 16]; 2], into: &mut Block) {
    let [first, second] = values.map(|values| values.as_ptr());
    // SAFETY: each half is of sixteen numbers.
    let numbers =
        unsafe { [first, first.add(8), second, second.add(8)].map(|from| _mm256_loadu_ps(from)) };
    // As bits, which are in the order of the sizes.
    let sign = _mm256_set1_epi32(i32::MAX);
    let bits = numbers.map(|eight| _mm256_and_si256(_mm256_castps_si256(eight), sign));
    let [a, b, c, d] = bits;
    let most = _mm256_max_epi32(_mm256_max_epi32(a, b), _mm256_max_epi32(c, d));
    let most = _mm_max_epi32(
        _mm256_castsi256_si128(most),
        _mm256_extracti128_si256::<1>(most),
    );
    let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b01_00_11_10>(most));
    let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b10_11_00_01>(most));
    let largest = f32::from_bits(_mm_cvtsi128_si32(most).cast_unsigned());
    let Some((factor, scale)) = lanes::factor_and_scale(largest) else {
        lanes::round(values, into);
        return;
    };
    let factor = _mm256_set1_ps(factor);
    let [a, b, c, d] = numbers.map(|eight| _mm256_cvtps_epi32(_mm256_mul_ps(eight, factor)));
    // Packing goes by halves of a register, so fours of codes come out of order.
    let codes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let codes = _mm256_permutevar8x32_epi32(codes, order);
    into.scale = scale;
    // SAFETY: there are 32 codes.
    unsafe { _mm256_storeu_si256(into.codes.as_mut_ptr().cast(), codes) };
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let sum = |fours: __m128i| {
        let twos = _mm_add_epi32(fours, _mm_shuffle_epi32::<0b01_00_11_10>(fours));
        _mm_cvtsi128_si32(_mm_add_epi32(
            twos,
            _mm_shuffle_epi32::<0b10_11_00_01>(twos),
        ))
    };
    into.sum_up([
        sum(_mm256_castsi256_si128(fours)),
        sum(_mm256_extracti128_si256::<1>(fours)),
    ]);
}
