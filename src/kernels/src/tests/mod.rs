//! Products held to float64, kernels to one another, and a whole model to itself.

mod attention;
mod memory;
mod model;
mod pool;
mod products;

use crate::format::{BLOCK, Stored};
use crate::matrix::{Matrix, Packed};

const CODES: [Stored; 4] = [Stored::Q4_0, Stored::Q8_0, Stored::Q4K, Stored::Q6K];

/// Pseudo-random numbers (xorshift64*); a test names its seed.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.bits() >> 33) as usize % bound
    }

    /// Between -1 and 1.
    fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn numbers(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.number() * size).collect()
    }

    /// Rows of any codes, every other block of extreme ones, with scales of about `scale`.
    fn rows(&mut self, stored: Stored, rows: usize, columns: usize, scale: f32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in 0..rows * columns / stored.block() {
            let extreme = [0x00, 0xff, 0x80, 0x7f][self.below(4)];
            for _ in 0..stored.bytes() {
                let any = (self.bits() >> 56) as u8;
                bytes.push(if block % 2 == 0 { any } else { extreme });
            }
        }
        let scales: &[usize] = match stored {
            Stored::Q4K => &[0, 2],
            Stored::Q6K => &[208],
            Stored::F32 | Stored::F16 | Stored::BF16 => &[],
            Stored::Q4_0 | Stored::Q8_0 => &[0],
        };
        for block in bytes.chunks_exact_mut(stored.bytes()) {
            for at in scales {
                let scale = half::f16::from_f32(self.number() * scale);
                block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        if stored == Stored::F32 {
            for number in bytes.chunks_exact_mut(4) {
                number.copy_from_slice(&(self.number() * scale).to_le_bytes());
            }
        }
        bytes
    }

    fn matrix(&mut self, stored: Stored, rows: usize, columns: usize, scale: f32) -> Matrix {
        let bytes = self.rows(stored, rows, columns, scale);
        packed(stored, rows, columns, &bytes)
    }
}

fn packed(stored: Stored, rows: usize, columns: usize, bytes: &[u8]) -> Matrix {
    let mut matrix = Matrix::new(rows, columns, Packed::of(stored));
    // By threads of their own and the last piece first, as may happen when a model is loaded.
    let row_bytes = stored.row_bytes(columns);
    let mut pieces: Vec<_> = matrix.pieces(2).collect();
    std::thread::scope(|scope| {
        for mut piece in pieces.drain(..).rev() {
            let bytes = &bytes[piece.first() * row_bytes..][..piece.rows() * row_bytes];
            scope.spawn(move || piece.pack(stored, bytes));
        }
    });
    matrix
}

/// The numbers of a stored row.
fn values(stored: Stored, row: &[u8], columns: usize) -> Vec<f32> {
    let parts = (0..columns / BLOCK).map(|block| stored.part(row, block).values());
    parts.flatten().collect()
}
