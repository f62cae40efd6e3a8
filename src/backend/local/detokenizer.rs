//! From tokens' bytes to text, piece by piece, whole characters only.
//!
//! A token of a byte-level vocabulary may end inside a character. Such bytes wait for the rest;
//! bytes that can never become a character read as U+FFFD, as in [`String::from_utf8_lossy`].

/// Holds the bytes of a character that is not whole yet.
#[derive(Debug, Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// The text that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[done..valid]));
                    done = valid;
                    match error.error_len() {
                        Some(invalid) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            done += invalid;
                        }
                        None => break,
                    }
                }
            }
        }
        self.pending.drain(..done);
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>) {
        let mut detokenizer = Detokenizer::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts
            .windows(2)
            .map(|cut| detokenizer.push(&bytes[cut[0]..cut[1]]))
            .collect();
        (pieces, detokenizer.pending)
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole_however_bytes_are_cut(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                "\\PC{0,12}".prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            let (pieces, pending) = pieces(&bytes, &cuts);
            let whole = String::from_utf8_lossy(&bytes[..bytes.len() - pending.len()]);
            prop_assert_eq!(pieces.concat(), whole);
            prop_assert!(pending.len() < 4, "only the start of a character may wait");
        }
    }

    #[test]
    fn a_character_is_never_split() {
        let (pieces, pending) = pieces("a🦀b".as_bytes(), &[2, 3, 4]);
        assert_eq!(pieces, ["a", "", "", "🦀b"]);
        assert_eq!(pending, b"");
    }
}
