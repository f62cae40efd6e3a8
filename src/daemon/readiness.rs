//! What a daemon that was started tells whoever started it, once, over its standard output.

/// The first byte says which, the rest is text; then the pipe is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It listens.
    Ready,
    /// Another daemon serves this folder already, so this one has ended.
    Another,
    /// It cannot serve: what happened, ending with the next step.
    Failed(String),
}

/// Bytes of an error's text that are read.
pub(super) const LONGEST: usize = 4096;

impl Readiness {
    /// As it goes through the pipe.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Ready => b"R".to_vec(),
            Self::Another => b"A".to_vec(),
            Self::Failed(error) => [b"E", error.as_bytes()].concat(),
        }
    }

    /// What came through the pipe before it was closed.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        match bytes.split_first() {
            Some((b'R', _)) => Self::Ready,
            Some((b'A', _)) => Self::Another,
            Some((b'E', text)) => {
                let text = &text[..text.len().min(LONGEST)];
                Self::Failed(String::from_utf8_lossy(text).into_owned())
            }
            Some(_) | None => Self::Failed(
                "it ended before it said a word. Run `tandem daemon run` to see why, or \
                 `tandem daemon logs`."
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_back() {
        for said in [
            Readiness::Ready,
            Readiness::Another,
            Readiness::Failed("no room. Make some.".to_owned()),
        ] {
            assert_eq!(Readiness::read(&said.bytes()), said);
        }
    }

    #[test]
    fn silence_and_nonsense_are_failures() {
        for bytes in [&b""[..], b"?", b"thread panicked"] {
            assert!(matches!(Readiness::read(bytes), Readiness::Failed(_)));
        }
    }
}
