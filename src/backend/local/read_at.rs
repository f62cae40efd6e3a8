//! Reading at a place of a file, by several threads at once.

use std::fs::File;
use std::io::{self, BufReader, Cursor};

/// What can be read at any place without moving.
pub trait ReadAt: Sync {
    /// Fills `bytes` with what lies from byte `offset` on.
    ///
    /// # Errors
    /// Those of the system; and [`io::ErrorKind::UnexpectedEof`] where it ends before.
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for BufReader<File> {
    #[cfg(unix)]
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self.get_ref(), bytes, offset)
    }

    /// It moves the file's own place, which nobody relies on who reads here.
    #[cfg(windows)]
    fn read_exact_at(&self, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(self.get_ref(), bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    bytes = &mut bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<T: AsRef<[u8]> + Sync> ReadAt for Cursor<T> {
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let all = self.get_ref().as_ref();
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| all.get(offset..));
        match from.and_then(|from| from.get(..bytes.len())) {
            Some(there) => {
                bytes.copy_from_slice(there);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_place_is_read_and_nothing_behind_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ten");
        fs::write(&path, b"0123456789").unwrap();
        let file = BufReader::new(File::open(&path).unwrap());
        let memory = Cursor::new(b"0123456789");
        for source in [&file as &dyn ReadAt, &memory] {
            let mut bytes = [0; 4];
            source.read_exact_at(6, &mut bytes).unwrap();
            assert_eq!(&bytes, b"6789");
            for past in [7, 10, 1 << 40] {
                let error = source.read_exact_at(past, &mut bytes).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }
}
