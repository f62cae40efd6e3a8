//! How many tokens a model sees at once, and what happens when there are more.
//!
//! Pure: whoever continues a sequence asks it before each token.

/// The span of tokens that a model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The most tokens in it.
    pub context_tokens: usize,
    /// How it moves on when it is full; without it, an answer ends there.
    pub shift: Option<Shift>,
}

/// How a full window moves on: its last tokens are computed anew from position 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// It moves before a token is chosen with at least so many tokens in the window.
    pub at: usize,
    /// So many tokens are kept; fewer than [`Self::at`], at least 1.
    pub keep: usize,
}

impl Window {
    /// A window that an answer cannot leave.
    #[must_use]
    pub fn fixed(context_tokens: usize) -> Self {
        Self {
            context_tokens,
            shift: None,
        }
    }

    /// ANEMLL's rule (tests/chat_full.py there): two tokens before the end, whole batches are kept,
    /// so that they are prefilled without a rest, and room for two batches is made where the context
    /// has it.
    #[must_use]
    pub fn anemll(context_tokens: usize, batch: usize) -> Self {
        let batch = batch.max(1);
        let batches = (context_tokens / batch).saturating_sub(2).max(1);
        let keep = (batches * batch).min(context_tokens.saturating_sub(batch));
        let at = context_tokens.saturating_sub(2);
        let shift = (1..at).contains(&keep).then_some(Shift { at, keep });
        Self {
            context_tokens,
            shift,
        }
    }

    /// Where the window of a text of `length` tokens starts when the next token is to be chosen and
    /// the window started at `start` before: `start`, or further on after a shift.
    #[must_use]
    pub fn start(&self, start: usize, length: usize) -> usize {
        match self.shift {
            Some(Shift { at, keep }) if length - start >= at => length - keep,
            _ => start,
        }
    }

    /// Whether there is no room for a token behind `length` others.
    #[must_use]
    pub fn is_full(&self, length: usize) -> bool {
        self.shift.is_none() && length >= self.context_tokens
    }

    /// What a prompt may take of the window, so that `answer_tokens` follow it. A window that moves
    /// on needs room for what it drops at once only.
    #[must_use]
    pub fn answer_room(&self, answer_tokens: usize) -> usize {
        match self.shift {
            Some(shift) => answer_tokens.min(self.context_tokens - shift.keep),
            None => answer_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_of_anemll_keeps_whole_batches() {
        for (context, batch, expected) in [
            (512, 64, Some((510, 384))),
            (2048, 64, Some((2046, 1920))),
            (256, 64, Some((254, 128))),
            (128, 64, Some((126, 64))),
            (96, 32, Some((94, 32))),
            // One batch is all there is: nothing can be kept and room made.
            (64, 64, None),
            (3, 1, None),
            (0, 0, None),
        ] {
            let shift = Window::anemll(context, batch).shift;
            let got = shift.map(|shift| (shift.at, shift.keep));
            assert_eq!(got, expected, "context {context}, batch {batch}");
        }
    }

    #[test]
    fn a_window_moves_on_before_the_token_that_would_fill_it() {
        let window = Window::anemll(512, 64);
        assert_eq!(window.start(0, 509), 0);
        assert_eq!(window.start(0, 510), 126);
        assert_eq!(window.start(126, 511), 126);
        assert_eq!(window.start(126, 126 + 510), 252);
        // A prompt that is longer than the window is seen by its end.
        assert_eq!(window.start(0, 3000), 3000 - 384);
        let fixed = Window::fixed(512);
        assert_eq!(fixed.start(0, 3000), 0);
        assert!(fixed.is_full(512) && !fixed.is_full(511) && !window.is_full(512));
    }
}
