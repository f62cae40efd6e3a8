//! What may be said next, looked up where the same was said before.
//!
//! Code repeats itself: names, calls, whole passages of a document that is being changed. Where the last
//! tokens stand somewhere else already, what came next there is a good guess at what comes next here
//! (prompt lookup decoding: Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). A guess decides
//! nothing: the model says for each token of it whether it would have said the same.
//!
//! There is no index. All texts are read through for each guess, some microseconds for a long document, which
//! costs less than an index takes to be made for an answer of one line.

/// Stands between texts that do not follow each other.
const BREAK: u32 = u32::MAX;

/// Passages that agree for longer tell no more.
pub const LONGEST: usize = 32;

/// Tokens that are compared at once.
const LANES: usize = 16;

/// Texts, and what was said last, which is looked for in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    tokens: Vec<u32>,
}

/// A place before which the last tokens stand as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// How many of the last tokens, at least one and at most [`LONGEST`].
    pub length: usize,
    /// Where that which came next there begins.
    next: usize,
}

impl Lookup {
    /// Looks through `texts`, and through `said`, which is what is continued. Of passages that agree for
    /// equally long, one in a later text counts.
    #[must_use]
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>, said: &[u32]) -> Self {
        let mut tokens = Vec::new();
        for text in texts {
            tokens.extend_from_slice(text);
            tokens.push(BREAK);
        }
        tokens.extend_from_slice(said);
        Self { tokens }
    }

    /// Tells it what was said next.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// The longest passage that agrees with what was said last, and of equally long ones the last.
    #[must_use]
    pub fn find(&self) -> Option<Passage> {
        let (last, before) = self.tokens.split_last()?;
        if *last == BREAK {
            return None;
        }
        let mut best: Option<Passage> = None;
        let mut end = before.len();
        for lanes in before.rchunks(LANES) {
            end -= lanes.len();
            // Without a branch for each token, so that it takes a few instructions for all of them.
            let equal = lanes.iter().map(|token| u8::from(token == last));
            if equal.sum::<u8>() == 0 {
                continue;
            }
            for at in (0..lanes.len()).rev() {
                let next = end + at + 1;
                if lanes[at] != *last {
                    continue;
                }
                let length = self.agreeing(next);
                if best.is_none_or(|best| best.length < length) {
                    best = Some(Passage { length, next });
                }
                if length == LONGEST {
                    return best;
                }
            }
        }
        best
    }

    /// What came next there, at most `most` tokens. Where that leads up to what was said last, it goes on
    /// as if said again: so it does in anything that repeats itself.
    pub fn after(&self, passage: Passage, most: usize) -> impl Iterator<Item = u32> {
        let period = self.tokens.len() - passage.next;
        let following = (0..most).map(move |at| self.tokens[passage.next + at % period]);
        following.take_while(|token| *token != BREAK)
    }

    /// How many tokens before `next` are the last ones said.
    fn agreeing(&self, next: usize) -> usize {
        let there = self.tokens[..next].iter().rev();
        let agreeing = there.zip(self.tokens.iter().rev()).take(LONGEST);
        agreeing
            .take_while(|(there, said)| there == said && **said != BREAK)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guess(texts: &[&[u32]], said: &[u32]) -> (usize, Vec<u32>) {
        let lookup = Lookup::new(texts.iter().copied(), said);
        let Some(passage) = lookup.find() else {
            return (0, Vec::new());
        };
        (passage.length, lookup.after(passage, 4).collect())
    }

    #[test]
    fn what_followed_the_longest_passage_is_guessed() {
        let said = [1, 2, 3, 4, 9, 7, 3, 5, 8, 6, 1, 2, 3];
        assert_eq!(guess(&[], &said), (3, vec![4, 9, 7, 3]));
        // In another text too, if it agrees for longer.
        assert_eq!(guess(&[&[6, 1, 2, 3, 8]], &said), (4, vec![8]));
        assert_eq!(guess(&[&[2, 3, 8]], &said), (3, vec![4, 9, 7, 3]));
    }

    #[test]
    fn of_equally_long_passages_the_last_one_counts() {
        assert_eq!(guess(&[&[5, 1, 7], &[6, 1, 8]], &[1]), (1, vec![8]));
        assert_eq!(guess(&[&[5, 1, 7]], &[1, 2, 1]), (1, vec![2, 1, 2, 1]));
    }

    #[test]
    fn what_repeats_itself_goes_on() {
        assert_eq!(guess(&[], &[8, 3, 4, 3, 4]), (2, vec![3, 4, 3, 4]));
        assert_eq!(guess(&[], &[7; 100]), (LONGEST, vec![7; 4]));
    }

    #[test]
    fn texts_that_do_not_follow_each_other_are_not_read_on() {
        // Neither into the next text, nor back into the one before.
        assert_eq!(guess(&[&[4, 1], &[5, 6]], &[9, 1]), (1, vec![]));
        assert_eq!(guess(&[&[4], &[1, 6]], &[4, 1]), (1, vec![6]));
        assert_eq!(guess(&[&[4], &[1, 6], &[4]], &[1]), (1, vec![6]));
    }

    #[test]
    fn little_text_is_no_fault() {
        for (texts, said) in [(&[][..], &[][..]), (&[], &[1]), (&[&[1, 2][..]], &[])] {
            assert_eq!(guess(texts, said), (0, vec![]));
        }
    }

    proptest! {
        /// Held to the definition, place by place.
        #[test]
        fn the_passage_is_the_longest_and_the_last(
            texts in proptest::collection::vec(proptest::collection::vec(0u32..4, 0..40), 0..4),
            said in proptest::collection::vec(0u32..4, 0..60),
            more in proptest::collection::vec(0u32..4, 0..9),
        ) {
            let mut lookup = Lookup::new(texts.iter().map(Vec::as_slice), &said);
            for token in more {
                lookup.push(token);
            }
            let all = lookup.tokens.clone();
            let mut expected: Option<(usize, usize)> = None;
            for next in 1..all.len() {
                let mut length = 0;
                while length < LONGEST.min(next)
                    && all[next - 1 - length] == all[all.len() - 1 - length]
                    && all[next - 1 - length] != BREAK
                {
                    length += 1;
                }
                if length > 0 && expected.is_none_or(|(longest, _)| length >= longest) {
                    expected = Some((length, next));
                }
            }
            let found = lookup.find();
            prop_assert_eq!(found.map(|found| (found.length, found.next)), expected);
            if let Some(found) = found {
                let guess: Vec<u32> = lookup.after(found, 5).collect();
                prop_assert!(guess.len() <= 5 && guess.iter().all(|token| *token < 4));
                let there = &all[found.next..];
                let agreeing = guess.iter().zip(there).take_while(|(a, b)| a == b).count();
                prop_assert_eq!(agreeing, guess.len().min(there.len()));
            }
        }
    }
}
