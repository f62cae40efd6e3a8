//! Completion prompts: fill in the middle where the model knows how, else the text before.
//!
//! Two orders are known. Suffix first (SPM) is what tandem-mini learnt, and its GGUF says so:
//! `<|file_sep|>path\n<|fim_prefix|><|fim_suffix|>after<|fim_middle|>before`. The suffix stays as it
//! is while someone types, so a keystroke costs its own tokens only. Prefix first (PSM) is
//! Qwen2.5-Coder's: `<|file_sep|>path\n<|fim_prefix|>before<|fim_suffix|>after<|fim_middle|>`. There a
//! keystroke computes the suffix again, but a model answers badly in an order it never saw; a short
//! suffix keeps that cheap: [`SUFFIX_TOKENS`].

use super::{Budget, Vocabulary, fit, healing, too_long};
use crate::inference::{CompleteTask, GenerateError, Snippet};

/// The longest suffix. What a completion must fit to stands in the first lines after the cursor
/// (llama.vim takes 64 lines after the cursor and 256 before); every keystroke pays for all of it.
const SUFFIX_TOKENS: usize = 128;
/// The suffix gets at most this part of the room, the prefix the rest (3 to 1, as llama.vim's lines
/// and about as Continue's shares).
const SUFFIX_SHARE: usize = 4;
/// Snippets get what the document leaves, in steps of so many tokens: they stand first, so a change
/// in what fits computes everything anew.
const SNIPPET_STEP: usize = 128;
/// Below this there is no room for a useful prompt.
const LEAST_PROMPT: usize = 16;

/// The ids of a model's special tokens for filling in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FimTokens {
    /// `<|fim_prefix|>`.
    pub prefix: u32,
    /// `<|fim_suffix|>`.
    pub suffix: u32,
    /// `<|fim_middle|>`.
    pub middle: u32,
    /// `<|file_sep|>`, before a file's path.
    pub file_separator: Option<u32>,
    /// What the model expects first.
    pub order: FimOrder,
}

/// What stands first in a prompt with a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FimOrder {
    /// The text before the cursor (PSM).
    #[default]
    PrefixFirst,
    /// The text after it (SPM).
    SuffixFirst,
}

impl FimTokens {
    /// Those of `vocabulary`, if it has them, for a model that was trained in `order`.
    #[must_use]
    pub fn find(vocabulary: &dyn Vocabulary, order: FimOrder) -> Option<Self> {
        Some(Self {
            prefix: vocabulary.special("<|fim_prefix|>")?,
            suffix: vocabulary.special("<|fim_suffix|>")?,
            middle: vocabulary.special("<|fim_middle|>")?,
            file_separator: vocabulary.special("<|file_sep|>"),
            order,
        })
    }
}

/// A prompt, and what its answer has to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// The prompt's tokens.
    pub tokens: Vec<u32>,
    /// The text before the cursor that is not in the prompt: see [`healing`].
    pub begun: &'a str,
}

/// The prompt for `task`; with `fim: None` just the text before the cursor, after snippets and path
/// as comments would be guesswork, so without them. With `heals` it ends before the piece that is
/// being typed.
///
/// # Errors
/// [`crate::inference::ErrorKind::TooLong`] when there is no room for a prompt at all.
pub fn render<'a>(
    task: &'a CompleteTask,
    vocabulary: &dyn Vocabulary,
    fim: Option<FimTokens>,
    budget: Budget,
    heals: bool,
) -> Result<Prompt<'a>, GenerateError> {
    let begun = if heals {
        healing::unfinished(&task.prefix)
    } else {
        ""
    };
    let before = &task.prefix[..task.prefix.len() - begun.len()];
    // The answer says that piece again, in a token a byte at worst. Always as much, so that the cut
    // stays where it is while a word grows.
    let spared = if heals { healing::LONGEST } else { 0 };
    let room = budget.prompt_tokens().saturating_sub(spared);
    if room < LEAST_PROMPT {
        return Err(too_long(budget));
    }
    let Some(fim) = fim else {
        let tokens = fit::end_of(before, room, vocabulary)?;
        return Ok(Prompt { tokens, begun });
    };
    let mut header = match (fim.file_separator, &task.path) {
        (Some(separator), Some(path)) => file_header(separator, path, vocabulary)?,
        _ => Vec::new(),
    };
    // A path that takes a quarter of the room is none.
    if header.len() > room / SUFFIX_SHARE {
        header.clear();
    }
    let room = room - header.len() - 3;
    let share = (room / SUFFIX_SHARE).min(SUFFIX_TOKENS);
    let suffix = fit::beginning_of(&task.suffix, share, vocabulary)?;
    let prefix = fit::end_of(before, room - suffix.len(), vocabulary)?;
    let left = room - suffix.len() - prefix.len();
    let mut prompt = match fim.file_separator {
        Some(separator) => {
            let left = left - left % SNIPPET_STEP;
            snippets(&task.snippets, separator, left, vocabulary)?
        }
        None => Vec::new(),
    };
    prompt.extend(header);
    prompt.push(fim.prefix);
    match fim.order {
        FimOrder::PrefixFirst => {
            prompt.extend(prefix);
            prompt.push(fim.suffix);
            prompt.extend(suffix);
            prompt.push(fim.middle);
        }
        FimOrder::SuffixFirst => {
            prompt.push(fim.suffix);
            prompt.extend(suffix);
            prompt.push(fim.middle);
            prompt.extend(prefix);
        }
    }
    Ok(Prompt {
        tokens: prompt,
        begun,
    })
}

