//! Frames: four bytes of length (big endian), then that many bytes of JSON.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of JSON that a frame may hold. An open document is at most 8 MiB, and JSON escapes some of it.
pub const LIMIT: usize = 16 << 20;

/// Bytes of JSON that a frame may hold before the other side has said who it is.
pub const HELLO_LIMIT: usize = 64 << 10;

/// Bytes that are read before more room is made, so that a length alone takes no memory.
const STEP: u64 = 64 << 10;

/// A message, ready to be written.
#[derive(Debug, Clone)]
pub struct Frame(Vec<u8>);

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// It ended in the middle of a frame.
    #[error("the connection ended in the middle of a message")]
    CutShort,
    /// The frame is larger than it may be.
    #[error("a message of {bytes} bytes, where {limit} are allowed")]
    TooLarge {
        /// Its length, in bytes.
        bytes: usize,
        /// The most it may be.
        limit: usize,
    },
    /// It is no message. Says where it goes wrong and never quotes it: it may hold the user's text.
    #[error("a message that makes no sense ({0} error)")]
    Malformed(&'static str),
}

impl Frame {
    /// `message` as a frame.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn new(message: &impl Serialize) -> Result<Self, FrameError> {
        let mut bytes = vec![0; 4];
        // The types of the wire have nothing that JSON cannot say; a failed write is the only way.
        serde_json::to_writer(&mut bytes, message).map_err(|error| FrameError::Io(error.into()))?;
        let length = bytes.len() - 4;
        if length > LIMIT {
            return Err(FrameError::TooLarge {
                bytes: length,
                limit: LIMIT,
            });
        }
        bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
        Ok(Self(bytes))
    }

    /// What goes onto the connection.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads the next message, of at most `limit` bytes; `None` where the connection ended before it.
///
/// Not to be dropped halfway: what was read is lost.
///
/// # Errors
/// [`FrameError`]; the connection is then of no more use.
pub async fn read<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<Option<T>, FrameError> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match input.read(&mut length[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::CutShort),
            more => have += more,
        }
    }
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > limit {
        return Err(FrameError::TooLarge { bytes, limit });
    }
    let mut json = Vec::new();
    let mut input = input.take(bytes as u64);
    while json.len() < bytes {
        json.reserve((bytes - json.len()).min(STEP as usize));
        if input.read_buf(&mut json).await? == 0 {
            return Err(FrameError::CutShort);
        }
    }
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|error| FrameError::Malformed(category(&error)))
}

fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Io => "I/O",
        serde_json::error::Category::Syntax => "syntax",
        serde_json::error::Category::Data => "data",
        serde_json::error::Category::Eof => "length",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8], limit: usize) -> Result<Option<String>, FrameError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(read(&mut &*bytes, limit))
    }

    #[test]
    fn a_message_comes_back() {
        let frame = Frame::new(&"a\u{0}\nü").unwrap();
        assert_eq!(
            read_all(frame.bytes(), LIMIT).unwrap().unwrap(),
            "a\u{0}\nü"
        );
        assert_eq!(read_all(&[], LIMIT).unwrap(), None);
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let huge = [&u32::MAX.to_be_bytes()[..], b"x"].concat();
        let error = read_all(&huge, LIMIT).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
        let within = [&(LIMIT as u32).to_be_bytes()[..], b"x"].concat();
        let error = read_all(&within, LIMIT).unwrap_err();
        assert!(matches!(error, FrameError::CutShort), "{error}");
    }

    #[test]
    fn an_error_does_not_quote_the_message() {
        let frame = Frame::new(&serde_json::json!({"secret": 1})).unwrap();
        let error = read_all(frame.bytes(), LIMIT).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_made() {
        let error = Frame::new(&"x".repeat(LIMIT)).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let _ = read_all(&bytes, 32);
        }

        #[test]
        fn a_frame_that_is_cut_short_is_told_from_an_end(text in "\\PC{0,40}", cut in 1usize..40) {
            let frame = Frame::new(&text).unwrap();
            let cut = cut.min(frame.bytes().len() - 1);
            let error = read_all(&frame.bytes()[..cut], LIMIT).unwrap_err();
            prop_assert!(matches!(error, FrameError::CutShort));
        }
    }
}
