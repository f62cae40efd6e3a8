//! Products of many tokens, three at a time, in assembly.
//!
//! The instructions of one token wait for each other, and a processor that runs two threads on a core sees
//! few tokens ahead in each. The compiler does not alternate the instructions of several tokens, and made to,
//! it does not keep the codes in registers. So the loop over tokens is written out: the codes of half a
//! tile's block in eight registers, two registers for each token. The results are those of [`super`].

use std::arch::asm;
use std::arch::x86_64::{__m256i, _mm256_abs_epi8, _mm256_set1_epi16, _mm256_setzero_si256};
use std::mem::{MaybeUninit, offset_of};

use super::{ROWS, add_block, ask_ahead, groups_of_four, load, scales, scales_and_minima};
use crate::lanes::{Block, Lanes};
use crate::matrix::{Packed, Tile};

/// From so many tokens on it pays.
pub(super) const MANY: usize = 12;
/// Tokens whose instructions alternate.
const ALTERNATING: usize = 3;
/// Tokens whose dot products with half a block of bytes wait for its other half.
const KEPT: usize = 48;

/// Lines of assembly for each of the alternating tokens: its two registers, and its place among the blocks,
/// among the sums, and among dot products.
macro_rules! alternate {
    ($lines:ident $(, $argument:literal)*) => {
        $lines!($($argument,)*
            ("{s0}", "{t0}", "0", "0", "0"),
            ("{s1}", "{t1}", "{size}", "64", "32"),
            ("{s2}", "{t2}", "2 * {size}", "128", "64")
        )
    };
}

/// The products with the first group of four columns.
macro_rules! first_group {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vpbroadcastd ", $s, ", dword ptr [{token} + ", $token, "]\n",)*
            $("vpmaddubsw ", $s, ", {g0}, ", $s, "\n",)*
        )
    };
}

/// Adds those with another group, whose activations are at this byte.
macro_rules! add_group {
    ($group:literal, $at:literal, $(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vpbroadcastd ", $t, ", dword ptr [{token} + ", $token, " + ", $at, "]\n",)*
            $("vpmaddubsw ", $t, ", ", $group, ", ", $t, "\n",)*
            $("vpaddw ", $s, ", ", $s, ", ", $t, "\n",)*
        )
    };
}

/// Adds up pairs, and adds what the block has at this byte.
macro_rules! add_pairs_and {
    ($at:literal, $(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vpbroadcastd ", $t, ", dword ptr [{token} + ", $token, " + ", $at, "]\n",)*
            $("vpmaddwd ", $s, ", ", $s, ", {ones}\n",)*
            $("vpaddd ", $s, ", ", $s, ", ", $t, "\n",)*
        )
    };
}

/// Adds up pairs.
macro_rules! add_pairs_alone {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!($("vpmaddwd ", $s, ", ", $s, ", {ones}\n",)*)
    };
}

/// Adds the dot products times both scales to what the sums were.
macro_rules! add_to_sums {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vbroadcastss ", $t, ", dword ptr [{token} + ", $token, " + {scale}]\n",)*
            $("vcvtdq2ps ", $s, ", ", $s, "\n",)*
            $("vmulps ", $t, ", ", $t, ", ymmword ptr [{scales}]\n",)*
            $("vfmadd213ps ", $t, ", ", $s, ", ymmword ptr [{sum} + ", $sum, "]\n",)*
        )
    };
}

/// Adds the minima times minus the sum of the activations.
macro_rules! add_minima {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vbroadcastss ", $s, ", dword ptr [{token} + ", $token, " + {minus_sum}]\n",)*
            $("vfmadd231ps ", $t, ", ", $s, ", ymmword ptr [{scales} + 32]\n",)*
        )
    };
}

/// Writes the sums.
macro_rules! store_sums {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!($("vmovups ymmword ptr [{sum} + ", $sum, "], ", $t, "\n",)*)
    };
}

/// The dot products of codes of four bits.
macro_rules! dots_of_four {
    () => {
        concat!(
            alternate!(first_group),
            alternate!(add_group, "{g1}", "4"),
            alternate!(add_group, "{g2}", "8"),
            alternate!(add_group, "{g3}", "12"),
            alternate!(add_group, "{g4}", "16"),
            alternate!(add_group, "{g5}", "20"),
            alternate!(add_group, "{g6}", "24"),
            alternate!(add_group, "{g7}", "28"),
        )
    };
}