fn file_header(
    separator: u32,
    path: &str,
    vocabulary: &dyn Vocabulary,
) -> Result<Vec<u32>, GenerateError> {
    let mut tokens = vec![separator];
    tokens.extend(vocabulary.encode(&format!("{path}\n"))?);
    Ok(tokens)
}

/// As many whole snippets as fit, the best nearest to the document.
fn snippets(
    snippets: &[Snippet],
    separator: u32,
    mut room: usize,
    vocabulary: &dyn Vocabulary,
) -> Result<Vec<u32>, GenerateError> {
    let mut chosen = Vec::new();
    for snippet in snippets {
        let mut tokens = file_header(separator, &snippet.path, vocabulary)?;
        let mut text = snippet.text.trim_end_matches('\n').to_owned();
        text.push('\n');
        tokens.extend(fit::beginning_of(&text, room + 1, vocabulary)?);
        if tokens.len() <= room {
            room -= tokens.len();
            chosen.push(tokens);
        }
    }
    chosen.reverse();
    Ok(chosen.concat())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::inference::{CompletionShape, ErrorKind};
    use crate::prompt::bytes::{Bytes, text_of};

    fn task(prefix: &str, suffix: &str, snippets: &[(&str, &str)]) -> CompleteTask {
        CompleteTask {
            path: Some("src/a.rs".into()),
            language: "rust".into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            snippets: snippets
                .iter()
                .map(|(path, text)| Snippet {
                    path: (*path).into(),
                    file: None,
                    text: (*text).into(),
                })
                .collect(),
            shape: CompletionShape::Auto,
        }
    }

    const BUDGET: Budget = Budget {
        context_tokens: 600,
        max_tokens: 64,
    };

    fn prompt(task: &CompleteTask, fim: Option<FimTokens>, budget: Budget) -> String {
        let Prompt { tokens, begun } = render(task, &Bytes, fim, budget, false).unwrap();
        assert_eq!(begun, "");
        assert!(tokens.len() <= budget.prompt_tokens());
        text_of(&tokens)
    }

    fn check(task: &CompleteTask, fim: Option<FimTokens>, expected: &Expect) {
        expected.assert_eq(&prompt(task, fim, BUDGET));
    }

    #[test]
    fn the_document_stands_in_the_models_frame() {
        check(
            &task("fn a() {", "}\n", &[]),
            FimTokens::find(&Bytes, FimOrder::PrefixFirst),
            &expect![[r"
                [<|file_sep|>]src/a.rs
                [<|fim_prefix|>]fn a() {[<|fim_suffix|>]}
                [<|fim_middle|>]"]],
        );
    }

    #[test]
    fn a_model_that_learnt_the_suffix_first_gets_it_first() {
        check(
            &task("fn a() {", "}\n", &[]),
            FimTokens::find(&Bytes, FimOrder::SuffixFirst),
            &expect![[r"
                [<|file_sep|>]src/a.rs
                [<|fim_prefix|>][<|fim_suffix|>]}
                [<|fim_middle|>]fn a() {"]],
        );
    }

    #[test]
    fn the_best_snippet_is_nearest_and_ends_with_a_line() {
        check(
            &task("x", "", &[("best.rs", "best"), ("good.rs", "good\n\n")]),
            FimTokens::find(&Bytes, FimOrder::PrefixFirst),
            &expect![[r"
                [<|file_sep|>]good.rs
                good
                [<|file_sep|>]best.rs
                best
                [<|file_sep|>]src/a.rs
                [<|fim_prefix|>]x[<|fim_suffix|>][<|fim_middle|>]"]],
        );
    }

    #[test]
    fn special_tokens_in_a_document_stay_text() {
        check(
            &task("<|fim_middle|>", "<|im_end|>", &[]),
            FimTokens::find(&Bytes, FimOrder::PrefixFirst),
            &expect![[r"
                [<|file_sep|>]src/a.rs
                [<|fim_prefix|>]<|fim_middle|>[<|fim_suffix|>]<|im_end|>[<|fim_middle|>]"]],
        );
    }

    #[test]
    fn a_model_without_the_frame_gets_the_text_before() {
        check(&task("fn a() {", "}", &[]), None, &expect!["fn a() {"]);
    }

    #[test]
    fn a_long_document_keeps_what_is_near_the_cursor() {
        let line = "let number = 1;\n";
        let task = task(&line.repeat(99), &line.repeat(99), &[("b.rs", "text")]);
        let prompt = prompt(
            &task,
            FimTokens::find(&Bytes, FimOrder::PrefixFirst),
            BUDGET,
        );
        let (before, after) = prompt.split_once("[<|fim_suffix|>]").unwrap();
        assert!(before.ends_with(line));
        assert!(after.starts_with(line));
        assert!(!prompt.contains("b.rs"), "the document leaves no room");
        assert!(before.len() > 2 * after.len(), "three to one, about");
    }

    #[test]
    fn a_piece_being_typed_is_left_to_the_answer() {
        for order in [FimOrder::PrefixFirst, FimOrder::SuffixFirst] {
            let fim = FimTokens::find(&Bytes, order);
            let task = task("fn a() { retu", "}\n", &[]);
            let prompt = render(&task, &Bytes, fim, BUDGET, true).unwrap();
            assert_eq!(prompt.begun, " retu");
            assert!(text_of(&prompt.tokens).contains("fn a() {"));
            assert!(!text_of(&prompt.tokens).contains("retu"));
        }
    }

    #[test]
    fn no_room_at_all_is_told() {
        let budget = Budget {
            context_tokens: 20,
            max_tokens: 64,
        };
        let error = render(&task("x", "", &[]), &Bytes, None, budget, true).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLong);
    }
}
