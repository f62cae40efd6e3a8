//! Cutting documents to a budget of tokens, in a way that stays put while someone types.
//!
//! A cut that moved with every keystroke would change the first token of the prompt every time, and
//! with it every cached key and value. So text is cut at line starts that are chosen by what stands
//! there: of the lines where the cut might be, the one whose text has the smallest hash. The choice
//! depends neither on how far the document reaches back nor, until the cursor has moved on by a
//! good part of the budget, on where the cursor is.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::Vocabulary;
use crate::inference::GenerateError;

/// The last quarter of the budget is given up, at worst, for a cut that stays.
const SLACK: usize = 4;
/// How much text at a line start tells it from others.
const FINGERPRINT_BYTES: usize = 160;
/// Where even one line is too long, its beginning goes in steps of so many tokens.
const LONG_LINE_STEP: usize = 64;
/// And where it is longer still, what is not even looked at grows in steps of so many bytes.
const LONG_LINE_BYTES: usize = 4096;
/// No token of a byte-level vocabulary spans more on average; text beyond this many bytes a token
/// need not be encoded to know that it does not fit.
const BYTES_PER_TOKEN: usize = 16;

/// The end of a text, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The byte at which it starts: the start of a line, or `None` within one.
    pub start: Option<usize>,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// The tokens of the end of `text`, at most `budget` of them, cut at a line start that stays.
///
/// # Errors
/// When the tokenizer fails.
pub fn end_of(
    text: &str,
    budget: usize,
    vocabulary: &dyn Vocabulary,
) -> Result<End, GenerateError> {
    // From the cursor backwards.
    let mut blocks: Vec<(usize, Vec<u32>)> = Vec::new();
    let mut total = 0;
    let mut end = text.len();
    while end > 0 && total <= budget {
        let start = block_start(text, end);
        let room = (budget - total + 1) * BYTES_PER_TOKEN;
        let surplus = (end - start).saturating_sub(room);
        let from = ceil_boundary(text, start + surplus - surplus % LONG_LINE_BYTES);
        let tokens = vocabulary.encode(&text[from..end])?;
        total += tokens.len();
        blocks.push((start, tokens));
        end = start;
    }
    if total <= budget {
        return Ok(End::of(blocks));
    }
    // The block that burst the budget.
    let burst = blocks.pop().map(|(_, tokens)| tokens).unwrap_or_default();
    let Some(kept) = choose_cut(text, &blocks, budget) else {
        let over = burst.len() - budget.min(burst.len());
        let cut = over.next_multiple_of(LONG_LINE_STEP).min(burst.len());
        return Ok(End {
            start: None,
            tokens: burst[cut..].to_vec(),
        });
    };
    blocks.truncate(kept);
    Ok(End::of(blocks))
}

impl End {
    /// Of blocks, the last of them first.
    fn of(mut blocks: Vec<(usize, Vec<u32>)>) -> Self {
        blocks.reverse();
        Self {
            start: Some(blocks.first().map_or(0, |(start, _)| *start)),
            tokens: blocks.into_iter().flat_map(|(_, tokens)| tokens).collect(),
        }
    }
}

/// How many of the blocks (last first) to keep.
fn choose_cut(text: &str, blocks: &[(usize, Vec<u32>)], budget: usize) -> Option<usize> {
    let fitting: usize = blocks.iter().map(|(_, tokens)| tokens.len()).sum();
    let least = fitting.min(budget - budget / SLACK);
    let mut total = 0;
    let mut best: Option<(u64, usize)> = None;
    for (index, (start, tokens)) in blocks.iter().enumerate() {
        total += tokens.len();
        if total >= least {
            let candidate = (fingerprint(text, *start), index + 1);
            best = Some(best.map_or(candidate, |best| best.min(candidate)));
        }
    }
    best.map(|(_, kept)| kept)
}

/// The tokens of the beginning of `text`, at most `budget` of them.
///
/// # Errors
/// When the tokenizer fails.
pub fn beginning_of(
    text: &str,
    budget: usize,
    vocabulary: &dyn Vocabulary,
) -> Result<Vec<u32>, GenerateError> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while start < text.len() && tokens.len() < budget {
        let room = (budget - tokens.len() + 1) * BYTES_PER_TOKEN;
        let end = block_end(text, start).min(floor_boundary(text, start.saturating_add(room)));
        tokens.extend(vocabulary.encode(&text[start..end])?);
        start = end;
    }
    tokens.truncate(budget);
    Ok(tokens)
}

