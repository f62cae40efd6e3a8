//! Memory on the boundaries of cache lines, zeroed.

/// A cache line.
const LINE: usize = 64;

/// Bytes that start on a cache line.
#[derive(Debug, Default)]
pub struct Aligned {
    /// Asked of the system as zeros, which costs nothing before a page is touched. It never grows, so
    /// it never moves.
    buffer: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// `length` zeros.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        let buffer = vec![0; length + LINE - 1].into_boxed_slice();
        let start = buffer.as_ptr().addr().next_multiple_of(LINE) - buffer.as_ptr().addr();
        Self {
            buffer,
            start,
            length,
        }
    }

    /// All of them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }

    /// All of them, to be written.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.length]
    }
}
