//! Weights in the layout that products want.
//!
//! Sixteen rows make a tile. Within it the numbers of a block of 32 columns lie together, four
//! columns of a row side by side, then the same four of the next row: a vector register takes four
//! columns of eight or sixteen rows at once, and a sum never crosses a register. Nothing is rounded:
//! a tile holds the file's own codes and scales.

use half::f16;

use crate::aligned::Aligned;
use crate::format::{BLOCK, Part, Stored};

/// Rows of a tile.
pub const TILE: usize = 16;

/// How a packed matrix holds its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    /// float32: for each column its 16 rows.
    F32,
    /// For each eight columns 64 bytes: by row, the first four in the lower halves, the others in the
    /// upper. A scale of float16 for each row and block.
    Q4_0,
    /// For each four columns 64 bytes, by row. A scale of float16 for each row and block.
    Q8_0,
    /// Codes as in Q4_0. For each 256 columns the 16 rows' scales, then their minima, in float16;
    /// after them for each block the rows' factors, then their offsets, a byte each.
    Q4K,
    /// For each eight columns 64 bytes with the lower four bits as in Q4_0, then twice 64 bytes with
    /// the upper two bits: group `g` of four columns at bit `2 * (g % 4)` of half `g / 4`. For each
    /// 256 columns the 16 rows' scales in float16; after them for each block the rows' factors of its
    /// first 16 columns, then of the others, a byte each.
    Q6K,
}

impl Packed {
    /// The layout that keeps what is stored as it is.
    #[must_use]
    pub fn of(stored: Stored) -> Self {
        match stored {
            Stored::F32 | Stored::F16 | Stored::BF16 => Self::F32,
            Stored::Q4_0 => Self::Q4_0,
            Stored::Q8_0 => Self::Q8_0,
            Stored::Q4K => Self::Q4K,
            Stored::Q6K => Self::Q6K,
        }
    }

    /// Bytes of the codes of a block of a tile.
    #[must_use]
    pub fn code_bytes(self) -> usize {
        match self {
            Self::F32 => TILE * BLOCK * 4,
            Self::Q4_0 | Self::Q4K => TILE * BLOCK / 2,
            Self::Q8_0 => TILE * BLOCK,
            Self::Q6K => TILE * BLOCK / 4 * 3,
        }
    }

    /// Bytes of the scales of a tile of so many blocks.
    #[must_use]
    pub fn scale_bytes(self, blocks: usize) -> usize {
        match self {
            Self::F32 => 0,
            Self::Q4_0 | Self::Q8_0 => blocks * TILE * 2,
            Self::Q4K => blocks / 8 * (TILE * 4 + 8 * TILE * 2),
            Self::Q6K => blocks / 8 * (TILE * 2 + 8 * TILE * 2),
        }
    }
}

/// A matrix of `rows` outputs by `columns` inputs.
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    packed: Packed,
    codes: Aligned,
    scales: Aligned,
}

/// Sixteen rows of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// How they are held.
    pub packed: Packed,
    /// Blocks of 32 columns.
    pub blocks: usize,
    /// [`Packed::code_bytes`] for each block.
    pub codes: &'a [u8],
    /// [`Packed::scale_bytes`].
    pub scales: &'a [u8],
}

impl Matrix {
    /// Room for `rows` by `columns`, all zero; the last tile is filled up with rows of zeros.
    ///
    /// # Panics
    /// When `columns` is not a multiple of the layout's block.
    #[must_use]
    pub fn new(rows: usize, columns: usize, packed: Packed) -> Self {
        let block = match packed {
            Packed::Q4K | Packed::Q6K => 256,
            Packed::F32 | Packed::Q4_0 | Packed::Q8_0 => BLOCK,
        };
        assert!(columns.is_multiple_of(block), "rows are whole blocks");
        let (tiles, blocks) = (rows.div_ceil(TILE), columns / BLOCK);
        Self {
            rows,
            columns,
            packed,
            codes: Aligned::zeroed(tiles * blocks * packed.code_bytes()),
            scales: Aligned::zeroed(tiles * packed.scale_bytes(blocks)),
        }
    }

    /// Outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Tiles of 16 rows.
    #[must_use]
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// How the numbers are held.
    #[must_use]
    pub fn packed(&self) -> Packed {
        self.packed
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.bytes().len() + self.scales.bytes().len()
    }

