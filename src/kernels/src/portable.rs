//! Products in plain Rust. They define the result: every other kernel gives the same bits.

use crate::format::BLOCK;
use crate::lanes::{Block, Groups, Lanes};
use crate::matrix::{Packed, TILE, Tile};

/// See [`crate::kernels::Kernels::product`].
pub fn product(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
    for (token, out) in out.iter_mut().enumerate() {
        *out = Lanes::ZERO;
        for block in 0..tile.blocks {
            add_block(&tile, block, &blocks[block * stride + token], &mut out.0);
        }
    }
}

/// Adds a block's part of a token's product.
fn add_block(tile: &Tile<'_>, block: usize, activations: &Block, sums: &mut [f32; TILE]) {
    let size = tile.packed.code_bytes();
    let codes = &tile.codes[block * size..][..size];
    match tile.packed {
        Packed::F32 => {}
        Packed::Q4_0 => {
            let scales = tile.halves(block * TILE * 2);
            for (row, sum) in sums.iter_mut().enumerate() {
                let dot = dot_four(codes, row, activations, 0..BLOCK) + activations.minus_8;
                *sum = (dot as f32).mul_add(scales[row] * activations.scale, *sum);
            }
        }
        Packed::Q8_0 => {
            let scales = tile.halves(block * TILE * 2);
            for (row, sum) in sums.iter_mut().enumerate() {
                let mut dot = 0;
                for (i, activation) in activations.codes.iter().enumerate() {
                    let code = codes[i / 4 * 64 + row * 4 + i % 4].cast_signed();
                    dot += i32::from(code) * i32::from(*activation);
                }
                *sum = (dot as f32).mul_add(scales[row] * activations.scale, *sum);
            }
        }
        Packed::Q4K => {
            let base = block / 8 * 320;
            let (scales, minima) = (tile.halves(base), tile.halves(base + 32));
            let own = &tile.scales[base + 64 + block % 8 * 32..];
            for (row, sum) in sums.iter_mut().enumerate() {
                let dot = dot_four(codes, row, activations, 0..BLOCK);
                let scale = scales[row] * f32::from(own[row]);
                let minimum = minima[row] * f32::from(own[16 + row]);
                *sum = (dot as f32).mul_add(scale * activations.scale, *sum);
                *sum = minimum.mul_add(activations.minus_sum, *sum);
            }
        }
        Packed::Q6K => {
            let base = block / 8 * 288;
            let scales = tile.halves(base);
            let own = &tile.scales[base + 32 + block % 8 * 32..];
            for (row, sum) in sums.iter_mut().enumerate() {
                for half in 0..2 {
                    let columns = half * 16..half * 16 + 16;
                    let mut dot = dot_four(codes, row, activations, columns.clone());
                    for i in columns {
                        let upper = codes[256 + i / 16 * 64 + row * 4 + i % 4] >> (i / 4 % 4 * 2);
                        dot += i32::from(upper & 3) * 16 * i32::from(activations.codes[i]);
                    }
                    dot += activations.minus_32[half];
                    let scale = scales[row] * f32::from(own[half * 16 + row].cast_signed());
                    *sum = (dot as f32).mul_add(scale * activations.scale, *sum);
                }
            }
        }
    }
}

/// The dot product with codes of four bits.
fn dot_four(codes: &[u8], row: usize, activations: &Block, columns: std::ops::Range<usize>) -> i32 {
    let dots = columns.map(|i| {
        let code = codes[i / 8 * 64 + row * 4 + i % 4] >> (i / 4 % 2 * 4) & 15;
        i32::from(code) * i32::from(activations.codes[i])
    });
    dots.sum()
}

/// See [`crate::kernels::Kernels::panel_f32`].
pub fn panel_f32(
    depth: usize,
    a: &[f32],
    a_stride: usize,
    b: &[u8],
    c: &mut [f32],
    c_stride: usize,
) {
    let number = |at: usize| {
        let bytes = &b[at * 4..at * 4 + 4];
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    for (row, c) in c.chunks_mut(c_stride).enumerate() {
        for (lane, sum) in c[..16].iter_mut().enumerate() {
            for k in 0..depth {
                *sum = a[row * a_stride + k].mul_add(number(k * 16 + lane), *sum);
            }
        }
    }
}

/// See [`crate::kernels::Kernels::panel_codes`].
pub fn panel_codes(
    a: &[i16],
    a_stride: usize,
    b: Groups<'_>,
    c: &mut [[i32; 16]],
    c_stride: usize,
) {
    for (a, c) in a.chunks(a_stride).zip(c.chunks_exact_mut(c_stride)) {
        let (a, _) = a.as_chunks::<2>();
        for (dots, b) in c.iter_mut().zip(b.iter()) {
            *dots = [0; 16];
            for (a, b) in a.iter().zip(b) {
                for (dot, b) in dots.iter_mut().zip(b.0) {
                    *dot += i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]);
                }
            }
        }
    }
}
