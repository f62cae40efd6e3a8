//! Which instructions compute: the widest that prove themselves on this machine.

use crate::format::{BLOCK, Stored};
use crate::lanes::{self, Block, Lanes, Running};
use crate::matrix::{Matrix, Packed, Tile};
use crate::portable;

/// Adds a product to rows of 16 numbers.
type Panel<Number> =
    fn(depth: usize, a: &[f32], a_stride: usize, b: &[Number], c: &mut [f32], c_stride: usize);

/// One set of kernels.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// What it is called.
    pub name: &'static str,
    /// The products of a tile of codes with tokens, one for each of `out`: the activations of token
    /// `t` in block `b` are at `b * stride + t`. For each block in turn the dot product of the codes,
    /// an exact integer, is multiplied by the product of both scales and added, rounded once.
    pub product: fn(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]),
    /// Adds to rows of 16 numbers, `c_stride` apart, those of `a` (`depth` wide, `a_stride` apart)
    /// times `b`, `depth` rows of 16 numbers of float32, little-endian.
    pub panel_f32: Panel<u8>,
    /// The same with numbers of float16, as bits.
    pub panel_f16: Panel<u16>,
    /// Rounds to float16, as bits, ties to even.
    pub to_half: fn(values: &[f32], halves: &mut [u16]),
    /// [`lanes::quantize`].
    pub quantize: fn(values: &[f32; BLOCK]) -> Block,
    /// [`lanes::add_squares`].
    pub add_squares: fn(sums: &mut [f32; 16], values: &[f32; 16]),
    /// [`lanes::rms_norm`].
    pub rms_norm: fn(values: &mut [f32], weight: &[f32], epsilon: f32),
    /// [`lanes::rotate`].
    pub rotate: fn(values: &mut [f32], cosine: &[f32], sine: &[f32]),
    /// [`lanes::swiglu`].
    pub swiglu: fn(gate: &mut [f32; 16], up: &[f32; 16]),
    /// [`lanes::soften`].
    pub soften: fn(scores: &mut [f32], running: &mut Running) -> f32,
    /// [`lanes::multiply`].
    pub multiply: fn(values: &mut [f32], factor: f32),
}

impl Kernels {
    /// Those that every processor has, and that define the result.
    #[must_use]
    pub fn portable() -> Self {
        Self {
            name: "portable",
            product: portable::product,
            panel_f32: portable::panel_f32,
            panel_f16: portable::panel_f16,
            to_half: portable::to_half,
            quantize: lanes::quantize,
            add_squares: lanes::add_squares,
            rms_norm: lanes::rms_norm,
            rotate: lanes::rotate,
            swiglu: lanes::swiglu,
            soften: lanes::soften,
            multiply: lanes::multiply,
        }
    }

