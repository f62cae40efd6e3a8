//! Memory for weights, which every token reads all of: one matrix behind the other, each on the boundary of
//! a cache line, later in large pages where the system has them.

use std::ops::Range;

use bytes::BytesMut;

/// A cache line.
const LINE: usize = 64;
/// A large page, of processors whose others have 4 KB.
const LARGE: usize = 2 << 20;

/// A part of memory, with an owner of its own.
pub type Room = BytesMut;

/// Zeros that are handed out in parts. It is given back when the last of them is gone.
#[derive(Debug)]
pub struct Memory {
    zeros: BytesMut,
    /// Where it begins, and its length in bytes.
    whole: (usize, usize),
}

impl Memory {
    /// Room for parts of these lengths, in bytes. It costs nothing before it is touched.
    #[must_use]
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let lengths = lengths.into_iter();
        let length: usize = lengths.map(|length| length.next_multiple_of(LINE)).sum();
        let mut zeros = BytesMut::zeroed(length + LINE - 1);
        let start = zeros.as_ptr().addr().next_multiple_of(LINE);
        drop(zeros.split_to(start - zeros.as_ptr().addr()));
        Self {
            zeros,
            whole: (start, length),
        }
    }

    /// The next `length` bytes.
    ///
    /// # Panics
    /// When there are not so many left.
    pub fn part(&mut self, length: usize) -> Room {
        let room = length.next_multiple_of(LINE);
        assert!(room <= self.zeros.len(), "more than there is room for");
        let mut part = self.zeros.split_to(room);
        part.truncate(length);
        part
    }

    /// What lies there can be moved into large pages, all parts staying where they are.
    #[must_use]
    pub fn into_large_pages(self) -> LargePages {
        let (start, length) = self.whole;
        let first = start.next_multiple_of(LARGE);
        LargePages {
            rest: first..(start + length) / LARGE * LARGE,
            _memory: self,
        }
    }
}

/// Weights on their way into large pages. Small ones are so many that the processor looks them up again and
/// again, and at the end of each its prefetching stops. To move all can take as long as loading did, so it is
/// done a little at a time.
#[derive(Debug)]
pub struct LargePages {
    /// What has not been moved, by address: whole large pages.
    rest: Range<usize>,
    /// Has it stay there until the end.
    _memory: Memory,
}

impl LargePages {
    /// Has the system move the next large page's worth. Returns whether there is more to move: nothing, where
    /// the system does not do such things.
    pub fn step(&mut self) -> bool {
        if self.rest.is_empty() {
            return false;
        }
        if moved(self.rest.start) {
            self.rest.start += LARGE;
        } else {
            self.rest.start = self.rest.end;
        }
        !self.rest.is_empty()
    }
}

/// Has the system make one large page of what lies at an address, if it can. Returns whether it knows how to.
#[cfg(target_os = "linux")]
fn moved(address: usize) -> bool {
    /// `MADV_COLLAPSE`, since Linux 6.1.
    const COLLAPSE: libc::c_int = 25;
    let start = std::ptr::without_provenance_mut(address);
    // SAFETY: `LargePages` keeps the memory, and a page of another size, which takes the place of those before
    // at once, holds the same.
    let result = unsafe { libc::madvise(start, LARGE, COLLAPSE) };
    // Where there is no free memory in one piece, the next may do.
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}

#[cfg(not(target_os = "linux"))]
fn moved(_: usize) -> bool {
    false
}
