//! Which instructions compute: the widest that prove themselves on this machine.

use crate::cache::PAGE;
use crate::format::Stored;
use crate::lanes::{self, Block, Groups, Lanes, Pairs, Row, Running};
use crate::matrix::{Matrix, Packed, Tile};
use crate::portable;

/// See [`Kernels::pair`].
type Pair = fn(tiles: [Tile<'_>; 2], blocks: &[Block], stride: usize, out: [&mut [Lanes]; 2]);
/// See [`Kernels::panel_f32`].
type Panel = fn(depth: usize, a: &[f32], a_stride: usize, b: &[u8], c: &mut [f32], c_stride: usize);
/// See [`Kernels::panel_codes`].
type PanelOfCodes =
    fn(a: &[i16], a_stride: usize, b: Groups<'_>, c: &mut [[i32; 16]], c_stride: usize);
/// See [`Kernels::weigh`].
type Weigh = fn(
    dots: &[[[i32; 16]; PAGE / 16]],
    visible: &[usize],
    scales: &[[f32; PAGE]; 2],
    most: f32,
    rows: &mut [Row],
    weights: &mut [[i16; PAGE]],
);
/// See [`Kernels::scale`].
type Scale = fn(values: &[Lanes], factors: &[f32], weights: &[f32; 16], out: &mut [Lanes]);

/// One set of kernels.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// What it is called.
    pub name: &'static str,
    /// The products of a tile of codes with tokens, one for each of `out`: the activations of token
    /// `t` in block `b` are at `b * stride + t`. For each block in turn the dot product of the codes,
    /// an exact integer, is multiplied by the product of both scales and added, rounded once.
    pub product: fn(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]),
    /// The products of two tiles of the same sizes, where that is faster than of one after the other.
    pub pair: Option<Pair>,
    /// Adds to rows of 16 numbers, `c_stride` apart, those of `a` (`depth` wide, `a_stride` apart)
    /// times `b`, `depth` rows of 16 numbers of float32, little-endian.
    pub panel_f32: Panel,
    /// The dot products of rows of codes, `a_stride` apart, with those of `b`, `2 * b.depth` deep: for each
    /// row sixteen for each group, and `c_stride` sixteens to the next row's. All sums must fit into 32 bits.
    pub panel_codes: PanelOfCodes,
    /// [`lanes::encode`].
    pub encode: fn(values: &[f32], most: f32, codes: &mut [i16]) -> f32,
    /// [`lanes::weigh`].
    pub weigh: Weigh,
    /// [`lanes::add_weighted`].
    pub add_weighted: fn(sums: &mut [f32], dots: &[[i32; 16]], row: &Row),
    /// [`lanes::quantize`].
    pub quantize: fn(halves: [&[Lanes]; 2], into: &mut [Block]),
    /// [`lanes::gather`].
    pub gather: fn(from: &[Lanes], stride: usize, to: &mut [f32]),
    /// [`lanes::scale`].
    pub scale: Scale,
    /// [`lanes::add_squares`].
    pub add_squares: fn(sums: &mut [Lanes], values: &[Lanes]),
    /// [`lanes::rms_norm`].
    pub rms_norm: fn(values: &mut [f32], weight: &[f32], epsilon: f32),
    /// [`lanes::rotate`].
    pub rotate: fn(values: &mut [f32], cosine: &[f32], sine: &[f32]),
    /// [`lanes::swiglu`].
    pub swiglu: fn(gates: &mut [Lanes], ups: &[Lanes]),
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
            pair: None,
            panel_f32: portable::panel_f32,
            panel_codes: portable::panel_codes,
            encode: lanes::encode,
            weigh: lanes::weigh,
            add_weighted: lanes::add_weighted,
            quantize: lanes::quantize,
            gather: lanes::gather,
            scale: lanes::scale,
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
            .map(|_| {
                let [a, b] = [0; 2].map(|_| random.numbers::<16>(8.0));
                let mut block = Block::ZERO;
                lanes::round([&a, &b], &mut block);
                block
            })
            .collect();
        for stored in [Stored::Q4_0, Stored::Q8_0, Stored::Q4K, Stored::Q6K] {
            let matrix = random.matrix(stored, 32, 256);
            let tiles = [matrix.tile(0), matrix.tile(1)];
            for count in 1..=tokens {
                let mut theirs = [0; 2].map(|_| vec![Lanes::ZERO; count]);
                let mut ours = theirs.clone();
                for ((tile, ours), theirs) in tiles.iter().zip(&mut ours).zip(&mut theirs) {
                    (self.product)(*tile, &blocks, tokens, ours);
                    (reference.product)(*tile, &blocks, tokens, theirs);
                }
                if ours != theirs {
                    return wrong(&format!("the product of {stored:?}"));
                }
                let Some(pair) = self.pair else { continue };
                let [one, other] = &mut ours;
                pair(tiles, &blocks, tokens, [one, other]);
                if ours != theirs {
                    return wrong(&format!("the product of two tiles of {stored:?}"));
                }
            }
        }
        let sizes = [1.0, 1e-20, 1e20, 0.0, 1e-30, 1e-3];
        let [a, b] = [0; 2].map(|_| sizes.map(|size| Lanes(random.numbers::<16>(size))));
        let [ours, theirs] = [self, &reference].map(|kernels| {
            let mut blocks = sizes.map(|_| Block::ZERO);
            (kernels.quantize)([&a, &b], &mut blocks);
            blocks
        });
        if ours != theirs {
            return wrong("rounding to 8 bits");
        }
        let lanes = [0; 5].map(|_| Lanes(random.numbers::<16>(1.0)));
        let [ours, theirs] = [self, &reference].map(|kernels| {
            let mut numbers = [0.0; 48];
            (kernels.gather)(&lanes, 2, &mut numbers);
            numbers
        });
        if ours != theirs {
            return wrong("gathering a head");
        }
        let numbers = random.numbers::<512>(3.0);
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
            if ours != theirs {
                return wrong("a panel of float32");
            }
        }
        self.check_attention(&reference, &mut random)
            .or_else(wrong)?;
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
                let (mut gates, mut scaled) = ([Lanes(*gate)], [Lanes::ZERO]);
                (kernels.swiglu)(&mut gates, &[Lanes(*up)]);
                (kernels.add_squares)(&mut gates, &[Lanes(*up)]);
                (kernels.scale)(&gates, &[0.3], up, &mut scaled);
                *gate = scaled[0].0;
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

    /// Holds a page of attention to the portable one.
    fn check_attention(&self, reference: &Self, random: &mut Random) -> Result<(), &'static str> {
        let (rows, dims) = (9, 32);
        let queries: Vec<f32> = (0..rows).flat_map(|_| random.numbers::<32>(2.0)).collect();
        let codes: Vec<i16> = (0..PAGE * dims)
            .map(|_| (random.next() >> 48) as i16 / 4)
            .collect();
        let pairs: Vec<Pairs> = codes
            .chunks_exact(32)
            .map(|codes| Pairs(std::array::from_fn(|i| [codes[2 * i], codes[2 * i + 1]])))
            .collect();
        let scales = [random.numbers::<PAGE>(1e-4).map(f32::abs), [1e-3; PAGE]];
        let [ours, theirs] = [self, reference].map(|kernels| {
            let mut query = vec![0; rows * dims];
            let mut state = vec![Row::NONE; rows];
            let mut dots = vec![[0; 16]; rows * PAGE / 16];
            let mut sums = vec![[1.0; 16]; rows];
            let mut weights = vec![[0; PAGE]; rows];
            for ((row, codes), query) in state
                .iter_mut()
                .zip(query.chunks_exact_mut(dims))
                .zip(queries.chunks_exact(dims))
            {
                row.query = (kernels.encode)(query, lanes::most_of(dims), codes);
            }
            let keys = Groups {
                pairs: &pairs,
                apart: dims / 2,
                depth: dims / 2,
                ahead: &pairs,
            };
            (kernels.panel_codes)(&query, dims, keys, &mut dots, 4);
            let pages = dots.as_chunks().0;
            let visible: Vec<usize> = (60..60 + rows).collect();
            let most = lanes::most_of(PAGE);
            (kernels.weigh)(pages, &visible, &scales, most, &mut state, &mut weights);
            for ((sums, dots), row) in sums.iter_mut().zip(pages).zip(&state) {
                (kernels.add_weighted)(sums, &dots[..1], row);
            }
            (query, dots, weights, sums)
        });
        if ours.0 != theirs.0 {
            return Err("rounding to 16 bits");
        }
        if ours.1 != theirs.1 {
            return Err("a panel of codes");
        }
        if ours.2 != theirs.2 || ours.3 != theirs.3 {
            return Err("weights of attention");
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