    /// One of its tiles.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn tile(&self, tile: usize) -> Tile<'_> {
        let blocks = self.columns / BLOCK;
        let (codes, scales) = (
            blocks * self.packed.code_bytes(),
            self.packed.scale_bytes(blocks),
        );
        Tile {
            packed: self.packed,
            blocks,
            codes: &self.codes.bytes()[tile * codes..][..codes],
            scales: &self.scales.bytes()[tile * scales..][..scales],
        }
    }

    /// Packs whole rows, stored one after another in `bytes`, from row `first` on (a multiple of 16),
    /// by `threads`. Whatever lies behind the last row is left alone.
    ///
    /// # Panics
    /// When what is stored cannot be held in this layout, or `first` is within a tile.
    pub fn pack(&mut self, stored: Stored, first: usize, bytes: &[u8], threads: usize) {
        let exact = self.packed == Packed::F32;
        assert!(exact || self.packed == Packed::of(stored), "another layout");
        assert!(first.is_multiple_of(TILE), "not between two tiles");
        let (packed, blocks) = (self.packed, self.columns / BLOCK);
        let row_bytes = stored.row_bytes(self.columns);
        let rows = (bytes.len() / row_bytes).min(self.rows - first);
        let (code_bytes, scale_bytes) = (blocks * packed.code_bytes(), packed.scale_bytes(blocks));
        let (from, tiles) = (first / TILE, rows.div_ceil(TILE));
        let share = tiles.div_ceil(threads.max(1)).max(1);
        let mut codes = &mut self.codes.bytes_mut()[from * code_bytes..][..tiles * code_bytes];
        let mut scales = &mut self.scales.bytes_mut()[from * scale_bytes..][..tiles * scale_bytes];
        std::thread::scope(|scope| {
            for start in (0..tiles).step_by(share) {
                let count = share.min(tiles - start);
                let (some_codes, rest) = codes.split_at_mut(count * code_bytes);
                codes = rest;
                let (some_scales, rest) = scales.split_at_mut(count * scale_bytes);
                scales = rest;
                let mut part = move || {
                    for tile in 0..count {
                        for row in 0..TILE.min(rows - (start + tile) * TILE) {
                            let source = &bytes[((start + tile) * TILE + row) * row_bytes..];
                            let source = &source[..row_bytes];
                            let codes = &mut some_codes[tile * code_bytes..][..code_bytes];
                            let scales = &mut some_scales[tile * scale_bytes..][..scale_bytes];
                            for block in 0..blocks {
                                let mut part = stored.part(source, block);
                                if exact {
                                    part = Part::Exact(part.values());
                                }
                                place(&part, row, block, codes, scales);
                            }
                        }
                    }
                };
                if start + count < tiles {
                    scope.spawn(part);
                } else {
                    part();
                }
            }
        });
    }

    /// The numbers of a row, in float32.
    ///
    /// # Panics
    /// When there is no such row, or `values` is shorter than it.
    pub fn row(&self, row: usize, values: &mut [f32]) {
        let tile = self.tile(row / TILE);
        let values = values[..self.columns].chunks_exact_mut(BLOCK);
        for (block, values) in values.enumerate() {
            values.copy_from_slice(&tile.part(row % TILE, block).values());
        }
    }
}