/// The dot products of half a block of signed codes, whose sizes are in the last four registers.
macro_rules! dots_of_signed {
    () => {
        concat!(
            alternate!(first_signed),
            alternate!(add_signed, "{g1}", "{g5}", "4"),
            alternate!(add_signed, "{g2}", "{g6}", "8"),
            alternate!(add_signed, "{g3}", "{g7}", "12"),
        )
    };
}

/// The loop over alternating tokens.
macro_rules! tokens {
    ($groups:expr, $count:expr, $tokens:expr, $sums:expr, [$($line:expr),*], $($operand:tt)*) => {
        asm!(
            "2:",
            $($line,)*
            "add {token}, 3 * {size}",
            "add {sum}, 192",
            "dec {count}",
            "jnz 2b",
            token = inout(reg) $tokens => _,
            sum = inout(reg) $sums => _,
            count = inout(reg) $count => _,
            size = const size_of::<Block>(),
            $($operand)*
            g0 = in(ymm_reg) $groups[0],
            g1 = in(ymm_reg) $groups[1],
            g2 = in(ymm_reg) $groups[2],
            g3 = in(ymm_reg) $groups[3],
            g4 = in(ymm_reg) $groups[4],
            g5 = in(ymm_reg) $groups[5],
            g6 = in(ymm_reg) $groups[6],
            g7 = in(ymm_reg) $groups[7],
            ones = in(ymm_reg) _mm256_set1_epi16(1),
            s0 = out(ymm_reg) _,
            s1 = out(ymm_reg) _,
            s2 = out(ymm_reg) _,
            t0 = out(ymm_reg) _,
            t1 = out(ymm_reg) _,
            t2 = out(ymm_reg) _,
            options(nostack),
        )
    };
}

/// The products with the first group of four columns of signed codes. A code's sign goes to the activation:
/// two products of at most 128 * 127 make at most 32,512, which 16 bits hold, and four do not.
macro_rules! first_signed {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vpbroadcastd ", $s, ", dword ptr [{token} + ", $token, "]\n",)*
            $("vpsignb ", $s, ", ", $s, ", {g0}\n",)*
            $("vpmaddubsw ", $s, ", {g4}, ", $s, "\n",)*
            $("vpmaddwd ", $s, ", ", $s, ", {ones}\n",)*
        )
    };
}

/// Adds those with another group: its codes, their sizes, and the byte of its activations.
macro_rules! add_signed {
    ($codes:literal, $sizes:literal, $at:literal, $(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!(
            $("vpbroadcastd ", $t, ", dword ptr [{token} + ", $token, " + ", $at, "]\n",)*
            $("vpsignb ", $t, ", ", $t, ", ", $codes, "\n",)*
            $("vpmaddubsw ", $t, ", ", $sizes, ", ", $t, "\n",)*
            $("vpmaddwd ", $t, ", ", $t, ", {ones}\n",)*
            $("vpaddd ", $s, ", ", $s, ", ", $t, "\n",)*
        )
    };
}

/// Four groups of a block of signed codes, then their sizes.
///
/// # Safety
/// The tile must have the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed(tile: &Tile<'_>, block: usize, half: usize, part: usize) -> [__m256i; 8] {
    let mut groups = [_mm256_setzero_si256(); 8];
    for group in 0..4 {
        let at = block * 512 + half * 32 + (part * 4 + group) * 64;
        // SAFETY: a block has 512 bytes of codes.
        groups[group] = unsafe { load(tile.codes.as_ptr().add(at)) };
        groups[4 + group] = _mm256_abs_epi8(groups[group]);
    }
    groups
}

/// Keeps dot products until the rest of the block comes.
macro_rules! keep {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!($("vmovdqu ymmword ptr [{dots} + ", $dots, "], ", $s, "\n",)*)
    };
}

/// Adds what was kept.
macro_rules! add_kept {
    ($(($s:literal, $t:literal, $token:literal, $sum:literal, $dots:literal)),*) => {
        concat!($("vpaddd ", $s, ", ", $s, ", ymmword ptr [{dots} + ", $dots, "]\n",)*)
    };
}