    /// Those that this processor has, best first, portable last; whether they work is another matter.
    #[must_use]
    pub fn present() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let wider = [
            crate::avx512::kernels(),
            crate::avxvnni::kernels(),
            crate::avx2::kernels(),
        ];
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        let wider = [crate::neon::kernels()];
        #[cfg(not(any(
            target_arch = "x86_64",
            all(target_arch = "aarch64", target_endian = "little")
        )))]
        let wider = [None];
        wider
            .into_iter()
            .flatten()
            .chain([Self::portable()])
            .collect()
    }

    /// The best that agree with the portable ones on this machine, and what was found wrong with
    /// better ones.
    #[must_use]
    pub fn best() -> (Self, Vec<String>) {
        let mut rejected = Vec::new();
        for kernels in Self::present() {
            match kernels.check() {
                Ok(()) => return (kernels, rejected),
                Err(wrong) => rejected.push(wrong),
            }
        }
        (Self::portable(), rejected)
    }

    /// Holds each kernel to the portable one on pseudo-random numbers, bit by bit.
    ///
    /// # Errors
    /// Which kernel gave something else.
    #[expect(
        clippy::float_cmp,
        reason = "every kernel gives the same bits, or it is wrong"
    )]
    pub fn check(&self) -> Result<(), String> {
        let reference = Self::portable();
        let wrong = |kernel: &str| Err(format!("{} kernels: {kernel} is wrong", self.name));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let tokens = 7;
        let blocks: Vec<Block> = (0..8 * tokens)
            .map(|_| lanes::quantize(&random.numbers::<BLOCK>(8.0)))
            .collect();
        for stored in [Stored::Q4_0, Stored::Q8_0, Stored::Q4K, Stored::Q6K] {
            let matrix = random.matrix(stored, 16, 256);
            for count in 1..=tokens {
                let mut ours = vec![Lanes::ZERO; count];
                let mut theirs = ours.clone();
                (self.product)(matrix.tile(0), &blocks, tokens, &mut ours);
                (reference.product)(matrix.tile(0), &blocks, tokens, &mut theirs);
                if ours != theirs {
                    return wrong(&format!("the product of {stored:?}"));
                }
            }
        }
        for block in 0..4 {
            let values = random.numbers::<BLOCK>([1.0, 1e-20, 1e20, 0.0][block]);
            if (self.quantize)(&values) != (reference.quantize)(&values) {
                return wrong("rounding to 8 bits");
            }
        }
        let numbers = random.numbers::<512>(3.0);
        let mut halves = [[0; 512]; 2];
        (self.to_half)(&numbers, &mut halves[0]);
        (reference.to_half)(&numbers, &mut halves[1]);
        if halves[0] != halves[1] {
            return wrong("rounding to float16");
        }
        let floats: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        for rows in 1..10 {
            let a = random.numbers::<288>(1.0);
            let start = random.numbers::<176>(1.0);
            let (mut ours, mut theirs) = (start, start);
            let end = (rows - 1) * 20 + 16;
            (self.panel_f32)(32, &a, 32, &floats, &mut ours[..end], 20);
            (reference.panel_f32)(32, &a, 32, &floats, &mut theirs[..end], 20);
            (self.panel_f16)(31, &a, 32, &halves[0], &mut ours[..end], 20);
            (reference.panel_f16)(31, &a, 32, &halves[0], &mut theirs[..end], 20);
            if ours != theirs {
                return wrong("a panel of attention");
            }
        }
        let (weight, cosine) = (random.numbers::<48>(1.0), random.numbers::<24>(1.0));
        let mut ours = random.numbers::<48>(2.0);
        let mut theirs = ours;
        let mut results = [0.0; 2];
        for (kernels, values, result) in [(self, &mut ours, 0), (&reference, &mut theirs, 1)] {
            (kernels.rms_norm)(values, &weight, 1e-6);
            (kernels.rotate)(values, &cosine, &weight[..24]);
            (kernels.multiply)(values, 30.0);
            let (gate, rest) = values.split_at_mut(16);
            if let (Some(gate), Some(up)) = (gate.first_chunk_mut(), rest.first_chunk()) {
                (kernels.swiglu)(gate, up);
                (kernels.add_squares)(gate, up);
            }
            let mut running = Running::NONE;
            results[result] = (kernels.soften)(&mut rest[..16], &mut running);
            results[result] += (kernels.soften)(&mut rest[16..], &mut running) + running.sum;
        }
        if ours != theirs || results[0] != results[1] || !results[0].is_finite() {
            return wrong("norm, rotation, gate or softmax");
        }
        Ok(())
    }
}

/// Pseudo-random numbers (xorshift64*), the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between minus `size` and `size`.
    fn numbers<const N: usize>(&mut self, size: f32) -> [f32; N] {
        std::array::from_fn(|_| {
            let unit = (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            unit * size
        })
    }

    /// Any codes, extreme ones among them, and scales around a hundredth.
    fn matrix(&mut self, stored: Stored, rows: usize, columns: usize) -> Matrix {
        let mut bytes: Vec<u8> = (0..rows * stored.row_bytes(columns))
            .map(|_| match self.next() >> 60 {
                0 => 0x00,
                1 => 0xff,
                2 => 0x80,
                _ => (self.next() >> 56) as u8,
            })
            .collect();
        let scales: &[usize] = match stored {
            Stored::Q4K => &[0, 2],
            Stored::Q6K => &[208],
            _ => &[0],
        };
        for block in bytes.chunks_exact_mut(stored.bytes()) {
            for at in scales {
                let scale = half::f16::from_f32(self.numbers::<1>(0.01)[0]);
                block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        let mut matrix = Matrix::new(rows, columns, Packed::of(stored));
        for mut piece in matrix.pieces(rows) {
            piece.pack(stored, &bytes);
        }
        matrix
    }
}
