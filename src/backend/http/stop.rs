//! Ends a text before its first stop sequence, over any cutting into pieces. Pure.
//!
//! The API takes stop sequences too, but none that are blank (a completion of one line stops at a
//! line break), and it does not see what the text looks like once it is taken out of its tags.

/// See the module.
#[derive(Debug)]
pub struct StopSequences {
    sequences: Vec<String>,
    held: String,
}

/// Text that is certain, and whether a stop sequence has come after it.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// The text.
    pub text: String,
    /// Nothing follows.
    pub stopped: bool,
}

impl StopSequences {
    /// Empty sequences are ignored.
    #[must_use]
    pub fn new(sequences: &[String]) -> Self {
        Self {
            sequences: sequences
                .iter()
                .filter(|sequence| !sequence.is_empty())
                .cloned()
                .collect(),
            held: String::new(),
        }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        let first = self
            .sequences
            .iter()
            .filter_map(|sequence| self.held.find(sequence))
            .min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Passed {
                text: std::mem::take(&mut self.held),
                stopped: true,
            };
        }
        let keep = self
            .sequences
            .iter()
            .map(|sequence| started(&self.held, sequence))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Passed {
            text: std::mem::replace(&mut self.held, rest),
            stopped: false,
        }
    }

    /// What was held back, once the text has ended.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that may be the start of `sequence`.
fn started(text: &str, sequence: &str) -> usize {
    (1..sequence.len())
        .rev()
        .filter(|len| sequence.is_char_boundary(*len))
        .find(|len| text.ends_with(&sequence[..*len]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sequences: &[&str], text: &str, expected: &str, stops: bool) {
        let sequences: Vec<String> = sequences.iter().map(ToString::to_string).collect();
        let mut whole = StopSequences::new(&sequences);
        let mut pieces = StopSequences::new(&sequences);
        let passed = whole.push(text);
        let mut got = passed.text;
        got.push_str(&whole.finish());
        assert_eq!(
            (got.as_str(), passed.stopped),
            (expected, stops),
            "{text:?}"
        );

        let (mut got, mut stopped) = (String::new(), false);
        for c in text.chars() {
            let passed = pieces.push(c.encode_utf8(&mut [0; 4]));
            got.push_str(&passed.text);
            stopped = passed.stopped;
            if stopped {
                break;
            }
        }
        if !stopped {
            got.push_str(&pieces.finish());
        }
        assert_eq!(
            (got.as_str(), stopped),
            (expected, stops),
            "pieces of {text:?}"
        );
    }

    #[test]
    fn a_text_ends_before_its_first_stop_sequence() {
        check(&[], "a\nb", "a\nb", false);
        check(&[""], "ab", "ab", false);
        check(&["\n"], "a\nb", "a", true);
        check(&["\n\n"], "a\nb\n", "a\nb\n", false);
        check(&["\n\n"], "a\n\nb", "a", true);
        check(&["ébc", "x"], "aébébc", "aéb", true);
        check(&["zz", "b"], "abzz", "a", true);
    }
}
