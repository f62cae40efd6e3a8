//! Memory on the boundaries of cache lines, zeroed.

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that start on a cache line.
#[derive(Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

impl Aligned {
    /// `length` zeros.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        Self {
            lines: vec![Line([0; 64]); length.div_ceil(64)],
            length,
        }
    }

    /// All of them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a `Line` is 64 bytes without padding, and `length` is at most those of all lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    /// All of them, to be written.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and they are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