/// The start of the block of lines that ends at `end`: a line that is not blank, with the blank
/// lines after it. Qwen's tokenizer always starts a new token there, so that blocks can be encoded
/// one by one.
fn block_start(text: &str, end: usize) -> usize {
    let mut at = end;
    loop {
        let line_end = text[..at].strip_suffix('\n').map_or(at, str::len);
        let start = text[..line_end]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let blank = text[start..at].trim().is_empty();
        if start == 0 || !blank {
            return start;
        }
        at = start;
    }
}

fn block_end(text: &str, start: usize) -> usize {
    let line_end = |from: usize| {
        text[from..]
            .find('\n')
            .map_or(text.len(), |newline| from + newline + 1)
    };
    let mut end = line_end(start);
    while end < text.len() {
        let next = line_end(end);
        if !text[end..next].trim().is_empty() {
            break;
        }
        end = next;
    }
    end
}

fn fingerprint(text: &str, start: usize) -> u64 {
    let end = floor_boundary(text, start.saturating_add(FINGERPRINT_BYTES));
    let mut hasher = DefaultHasher::new();
    text[start..end].hash(&mut hasher);
    hasher.finish()
}

fn floor_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

fn ceil_boundary(text: &str, at: usize) -> usize {
    text.ceil_char_boundary(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompt::bytes::{Bytes, text_of};

    fn document(lines: usize) -> String {
        use std::fmt::Write as _;
        (0..lines).fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "    let value_{line} = compute({});", line * 7);
            text
        })
    }

    #[test]
    fn the_cut_stays_while_someone_types() {
        let before = document(200);
        let typed = "    let another = compute(a, b, c);\n    call(another, value_1, value_2);\n";
        let budget = 2000;
        let mut starts = Vec::new();
        for length in 0..=typed.len() {
            let text = format!("{before}{}", &typed[..length]);
            let End { start, tokens } = end_of(&text, budget, &Bytes).unwrap();
            assert_eq!(start, Some(text.len() - tokens.len()));
            assert!(tokens.len() <= budget && tokens.len() >= budget / SLACK * (SLACK - 1));
            assert!(text.ends_with(&text_of(&tokens)));
            starts.push(text.len() - tokens.len());
        }
        starts.dedup();
        assert!(starts.len() <= 2, "{starts:?}");
    }

    #[test]
    fn a_document_cut_at_its_far_end_is_cut_at_the_same_line() {
        let text = document(300);
        let tokens = end_of(&text, 1500, &Bytes).unwrap().tokens;
        for skipped in [1, 100, 3000] {
            let again = end_of(&text[skipped..], 1500, &Bytes).unwrap();
            assert_eq!(again.tokens, tokens);
        }
    }

    #[test]
    fn a_line_longer_than_the_budget_loses_its_beginning_in_steps() {
        for length in [700, 5000, 50_000] {
            let mut starts: Vec<usize> = (length..length + LONG_LINE_STEP)
                .map(|length| {
                    let tokens = end_of(&"x".repeat(length), 500, &Bytes).unwrap().tokens;
                    assert!((400..=500).contains(&tokens.len()));
                    length - tokens.len()
                })
                .collect();
            starts.dedup();
            assert!(starts.len() <= 3, "{starts:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_fits_and_stands_at_the_right_end(
            text in "([ a-c\n\té]{0,12}\n){0,12}[ab ]{0,9}",
            budget in 0usize..60,
        ) {
            let end = end_of(&text, budget, &Bytes).unwrap().tokens;
            prop_assert!(end.len() <= budget);
            prop_assert!(text.as_bytes().ends_with(&end.iter().map(|t| *t as u8).collect::<Vec<_>>()));
            let beginning = beginning_of(&text, budget, &Bytes).unwrap();
            prop_assert_eq!(beginning.len(), budget.min(text.len()));
            let beginning: Vec<u8> = beginning.iter().map(|t| *t as u8).collect();
            prop_assert!(text.as_bytes().starts_with(&beginning));
            if text.len() <= budget {
                prop_assert_eq!(end.len(), text.len());
            }
        }
    }
}
