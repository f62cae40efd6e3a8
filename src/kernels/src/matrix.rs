//! Weights in the layout that products want.
//!
//! Sixteen rows make a tile. Within it the numbers of a block of 32 columns lie together, four
//! columns of a row side by side, then the same four of the next row: a vector register takes four
//! columns of eight or sixteen rows at once, and a sum never crosses a register. Nothing is rounded:
//! a tile holds the file's own codes and scales.

use half::f16;

use crate::format::{BLOCK, Part, Stored};
use crate::memory::{Memory, Room};

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
    codes: Room,
    scales: Room,
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

/// Some tiles of a matrix that is being filled.
#[derive(Debug)]
pub struct Piece<'a> {
    first: usize,
    rows: usize,
    packed: Packed,
    blocks: usize,
    codes: &'a mut [u8],
    scales: &'a mut [u8],
}

impl Piece<'_> {
    /// The matrix's row that it begins with.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }

    /// How many of the matrix's rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Packs its rows, stored one after another in `bytes`.
    ///
    /// # Panics
    /// When what is stored cannot be held in this layout, or is not all of its rows.
    pub fn pack(&mut self, stored: Stored, bytes: &[u8]) {
        let exact = self.packed == Packed::F32;
        assert!(exact || self.packed == Packed::of(stored), "another layout");
        let row_bytes = stored.row_bytes(self.blocks * BLOCK);
        assert!(bytes.len() == self.rows * row_bytes, "all of its rows");
        let code_bytes = self.blocks * self.packed.code_bytes();
        let scale_bytes = self.packed.scale_bytes(self.blocks);
        for (number, source) in bytes.chunks_exact(row_bytes).enumerate() {
            let (tile, row) = (number / TILE, number % TILE);
            let codes = &mut self.codes[tile * code_bytes..][..code_bytes];
            let scales = &mut self.scales[tile * scale_bytes..][..scale_bytes];
            for block in 0..self.blocks {
                let mut part = stored.part(source, block);
                if exact {
                    part = Part::Exact(part.values());
                }
                place(&part, row, block, codes, scales);
            }
        }
    }
}

impl Matrix {
    /// Room for `rows` by `columns`, all zero; the last tile is filled up with rows of zeros.
    ///
    /// # Panics
    /// When `columns` is not a multiple of the layout's block.
    #[must_use]
    pub fn new(rows: usize, columns: usize, packed: Packed) -> Self {
        let mut memory = Memory::of(Self::lengths(rows, columns, packed));
        Self::within(&mut memory, rows, columns, packed)
    }

    /// The same, as the next part of memory that was made for its [`lengths`](Self::lengths), too.
    ///
    /// # Panics
    /// When `columns` is not a multiple of the layout's block, or not enough memory is left.
    #[must_use]
    pub fn within(memory: &mut Memory, rows: usize, columns: usize, packed: Packed) -> Self {
        let [codes, scales] = Self::lengths(rows, columns, packed);
        Self {
            rows,
            columns,
            packed,
            codes: memory.part(codes),
            scales: memory.part(scales),
        }
    }

    /// Bytes of its codes and of its scales.
    ///
    /// # Panics
    /// When `columns` is not a multiple of the layout's block.
    #[must_use]
    pub fn lengths(rows: usize, columns: usize, packed: Packed) -> [usize; 2] {
        let block = match packed {
            Packed::Q4K | Packed::Q6K => 256,
            Packed::F32 | Packed::Q4_0 | Packed::Q8_0 => BLOCK,
        };
        assert!(columns.is_multiple_of(block), "rows are whole blocks");
        let (tiles, blocks) = (rows.div_ceil(TILE), columns / BLOCK);
        [blocks * packed.code_bytes(), packed.scale_bytes(blocks)].map(|bytes| tiles * bytes)
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
            codes: &self.codes[tile * codes..][..codes],
            scales: &self.scales[tile * scales..][..scales],
        }
    }

    /// All of it in pieces of `tiles` tiles, the last perhaps smaller, for threads to fill.
    ///
    /// # Panics
    /// When a piece is of no tiles.
    pub fn pieces(&mut self, tiles: usize) -> impl Iterator<Item = Piece<'_>> {
        assert!(tiles > 0, "a piece has a tile");
        let (rows, packed, blocks) = (self.rows, self.packed, self.columns / BLOCK);
        let sizes = [blocks * packed.code_bytes(), packed.scale_bytes(blocks)];
        let mut codes = &mut self.codes[..];
        let mut scales = &mut self.scales[..];
        (0..rows).step_by(tiles * TILE).map(move |first| {
            let rows = (rows - first).min(tiles * TILE);
            let tiles = rows.div_ceil(TILE);
            Piece {
                first,
                rows,
                packed,
                blocks,
                codes: codes.split_off_mut(..tiles * sizes[0]).unwrap_or_default(),
                scales: scales.split_off_mut(..tiles * sizes[1]).unwrap_or_default(),
            }
        })
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
            for (half, groups) in groups(codes).chunks_exact(4).enumerate() {
                let upper = |group: usize| (groups[group] >> 4 & 0x0303_0303) << (2 * group);
                let upper = upper(0) | upper(1) | upper(2) | upper(3);
                bytes[256 + half * 64 + row * 4..][..4].copy_from_slice(&upper.to_ne_bytes());
            }
            let base = block / 8 * 288;
            two(base + row * 2, *scale);
            let own = base + 32 + block % 8 * 32;
            scales[own + row] = factors[0];
            scales[own + 16 + row] = factors[1];
        }
    }
}

/// The codes by four columns, which a word of 32 bits holds.
fn groups(codes: &[u8; BLOCK]) -> [u32; BLOCK / 4] {
    let (groups, _) = codes.as_chunks::<4>();
    std::array::from_fn(|group| u32::from_ne_bytes(groups[group]))
}

/// Codes of four bits: of each eight columns, four in the lower halves and four in the upper.
fn place_four(codes: &[u8; BLOCK], row: usize, bytes: &mut [u8]) {
    for (pair, eight) in groups(codes).chunks_exact(2).enumerate() {
        let both = eight[0] | eight[1] << 4;
        bytes[pair * 64 + row * 4..][..4].copy_from_slice(&both.to_ne_bytes());
    }
}
