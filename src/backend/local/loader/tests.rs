//! A file that is cut while it is loaded.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::error::LoadErrorKind;
use super::*;

/// A file that somebody cuts to `left` bytes once so many were read.
struct Cut<'a> {
    whole: Cursor<&'a [u8]>,
    left: usize,
    until: usize,
    read: AtomicUsize,
}

impl<'a> Cut<'a> {
    /// A model file of which nothing is left once `until` bytes were read, but its beginning.
    fn new(whole: &'a [u8], until: usize) -> Self {
        Self {
            whole: Cursor::new(whole),
            left: 64,
            until,
            read: AtomicUsize::new(0),
        }
    }

    /// What is there now.
    fn there(&self) -> &'a [u8] {
        let whole = *self.whole.get_ref();
        if self.read.load(Ordering::SeqCst) < self.until {
            whole
        } else {
            &whole[..self.left]
        }
    }
}

impl Read for Cut<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let there = self.there();
        let from = (self.whole.position() as usize).min(there.len());
        let count = (&there[from..]).read(bytes)?;
        self.whole.set_position((from + count) as u64);
        self.read.fetch_add(count, Ordering::SeqCst);
        Ok(count)
    }
}

impl Seek for Cut<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.whole.seek(to)
    }
}

impl ReadAt for Cut<'_> {
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        Cursor::new(self.there()).read_exact_at(offset, bytes)?;
        self.read.fetch_add(bytes.len(), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_loaded_says_so() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let whole = fs::read(fixtures.join("qwen3-tiny-q8_0.gguf")).unwrap();
    for arithmetic in [Arithmetic::Candle, Arithmetic::Packed, Arithmetic::Rounded] {
        let load = |until: usize| {
            let gguf = Gguf::open(Cut::new(&whole, until), "cut.gguf")?;
            load_gguf(gguf, "cut", 256, arithmetic).map(drop)
        };
        load(usize::MAX).unwrap();
        // The vocabulary and what stands before the tensors is read first; norms are read last.
        for until in (0..whole.len() * 9 / 10).step_by(whole.len() / 40) {
            let error = load(until).unwrap_err();
            assert_eq!(error.kind, LoadErrorKind::CutShort, "{until}: {error}");
            let told = error.to_string();
            assert!(told.starts_with("cut.gguf: "), "{told}");
            assert!(told.ends_with("download the model again."), "{told}");
        }
    }
}
