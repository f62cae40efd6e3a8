//! Who types in the replay: which keys, with which pauses, and what they do with a suggestion.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::score::common;

/// Median pause between two keys of a word, in milliseconds. With the factors below a key takes
/// about 240 ms on average, as Dhakal and others measured on 168,000 people ("Observations on
/// Typing from 136 Million Keystrokes", CHI 2018: 239 ms).
const WITHIN_WORD_MS: f64 = 150.0;

/// Where a word or a bracket begins, pauses are so much longer.
const NEW_WORD: f64 = 1.5;

/// Where a line begins, one thinks.
const NEW_LINE: f64 = 5.0;

/// Spread of the logarithm of a pause: two of three are within a factor of 1.6.
const SPREAD: f64 = 0.45;

/// How long a suggestion must be seen before a person has read it, all the keys together for which it
/// stayed right: about a second fixation of the eye.
pub const READING: Duration = Duration::from_millis(400);

/// One key: what it brings and how long after the one before it comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// A character; or line breaks with the indentation that the editor puts behind them.
    pub text: String,
    pub pause: Duration,
}

/// The suggestion that is seen at the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ghost {
    /// What of it is not typed yet.
    pub text: String,
    /// Since when, on the clock of whoever replays.
    pub since: Duration,
}

/// The next key of somebody who is about to write `rest` and has just pressed `last`. The editor
/// indents by itself.
pub fn next_key(rest: &str, last: Option<&str>, random: &mut StdRng) -> Option<Key> {
    let first = rest.chars().next()?;
    let mut length = first.len_utf8();
    if first == '\n' {
        length = rest.len() - rest.trim_start_matches([' ', '\t', '\n']).len();
    }
    let in_word = |text: &str| text.ends_with(char::is_alphanumeric);
    let factor = match last {
        Some(last) if last.starts_with('\n') => NEW_LINE,
        Some(last) if in_word(last) && first.is_alphanumeric() => 1.0,
        _ => NEW_WORD,
    };
    let pause = WITHIN_WORD_MS * factor * (SPREAD * normal(random)).exp();
    Some(Key {
        text: rest[..length].to_owned(),
        pause: Duration::from_secs_f64(pause / 1e3),
    })
}

/// A number from the standard normal distribution, by Box and Muller's transform.
fn normal(random: &mut StdRng) -> f64 {
    let (one, two): (f64, f64) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random());
    (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
}

impl Ghost {
    /// After a key: what is left of the suggestion, if it is still right.
    pub fn after(&self, key: &str) -> Option<Self> {
        let text = self.text.strip_prefix(key)?;
        (!text.is_empty()).then(|| Self {
            text: text.to_owned(),
            since: self.since,
        })
    }

    /// How many bytes of what they are about to write, `rest`, a person has who accepts this at `now`;
    /// `None` if they do not. They accept what they have read and find right in its first line, and
    /// take away what turns out wrong.
    pub fn accepted(&self, rest: &str, now: Duration) -> Option<usize> {
        let first = self.text.split('\n').next().unwrap_or_default();
        let read = now.saturating_sub(self.since) >= READING;
        let right = !first.trim().is_empty() && common(first, rest) == first.len();
        (read && right).then(|| common(&self.text, rest))
    }
}
