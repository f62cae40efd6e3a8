//! How GGUF stores numbers: the blocks of each type, taken apart.
//!
//! After `ggml-common.h` and `ggml-quants.c` of ggml (`block_q4_0`, `block_q8_0`, `block_q4_K`,
//! `block_q6_K` and their `dequantize_row_…`).

use half::{bf16, f16};

/// Columns that share an activation's scale, and the unit of every packed format.
pub const BLOCK: usize = 32;

/// A type that a file stores a matrix in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    BF16,
    /// 32 numbers of 4 bits, one scale.
    Q4_0,
    /// 32 numbers of 8 bits, one scale.
    Q8_0,
    /// 256 numbers of 4 bits; each 32 have a scale and a minimum of 6 bits.
    Q4K,
    /// 256 numbers of 6 bits; each 16 have a scale of 8 bits.
    Q6K,
}

impl Stored {
    /// Numbers in a block.
    #[must_use]
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `columns`, a multiple of [`Self::block`].
    #[must_use]
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.block() * self.bytes()
    }

    /// The 32 numbers from column `32 * index` of a row, as they are stored.
    #[must_use]
    pub fn part(self, row: &[u8], index: usize) -> Part {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => {
                let width = self.bytes();
                let source = &row[index * BLOCK * width..][..BLOCK * width];
                let mut values = [0.0; BLOCK];
                for (value, bytes) in values.iter_mut().zip(source.chunks_exact(width)) {
                    *value = match (self, bytes) {
                        (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
                        (Self::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
                        (_, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
                        _ => 0.0,
                    };
                }
                Part::Exact(values)
            }
            Self::Q4_0 => {
                let block = &row[index * 18..][..18];
                let mut codes = [0; BLOCK];
                for (i, byte) in block[2..].iter().enumerate() {
                    codes[i] = byte & 15;
                    codes[i + 16] = byte >> 4;
                }
                Part::Q4_0 {
                    codes,
                    scale: [block[0], block[1]],
                }
            }
            Self::Q8_0 => {
                let block = &row[index * 34..][..34];
                let mut codes = [0; BLOCK];
                codes.copy_from_slice(&block[2..]);
                Part::Q8_0 {
                    codes,
                    scale: [block[0], block[1]],
                }
            }
            Self::Q4K => q4_k(&row[index / 8 * 144..][..144], index % 8),
            Self::Q6K => q6_k(&row[index / 8 * 210..][..210], index % 8),
        }
    }
}

/// 32 numbers as they are stored. Scales are float16, little-endian.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// The numbers themselves.
    Exact([f32; BLOCK]),
    /// `(code - 8) * scale`.
    Q4_0 {
        /// 0 to 15.
        codes: [u8; BLOCK],
        /// Of all.
        scale: [u8; 2],
    },
    /// `code as i8 * scale`.
    Q8_0 {
        /// Signed, in two's complement.
        codes: [u8; BLOCK],
        /// Of all.
        scale: [u8; 2],
    },
    /// `code * (scale * factor) - minimum * offset`.
    Q4K {
        /// 0 to 15.
        codes: [u8; BLOCK],
        /// Of the 256.
        scale: [u8; 2],
        /// Of the 256.
        minimum: [u8; 2],
        /// 0 to 63.
        factor: u8,
        /// 0 to 63.
        offset: u8,
    },
    /// `(code - 32) * (scale * factor)`.
    Q6K {
        /// 0 to 63.
        codes: [u8; BLOCK],
        /// Of the 256.
        scale: [u8; 2],
        /// Signed, in two's complement: of the first 16, and of the others.
        factors: [u8; 2],
    },
}

impl Part {
    /// The numbers, in float32 as ggml computes them.
    #[must_use]
    pub fn values(&self) -> [f32; BLOCK] {
        let half = |bytes: [u8; 2]| f16::from_le_bytes(bytes).to_f32();
        match *self {
            Self::Exact(values) => values,
            Self::Q4_0 { codes, scale } => {
                codes.map(|code| (i32::from(code) - 8) as f32 * half(scale))
            }
            Self::Q8_0 { codes, scale } => {
                codes.map(|code| f32::from(code.cast_signed()) * half(scale))
            }
            Self::Q4K {
                codes,
                scale,
                minimum,
                factor,
                offset,
            } => {
                let (scale, minimum) = (
                    half(scale) * f32::from(factor),
                    half(minimum) * f32::from(offset),
                );
                codes.map(|code| f32::from(code) * scale - minimum)
            }
            Self::Q6K {
                codes,
                scale,
                factors,
            } => {
                let scales = factors.map(|factor| half(scale) * f32::from(factor.cast_signed()));
                let mut values = [0.0; BLOCK];
                for (i, value) in values.iter_mut().enumerate() {
                    *value = (i32::from(codes[i]) - 32) as f32 * scales[i / 16];
                }
                values
            }
        }
    }
}

/// Two scales of float16, twelve bytes with scales and minima of 6 bits, 128 bytes of codes.
fn q4_k(block: &[u8], index: usize) -> Part {
    let packed = &block[4..16];
    let (factor, offset) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        (
            packed[index + 4] & 15 | packed[index - 4] >> 6 << 4,
            packed[index + 4] >> 4 | packed[index] >> 6 << 4,
        )
    };
    let mut codes = [0; BLOCK];
    // Each 32 bytes hold 64 codes: the first 32 in their lower halves.
    for (code, byte) in codes.iter_mut().zip(&block[16 + index / 2 * 32..]) {
        *code = if index.is_multiple_of(2) {
            byte & 15
        } else {
            byte >> 4
        };
    }
    Part::Q4K {
        codes,
        scale: [block[0], block[1]],
        minimum: [block[2], block[3]],
        factor,
        offset,
    }
}

/// 128 bytes with the lower four bits, 64 with the upper two, 16 scales of 8 bits, one of float16.
fn q6_k(block: &[u8], index: usize) -> Part {
    // Halves of 128 codes, each four runs of 32: runs 0 and 1 in the lower halves of 64 bytes, runs
    // 2 and 3 in their upper halves; the upper bits of run r at bit 2r of 32 bytes.
    let (half, run) = (index / 4, index % 4);
    let lower = &block[half * 64 + run % 2 * 32..][..BLOCK];
    let upper = &block[128 + half * 32..][..BLOCK];
    let mut codes = [0; BLOCK];
    for (i, code) in codes.iter_mut().enumerate() {
        let four = if run < 2 {
            lower[i] & 15
        } else {
            lower[i] >> 4
        };
        *code = four | (upper[i] >> (2 * run) & 3) << 4;
    }
    Part::Q6K {
        codes,
        scale: [block[208], block[209]],
        factors: [block[192 + 2 * index], block[193 + 2 * index]],
    }
}
