//! Stop sequences across pieces of text: nothing of a stop sequence is ever shown.

/// Holds back text that may be the start of a stop sequence.
#[derive(Debug)]
pub struct StopSequences {
    stops: Vec<String>,
    held: String,
}

/// What may be shown after a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// This text; more may come.
    Text(String),
    /// This text, and no more: a stop sequence followed it.
    Stopped(String),
}

impl StopSequences {
    /// Ends before any of `stops`; empty ones are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Takes the next piece. Of several stop sequences the one that is complete first counts, the
    /// longest of those, so that the outcome does not depend on how the text was cut.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| {
                let start = self.held.find(stop)?;
                Some((start + stop.len(), start))
            })
            .min();
        if let Some((_, start)) = found {
            self.held.truncate(start);
            return Passed::Stopped(std::mem::take(&mut self.held));
        }
        let free = self.held.len() - self.longest_start();
        let rest = self.held.split_off(free);
        Passed::Text(std::mem::replace(&mut self.held, rest))
    }

    /// Whether a token of these bytes ends the text whatever stood before it.
    #[must_use]
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        let mut stops = self.stops.iter();
        stops.any(|stop| {
            bytes
                .windows(stop.len())
                .any(|part| part == stop.as_bytes())
        })
    }

    /// The text held back, when no more follows.
    #[must_use]
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that may be the start of a stop sequence.
    fn longest_start(&self) -> usize {
        self.stops
            .iter()
            .filter_map(|stop| {
                (1..stop.len())
                    .rev()
                    .filter(|length| stop.is_char_boundary(*length))
                    .find(|length| self.held.ends_with(&stop[..*length]))
            })
            .max()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pieces: &[&str], stops: &[&str]) -> (Vec<String>, bool) {
        let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut sequences = StopSequences::new(stops);
        let mut shown = Vec::new();
        for piece in pieces {
            match sequences.push(piece) {
                Passed::Text(text) => shown.push(text),
                Passed::Stopped(text) => {
                    shown.push(text);
                    return (shown, true);
                }
            }
        }
        shown.push(sequences.finish());
        (shown, false)
    }

    #[test]
    fn a_stop_sequence_across_tokens_is_not_shown() {
        let (shown, stopped) = run(&["let x", " = 1;\n", "\n", "fn"], &["\n\n"]);
        assert_eq!(shown, ["let x", " = 1;", ""]);
        assert!(stopped);
    }

    #[test]
    fn what_only_looked_like_a_stop_is_shown_in_the_end() {
        let (shown, stopped) = run(&["a\n", "b\n"], &["\n\n"]);
        assert_eq!(shown, ["a", "\nb", "\n"]);
        assert!(!stopped);
    }

    #[test]
    fn a_token_with_a_stop_sequence_in_it_is_known() {
        let stops = StopSequences::new(vec![String::new(), "\n\n".to_owned(), "é".to_owned()]);
        for (token, ends) in [(";\n\n  ", true), ("é", true), ("\n", false), ("", false)] {
            assert_eq!(stops.are_in(token.as_bytes()), ends, "{token:?}");
        }
    }

    proptest! {
        #[test]
        fn the_outcome_does_not_depend_on_the_cuts(
            text in "[ab\n é]{0,24}",
            stops in proptest::collection::vec("[ab\n é]{1,4}", 0..4),
            every in 1usize..4,
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<String> = characters.chunks(every).map(<[String]>::concat).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (cut, cut_stopped) = run(&pieces, &stops);
            let (whole, whole_stopped) = run(&[&text], &stops);
            prop_assert_eq!(cut.concat(), whole.concat());
            prop_assert_eq!(cut_stopped, whole_stopped);
            prop_assert!(stops.iter().all(|stop| !whole.concat().contains(stop)) || stops.is_empty());
        }
    }
}
