//! Kernels for NEON with the dot products of ARMv8.2, which Apple's processors and most others have.
//!
//! Each function gives the bits of its counterpart in [`crate::portable`]: `sdot` adds four products of
//! signed bytes to 32 bits and cannot overflow there, and floats are summed in the same order. What
//! [`crate::lanes`] has needs no second compilation: NEON is part of this architecture.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int16x8x2_t, int32x4_t, uint8x16_t, vandq_u8, vcvt_f32_f16,
    vcvtq_f32_s32, vcvtq_f32_u32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8, vfmaq_f32, vfmaq_n_f32,
    vget_high_s16, vget_high_u16, vget_low_s16, vget_low_u16, vld1_s8, vld1_u8, vld1_u16,
    vld1q_f32, vld1q_s8, vld1q_u8, vld2q_s16, vmlal_high_n_s16, vmlal_n_s16, vmovl_s8, vmovl_s16,
    vmovl_u8, vmovl_u16, vmulq_f32, vmulq_n_f32, vorrq_u8, vreinterpret_f16_u16,
    vreinterpretq_s8_u8, vshlq_n_u8, vshrq_n_u8, vst1q_f32, vst1q_s32,
};
use std::arch::{asm, is_aarch64_feature_detected};

use crate::kernels::Kernels;
use crate::lanes::{Block, Groups, Lanes, Pairs};
use crate::matrix::{Packed, TILE, Tile};

/// The kernels, where the processor has the instructions.
#[must_use]
pub fn kernels() -> Option<Kernels> {
    // `product` is reached through this value alone, so the instructions are there.
    is_aarch64_feature_detected!("dotprod").then_some(Kernels {
        name: "neon",
        product,
        panel_f32,
        panel_codes,
        ..Kernels::portable()
    })
}

/// Tokens that share the unpacking of a block. Their sums are in memory: the registers hold the codes of
/// half a tile's block, which the tokens then meet one after another.
const TOGETHER: usize = 8;

/// A number for each of eight rows.
type Eight<Four> = [Four; 2];

/// The codes of eight rows in sixteen columns: by four rows, then by four columns.
type Codes = Eight<[int8x16_t; 4]>;

/// The sums of tokens in eight rows.
type Sums = [Eight<float32x4_t>; TOGETHER];

fn product(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    // SAFETY: this function is reached through [`kernels`] alone, which saw the instructions.
    unsafe { products(tile, blocks, stride, out) }
}

#[target_feature(enable = "neon,dotprod")]
fn products(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    // All that is read below lies within these bounds.
    assert!(tile.codes.len() >= tile.blocks * tile.packed.code_bytes());
    assert!(tile.scales.len() >= tile.packed.scale_bytes(tile.blocks));
    assert!(tile.blocks == 0 || blocks.len() >= (tile.blocks - 1) * stride + out.len());
    for (number, out) in out.chunks_mut(TOGETHER).enumerate() {
        let mut sums = [[[vdupq_n_f32(0.0); 2]; TOGETHER]; 2];
        for block in 0..tile.blocks {
            let tokens = &blocks[block * stride + number * TOGETHER..][..out.len()];
            for (half, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the tile has so many blocks, as was checked above.
                unsafe {
                    match tile.packed {
                        Packed::Q4_0 => q4_0(&tile, block, half, tokens, sums),
                        Packed::Q8_0 => q8_0(&tile, block, half, tokens, sums),
                        Packed::Q4K => q4_k(&tile, block, half, tokens, sums),
                        Packed::Q6K => q6_k(&tile, block, half, tokens, sums),
                        Packed::F32 => {}
                    }
                }
            }
        }
        for (token, out) in out.iter_mut().enumerate() {
            for (half, sums) in sums.iter().enumerate() {
                for (four, sums) in sums[token].iter().enumerate() {
                    // SAFETY: four numbers of sixteen, from 0, 4, 8 or 12 on.
                    unsafe { vst1q_f32(out.0.as_mut_ptr().add(half * 8 + four * 4), *sums) };
                }
            }
        }
    }
}