impl Tile<'_> {
    /// Row `row` of a block, as it was stored.
    fn part(&self, row: usize, block: usize) -> Part {
        let size = self.packed.code_bytes();
        let bytes = &self.codes[block * size..][..size];
        let codes = |i: usize| -> u8 {
            let (group, lane) = (i / 4, i % 4);
            let four =
                |group: usize| bytes[group / 2 * 64 + row * 4 + lane] >> (group % 2 * 4) & 15;
            match self.packed {
                Packed::F32 => 0,
                Packed::Q4_0 | Packed::Q4K => four(group),
                Packed::Q8_0 => bytes[group * 64 + row * 4 + lane],
                Packed::Q6K => {
                    let upper = bytes[256 + group / 4 * 64 + row * 4 + lane] >> (group % 4 * 2);
                    four(group) | (upper & 3) << 4
                }
            }
        };
        let codes = || std::array::from_fn(codes);
        let two = |at: usize| [self.scales[at], self.scales[at + 1]];
        match self.packed {
            Packed::F32 => Part::Exact(std::array::from_fn(|column| {
                let at = (column * TILE + row) * 4;
                f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            })),
            Packed::Q4_0 => Part::Q4_0 {
                codes: codes(),
                scale: two((block * TILE + row) * 2),
            },
            Packed::Q8_0 => Part::Q8_0 {
                codes: codes(),
                scale: two((block * TILE + row) * 2),
            },
            Packed::Q4K => {
                let base = block / 8 * 320;
                let own = base + 64 + block % 8 * 32;
                Part::Q4K {
                    codes: codes(),
                    scale: two(base + row * 2),
                    minimum: two(base + 32 + row * 2),
                    factor: self.scales[own + row],
                    offset: self.scales[own + 16 + row],
                }
            }
            Packed::Q6K => {
                let base = block / 8 * 288;
                let own = base + 32 + block % 8 * 32;
                Part::Q6K {
                    codes: codes(),
                    scale: two(base + row * 2),
                    factors: [self.scales[own + row], self.scales[own + 16 + row]],
                }
            }
        }
    }

    /// The sixteen scales of float16 at byte `at`.
    pub(crate) fn halves(&self, at: usize) -> [f32; TILE] {
        std::array::from_fn(|row| {
            f16::from_le_bytes([self.scales[at + 2 * row], self.scales[at + 2 * row + 1]]).to_f32()
        })
    }
}

/// Writes a block of a row into its tile.
fn place(part: &Part, row: usize, block: usize, codes: &mut [u8], scales: &mut [u8]) {
    let size = match part {
        Part::Exact(_) => Packed::F32,
        Part::Q4_0 { .. } => Packed::Q4_0,
        Part::Q8_0 { .. } => Packed::Q8_0,
        Part::Q4K { .. } => Packed::Q4K,
        Part::Q6K { .. } => Packed::Q6K,
    }
    .code_bytes();
    let bytes = &mut codes[block * size..][..size];
    let mut two = |at: usize, value: [u8; 2]| scales[at..at + 2].copy_from_slice(&value);
    match part {
        Part::Exact(values) => {
            for (column, value) in values.iter().enumerate() {
                bytes[(column * TILE + row) * 4..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }
        Part::Q4_0 { codes, scale } => {
            place_four(codes, row, bytes);
            two((block * TILE + row) * 2, *scale);
        }
        Part::Q8_0 { codes, scale } => {
            for (group, four) in codes.chunks_exact(4).enumerate() {
                bytes[group * 64 + row * 4..][..4].copy_from_slice(four);
            }
            two((block * TILE + row) * 2, *scale);
        }
        Part::Q4K {
            codes,
            scale,
            minimum,
            factor,
            offset,
        } => {
            place_four(codes, row, bytes);
            let base = block / 8 * 320;
            two(base + row * 2, *scale);
            two(base + 32 + row * 2, *minimum);
            let own = base + 64 + block % 8 * 32;
            scales[own + row] = *factor;
            scales[own + 16 + row] = *offset;
        }
        Part::Q6K {
            codes,
            scale,
            factors,
        } => {
            place_four(&codes.map(|code| code & 15), row, bytes);
            for (half, codes) in codes.chunks_exact(16).enumerate() {
                for lane in 0..4 {
                    let upper = |group: usize| codes[group * 4 + lane] >> 4 << (2 * group);
                    bytes[256 + half * 64 + row * 4 + lane] =
                        upper(0) | upper(1) | upper(2) | upper(3);
                }
            }
            let base = block / 8 * 288;
            two(base + row * 2, *scale);
            let own = base + 32 + block % 8 * 32;
            scales[own + row] = factors[0];
            scales[own + 16 + row] = factors[1];
        }
    }
}

/// Codes of four bits: of each eight columns, four in the lower halves and four in the upper.
fn place_four(codes: &[u8; BLOCK], row: usize, bytes: &mut [u8]) {
    for (pair, eight) in codes.chunks_exact(8).enumerate() {
        for lane in 0..4 {
            bytes[pair * 64 + row * 4 + lane] = eight[lane] | eight[lane + 4] << 4;
        }
    }
}