/// The products of [`MANY`] tokens or more, added to sums.
///
/// # Safety
/// The tile must have its blocks, and each token its activations.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn many(tile: &Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    let alternating = match tile.packed {
        // Seldom the type of a whole model, and not written out.
        Packed::Q6K | Packed::F32 => 0,
        _ => out.len() / ALTERNATING * ALTERNATING,
    };
    for block in 0..tile.blocks {
        let (tokens, rest) = blocks[block * stride..][..out.len()].split_at(alternating);
        let (sums, rest_sums) = out.split_at_mut(alternating);
        ask_ahead(tile, block);
        for half in 0..2 {
            // SAFETY: the tile has so many blocks.
            unsafe {
                match tile.packed {
                    Packed::Q4_0 => q4_0(tile, block, half, tokens, sums),
                    Packed::Q8_0 => q8_0(tile, block, half, tokens, sums),
                    Packed::Q4K => q4_k(tile, block, half, tokens, sums),
                    Packed::Q6K | Packed::F32 => {}
                }
                add_block(tile, block, half, rest, rest_sums);
            }
        }
    }
}

/// # Safety
/// The tile must have the block. There must be tokens, a multiple of three of them, and as many sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_0(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    // SAFETY: a block has 256 bytes of codes and 32 of scales; no more is read or written of tokens and
    // sums than there are.
    unsafe {
        let groups = groups_of_four(tile.codes.as_ptr().add(block * 256), half);
        let factors = [scales(tile.scales.as_ptr().add(block * 32 + half * 16))];
        let sums = sums.as_mut_ptr().cast::<f32>().add(half * ROWS);
        tokens!(
            groups, tokens.len() / ALTERNATING, tokens.as_ptr(), sums,
            [
                dots_of_four!(),
                alternate!(add_pairs_and, "{minus_8}"),
                alternate!(add_to_sums),
                alternate!(store_sums)
            ],
            scales = in(reg) factors.as_ptr(),
            scale = const offset_of!(Block, scale),
            minus_8 = const offset_of!(Block, minus_8),
        );
    }
}

/// # Safety
/// As for [`q4_0`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_k(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    // SAFETY: a block has 256 bytes of codes; no more is read or written of tokens and sums than there are.
    unsafe {
        let groups = groups_of_four(tile.codes.as_ptr().add(block * 256), half);
        let factors = scales_and_minima(tile, block, half);
        let sums = sums.as_mut_ptr().cast::<f32>().add(half * ROWS);
        tokens!(
            groups, tokens.len() / ALTERNATING, tokens.as_ptr(), sums,
            [
                dots_of_four!(),
                alternate!(add_pairs_alone),
                alternate!(add_to_sums),
                alternate!(add_minima),
                alternate!(store_sums)
            ],
            scales = in(reg) factors.as_ptr(),
            scale = const offset_of!(Block, scale),
            minus_sum = const offset_of!(Block, minus_sum),
        );
    }
}

/// # Safety
/// As for [`q4_0`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8_0(tile: &Tile<'_>, block: usize, half: usize, tokens: &[Block], sums: &mut [Lanes]) {
    for (tokens, sums) in tokens.chunks(KEPT).zip(sums.chunks_mut(KEPT)) {
        let count = tokens.len() / ALTERNATING;
        // SAFETY: a block has 32 bytes of scales, and a token's half of its activations is of 16 bytes; no
        // more is read or written of tokens, sums and dot products than there are.
        unsafe {
            let factors = [scales(tile.scales.as_ptr().add(block * 32 + half * 16))];
            let mut dots = [MaybeUninit::<__m256i>::uninit(); KEPT];
            let sums = sums.as_mut_ptr().cast::<f32>().add(half * ROWS);
            tokens!(
                signed(tile, block, half, 0), count, tokens.as_ptr(), sums,
                [dots_of_signed!(), alternate!(keep), "add {dots}, 96"],
                dots = inout(reg) dots.as_mut_ptr() => _,
            );
            tokens!(
                signed(tile, block, half, 1), count, tokens.as_ptr().byte_add(16), sums,
                [
                    dots_of_signed!(),
                    alternate!(add_kept),
                    alternate!(add_to_sums),
                    alternate!(store_sums),
                    "add {dots}, 96"
                ],
                dots = inout(reg) dots.as_ptr() => _,
                scales = in(reg) factors.as_ptr(),
                // From the second half of the activations on.
                scale = const offset_of!(Block, scale) - 16,
            );
        }
    }
}