/// Adds the dot products of four rows' codes in sixteen columns with those columns' activations.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots(dots: int32x4_t, codes: [int8x16_t; 4], activations: int8x16_t) -> int32x4_t {
    let mut dots = dots;
    let [a, b, c, d] = codes;
    // SAFETY: `sdot` is one of the instructions that this function requires, and it reads and writes
    // the named registers alone. The intrinsic for it is not stable.
    unsafe {
        asm!(
            "sdot {dots:v}.4s, {a:v}.16b, {activations:v}.4b[0]",
            "sdot {dots:v}.4s, {b:v}.16b, {activations:v}.4b[1]",
            "sdot {dots:v}.4s, {c:v}.16b, {activations:v}.4b[2]",
            "sdot {dots:v}.4s, {d:v}.16b, {activations:v}.4b[3]",
            dots = inout(vreg) dots,
            a = in(vreg) a,
            b = in(vreg) b,
            c = in(vreg) c,
            d = in(vreg) d,
            activations = in(vreg) activations,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    dots
}

/// The same for eight rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_eight(dots: &mut Eight<int32x4_t>, codes: &Codes, token: &Block, part: usize) {
    // SAFETY: sixteen of 32 codes, from 0 or 16 on.
    let activations = unsafe { vld1q_s8(token.codes[part * 16..][..16].as_ptr()) };
    for (dots, codes) in dots.iter_mut().zip(codes) {
        *dots = add_dots(*dots, *codes, activations);
    }
}

/// Adds `dots` times the two scales to `sums`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_scaled(
    sums: &mut Eight<float32x4_t>,
    dots: Eight<int32x4_t>,
    scales: Eight<float32x4_t>,
    activation: f32,
) {
    for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
        *sum = vfmaq_f32(*sum, vcvtq_f32_s32(dot), vmulq_n_f32(scale, activation));
    }
}

/// Four numbers of float16.
///
/// # Safety
/// 8 bytes must be there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn halves(from: *const u8) -> float32x4_t {
    // SAFETY: as required of the caller.
    vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(from.cast()) }))
}

/// Eight scales of float16.
///
/// # Safety
/// 16 bytes must be there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn scales(from: *const u8) -> Eight<float32x4_t> {
    // SAFETY: as required of the caller.
    unsafe { [halves(from), halves(from.add(8))] }
}

/// Eight scales times a factor each, of unsigned bytes.
///
/// # Safety
/// 8 bytes must be there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn times_bytes(scales: Eight<float32x4_t>, from: *const u8) -> Eight<float32x4_t> {
    // SAFETY: as required of the caller.
    let factors = vmovl_u8(unsafe { vld1_u8(from) });
    let [low, high] = [vget_low_u16(factors), vget_high_u16(factors)];
    [
        vmulq_f32(scales[0], vcvtq_f32_u32(vmovl_u16(low))),
        vmulq_f32(scales[1], vcvtq_f32_u32(vmovl_u16(high))),
    ]
}

/// Eight scales times a factor each, of signed bytes.
///
/// # Safety
/// 8 bytes must be there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn times_signed_bytes(scales: Eight<float32x4_t>, from: *const u8) -> Eight<float32x4_t> {
    // SAFETY: as required of the caller.
    let factors = vmovl_s8(unsafe { vld1_s8(from.cast()) });
    let [low, high] = [vget_low_s16(factors), vget_high_s16(factors)];
    [
        vmulq_f32(scales[0], vcvtq_f32_s32(vmovl_s16(low))),
        vmulq_f32(scales[1], vcvtq_f32_s32(vmovl_s16(high))),
    ]
}

/// The lower and the upper four bits.
#[inline]
#[target_feature(enable = "neon")]
fn split(both: uint8x16_t) -> [uint8x16_t; 2] {
    [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)]
}

/// Sixteen columns of a block of codes of four bits, in eight rows.
///
/// # Safety
/// 112 bytes must be there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn codes_of_four(codes: *const u8) -> Codes {
    // SAFETY: 16 bytes from at most byte 80 on.
    [0, 1].map(|four| unsafe {
        let [a, b] = split(vld1q_u8(codes.add(four * 16)));
        let [c, d] = split(vld1q_u8(codes.add(four * 16 + 64)));
        [a, b, c, d].map(|codes| vreinterpretq_s8_u8(codes))
    })
}

/// The dot products of a block with a token, beginning at `start`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots(codes: &[Codes; 2], token: &Block, start: i32) -> Eight<int32x4_t> {
    let mut dots = [vdupq_n_s32(start); 2];
    for (part, codes) in codes.iter().enumerate() {
        add_eight(&mut dots, codes, token, part);
    }
    dots
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q4_0(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut Sums) {
    // SAFETY: a block has 256 bytes of codes and 32 of scales.
    let (codes, scale) = unsafe {
        let codes = tile.codes.as_ptr().add(block * 256 + half * 32);
        (
            [codes_of_four(codes), codes_of_four(codes.add(128))],
            scales(tile.scales.as_ptr().add(block * 32 + half * 16)),
        )
    };
    for (sums, token) in sums.iter_mut().zip(tokens) {
        let dots = dots(&codes, token, token.minus_8);
        add_scaled(sums, dots, scale, token.scale);
    }
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q4_k(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut Sums) {
    // SAFETY: a block has 256 bytes of codes, and eight blocks have 320 of scales: 32 with scales of
    // float16, 32 with minima, then 32 for each block.
    let (codes, scale, minimum) = unsafe {
        let codes = tile.codes.as_ptr().add(block * 256 + half * 32);
        let base = tile.scales.as_ptr().add(block / 8 * 320);
        let own = base.add(64 + block % 8 * 32 + half * 8);
        let base = base.add(half * 16);
        (
            [codes_of_four(codes), codes_of_four(codes.add(128))],
            times_bytes(scales(base), own),
            times_bytes(scales(base.add(32)), own.add(16)),
        )
    };
    for (sums, token) in sums.iter_mut().zip(tokens) {
        add_scaled(sums, dots(&codes, token, 0), scale, token.scale);
        for (sum, minimum) in sums.iter_mut().zip(minimum) {
            *sum = vfmaq_n_f32(*sum, minimum, token.minus_sum);
        }
    }
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q8_0(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut Sums) {
    // SAFETY: a block has 512 bytes of codes, 64 for each four columns, and 32 of scales.
    let (codes, scale) = unsafe {
        let codes = tile.codes.as_ptr().add(block * 512 + half * 32);
        let columns = |from: *const u8| -> Codes {
            [0, 1].map(|four| {
                [0, 1, 2, 3].map(|group| vld1q_s8(from.add(group * 64 + four * 16).cast()))
            })
        };
        (
            [columns(codes), columns(codes.add(256))],
            scales(tile.scales.as_ptr().add(block * 32 + half * 16)),
        )
    };
    for (sums, token) in sums.iter_mut().zip(tokens) {
        add_scaled(sums, dots(&codes, token, 0), scale, token.scale);
    }
}

/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q6_k(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut Sums) {
    let high = vdupq_n_u8(0x30);
    for part in 0..2 {
        // SAFETY: a block has 384 bytes of codes, and eight blocks have 288 of scales: 32 of float16,
        // then 32 for each block.
        let (codes, scale) = unsafe {
            let codes = tile.codes.as_ptr().add(block * 384 + half * 32);
            let base = tile.scales.as_ptr().add(block / 8 * 288);
            let own = base.add(32 + block % 8 * 32 + half * 8 + part * 16);
            let codes: Codes = [0, 1].map(|four| {
                let from = codes.add(four * 16);
                let upper = vld1q_u8(from.add(256 + part * 64));
                let [a, b] = split(vld1q_u8(from.add(part * 128)));
                let [c, d] = split(vld1q_u8(from.add(part * 128 + 64)));
                let code = |four: uint8x16_t, bits: uint8x16_t| {
                    vreinterpretq_s8_u8(vorrq_u8(four, vandq_u8(bits, high)))
                };
                [
                    code(a, vshlq_n_u8::<4>(upper)),
                    code(b, vshlq_n_u8::<2>(upper)),
                    code(c, upper),
                    code(d, vshrq_n_u8::<2>(upper)),
                ]
            });
            (codes, times_signed_bytes(scales(base.add(half * 16)), own))
        };
        for (sums, token) in sums.iter_mut().zip(tokens) {
            let mut dots = [vdupq_n_s32(token.minus_32[part]); 2];
            add_eight(&mut dots, &codes, token, part);
            add_scaled(sums, dots, scale, token.scale);
        }
    }
}

fn panel_f32(depth: usize, a: &[f32], a_stride: usize, b: &[u8], c: &mut [f32], c_stride: usize) {
    let rows = c.len().div_ceil(c_stride);
    assert!(b.len() >= depth * TILE * 4);
    assert!(rows == 0 || depth == 0 || a.len() >= (rows - 1) * a_stride + depth);
    assert!(rows == 0 || c.len() >= (rows - 1) * c_stride + TILE);
    let b = b.as_ptr();
    let mut row = 0;
    while row < rows {
        let a = a[row * a_stride..].as_ptr();
        let c = c[row * c_stride..].as_mut_ptr();
        // SAFETY: checked above for all rows.
        row += unsafe {
            match rows - row {
                1 => rows_of::<1>(depth, a, a_stride, b, c, c_stride),
                2 => rows_of::<2>(depth, a, a_stride, b, c, c_stride),
                3 => rows_of::<3>(depth, a, a_stride, b, c, c_stride),
                4 => rows_of::<4>(depth, a, a_stride, b, c, c_stride),
                5 => rows_of::<5>(depth, a, a_stride, b, c, c_stride),
                _ => rows_of::<6>(depth, a, a_stride, b, c, c_stride),
            }
        };
    }
}

/// # Safety
/// `R` rows must be there, `depth` numbers wide in `a` and 16 in `c`, and `depth` of 16 in `b`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn rows_of<const R: usize>(
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const u8,
    c: *mut f32,
    c_stride: usize,
) -> usize {
    // Of 32 registers six rows take 24.
    let mut sums = [[vdupq_n_f32(0.0); 4]; R];
    for (row, sums) in sums.iter_mut().enumerate() {
        for (four, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller promises the rows.
            *sum = unsafe { vld1q_f32(c.add(row * c_stride + four * 4)) };
        }
    }
    for k in 0..depth {
        // SAFETY: the caller promises the rows.
        let b = [0, 1, 2, 3].map(|four| unsafe { vld1q_f32(b.add(k * 64 + four * 16).cast()) });
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller promises the rows.
            let a = unsafe { *a.add(row * a_stride + k) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = vfmaq_n_f32(*sum, b, a);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (four, sum) in sums.iter().enumerate() {
            // SAFETY: the caller promises the rows.
            unsafe { vst1q_f32(c.add(row * c_stride + four * 4), *sum) };
        }
    }
    R
}

fn panel_codes(a: &[i16], a_stride: usize, b: Groups<'_>, c: &mut [[i32; TILE]], c_stride: usize) {
    let rows = c.len() / c_stride;
    assert!(rows == 0 || a.len() >= (rows - 1) * a_stride + 2 * b.depth);
    for (group, b) in b.iter().enumerate() {
        let mut row = 0;
        while row < rows {
            let a = &a[row * a_stride..];
            let c = &mut c[row * c_stride + group..];
            row += match rows - row {
                1 => codes_of::<1>(a, a_stride, b, c, c_stride),
                2 => codes_of::<2>(a, a_stride, b, c, c_stride),
                3 => codes_of::<3>(a, a_stride, b, c, c_stride),
                _ => codes_of::<4>(a, a_stride, b, c, c_stride),
            };
        }
    }
}

/// The dot products of `R` rows of codes.
#[inline]
fn codes_of<const R: usize>(
    a: &[i16],
    a_stride: usize,
    b: &[Pairs],
    c: &mut [[i32; TILE]],
    c_stride: usize,
) -> usize {
    // Of 32 registers four rows take 16.
    // SAFETY: NEON is part of this architecture.
    let mut sums = unsafe { [[vdupq_n_s32(0); 4]; R] };
    for (k, pairs) in b.iter().enumerate() {
        let from = pairs.0.as_flattened().as_ptr();
        // SAFETY: these are sixteen pairs; the first of each come in one register, the others in another.
        let eights = unsafe { [vld2q_s16(from), vld2q_s16(from.add(16))] };
        for (row, sums) in sums.iter_mut().enumerate() {
            let [first, second] = [0, 1].map(|i| a[row * a_stride + 2 * k + i]);
            for (sums, int16x8x2_t(even, odd)) in sums.as_chunks_mut::<2>().0.iter_mut().zip(eights)
            {
                // SAFETY: NEON is part of this architecture.
                unsafe {
                    sums[0] = vmlal_n_s16(sums[0], vget_low_s16(even), first);
                    sums[1] = vmlal_high_n_s16(sums[1], even, first);
                    sums[0] = vmlal_n_s16(sums[0], vget_low_s16(odd), second);
                    sums[1] = vmlal_high_n_s16(sums[1], odd, second);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let dots = c[row * c_stride].as_chunks_mut::<4>().0;
        for (dots, sums) in dots.iter_mut().zip(sums) {
            // SAFETY: these are four numbers.
            unsafe { vst1q_s32(dots.as_mut_ptr(), *sums) };
        }
    }
    R
}
