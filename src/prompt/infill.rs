//! Completion prompts as text, for a model whose tokenizer is elsewhere: behind an inference server.
//! Pure.
//!
//! What a server tokenizes for itself it also searches for special tokens, so a document that holds the
//! text of one (the source of a tokenizer, this file) would break the frame. Such text is told apart by
//! a space.

use std::borrow::Cow;

use super::context::{self, Piece};
use crate::inference::CompleteTask;

/// Bytes of source code a token, on the low side, so that what is said to fit does fit.
const BYTES_PER_TOKEN: usize = 3;
/// Bytes for what stands around the document: marks and paths.
const FRAME: usize = 512;

/// The text that stands around the parts of a document with a hole, and the models that learnt it.
#[derive(Debug, PartialEq, Eq)]
pub struct Marks {
    /// What a model's name has in it, in lower case and without anything but letters and digits.
    models: &'static [&'static str],
    /// What stands first.
    order: Order,
    prefix: &'static str,
    suffix: &'static str,
    middle: &'static str,
    /// Before another file's path, where the model learnt one.
    file: Option<&'static str>,
    /// What a model says when it is done; a server may pass it on as text. The likeliest first.
    pub ends: &'static [&'static str],
}

/// The order of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `prefix before suffix after middle`.
    PrefixFirst,
    /// `prefix suffix after middle before`.
    SuffixFirst,
    /// `suffix after prefix before middle`.
    SuffixThenPrefix,
}

/// Sources: the models' own cards and papers. Qwen2.5-Coder (arXiv 2409.12186) and Qwen3-Coder's
/// README; StarCoder (arXiv 2305.06161), whose marks CodeQwen1.5, Granite Code and Stable Code took
/// over; DeepSeek-Coder (arXiv 2401.14196); CodeGemma (arXiv 2406.11409); Code Llama (arXiv
/// 2308.12950); Codestral's tokenizer in mistral-common; Seed-Coder's card.
static MARKS: [Marks; 8] = [
    Marks {
        models: &["tandemmini"],
        order: Order::SuffixFirst,
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        file: Some("<|file_sep|>"),
        ends: &["<|file_sep|>", "<|endoftext|>", "<|fim_prefix|>"],
    },
    Marks {
        models: &["qwen25coder", "qwen3coder"],
        order: Order::PrefixFirst,
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        file: Some("<|file_sep|>"),
        ends: &[
            "<|file_sep|>",
            "<|endoftext|>",
            "<|fim_pad|>",
            "<|repo_name|>",
            "<|fim_prefix|>",
            "<|im_end|>",
            "<|im_start|>",
        ],
    },
    Marks {
        models: &[
            "starcoder",
            "codeqwen",
            "stablecode",
            "granite3bcode",
            "granite8bcode",
            "granite20bcode",
            "granite34bcode",
        ],
        order: Order::PrefixFirst,
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: "<fim_middle>",
        file: None,
        ends: &["<|endoftext|>", "<file_sep>", "<fim_prefix>", "<fim_pad>"],
    },
    Marks {
        models: &["deepseekcoder"],
        order: Order::PrefixFirst,
        prefix: "<｜fim▁begin｜>",
        suffix: "<｜fim▁hole｜>",
        middle: "<｜fim▁end｜>",
        file: None,
        ends: &["<｜end▁of▁sentence｜>", "<|EOT|>"],
    },
    Marks {
        models: &["codegemma"],
        order: Order::PrefixFirst,
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        file: None,
        ends: &["<|file_separator|>", "<eos>", "<|fim_prefix|>"],
    },
    Marks {
        models: &["codellama"],
        order: Order::PrefixFirst,
        prefix: "<PRE> ",
        suffix: " <SUF>",
        middle: " <MID>",
        file: None,
        ends: &["<EOT>", "</s>"],
    },
    Marks {
        models: &["codestral"],
        order: Order::SuffixThenPrefix,
        prefix: "[PREFIX]",
        suffix: "[SUFFIX]",
        middle: "",
        file: None,
        ends: &["</s>", "[SUFFIX]"],
    },
    Marks {
        models: &["seedcoder"],
        order: Order::SuffixThenPrefix,
        prefix: "<[fim-prefix]>",
        suffix: "<[fim-suffix]>",
        middle: "<[fim-middle]>",
        file: None,
        ends: &["<[end▁of▁sentence]>"],
    },
];

/// How much of what goes into a prompt, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of the document before the cursor.
    pub before: usize,
    /// Of the document after it.
    pub after: usize,
    /// Of other files.
    pub files: usize,
}

impl Room {
    /// This much, or what fits a context of `context_tokens` beside an answer of `max_tokens`: the
    /// text before the cursor gets five parts in eight, the text after it one, other files the rest.
    #[must_use]
    pub fn within(self, context_tokens: usize, max_tokens: usize) -> Self {
        let answer = max_tokens.min(context_tokens / 2);
        let room = ((context_tokens - answer) * BYTES_PER_TOKEN).saturating_sub(FRAME);
        let before = self.before.min(room / 8 * 5);
        let after = self.after.min(room / 8);
        Self {
            before,
            after,
            files: self.files.min(room - before - after),
        }
    }
}

/// What of a task goes into its prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The document before the cursor, cut at a line start that stays while someone types.
    pub before: &'a str,
    /// The document after the cursor.
    pub after: &'a str,
    /// Pieces of other files, the best last: nearest to the document.
    pub files: Vec<Piece<'a>>,
}

impl<'a> Parts<'a> {
    /// Of `task`, as much as there is room for.
    #[must_use]
    pub fn of(task: &'a CompleteTask, room: Room) -> Self {
        let before = context::before(&task.prefix, room.before);
        let start = task.prefix.len() - before.stable.len() - before.near.len();
        let mut files = context::select(&task.snippets, room.files);
        files.reverse();
        Self {
            before: &task.prefix[start..],
            after: context::after(&task.suffix, room.after).0,
            files,
        }
    }
}

impl Marks {
    /// Those that the first of `names` learnt that is known here.
    #[must_use]
    pub fn of_model(names: &[&str]) -> Option<&'static Self> {
        let plain = |name: &&str| -> String {
            let characters = name.chars().filter(char::is_ascii_alphanumeric);
            characters.map(|c| c.to_ascii_lowercase()).collect()
        };
        names.iter().map(plain).find_map(|name| {
            let known = |marks: &&Marks| marks.models.iter().any(|model| name.contains(model));
            MARKS.iter().find(known)
        })
    }

    /// Whether a server that puts the text before the cursor first (llama-server's `/infill`) asks
    /// this model as it learnt it.
    #[must_use]
    pub fn is_prefix_first(&self) -> bool {
        self.order == Order::PrefixFirst
    }

    /// Whether the frame has a place for other files.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.file.is_some()
    }

    /// The prompt for a document at `path`.
    #[must_use]
    pub fn render(&self, parts: &Parts<'_>, path: Option<&str>) -> String {
        let (before, after) = (self.plain(parts.before), self.plain(parts.after));
        let mut prompt = String::new();
        if let Some(mark) = self.file {
            for piece in &parts.files {
                let (path, text) = (self.plain(piece.path), self.plain(piece.text));
                prompt.push_str(mark);
                prompt.push_str(&path);
                prompt.push('\n');
                prompt.push_str(text.trim_end_matches('\n'));
                prompt.push('\n');
            }
            if let Some(path) = path {
                prompt.push_str(mark);
                prompt.push_str(&self.plain(path));
                prompt.push('\n');
            }
        }
        let Self {
            prefix,
            suffix,
            middle,
            ..
        } = self;
        let hole: [&str; 5] = match self.order {
            Order::PrefixFirst => [prefix, &before, suffix, &after, middle],
            Order::SuffixFirst => [prefix, suffix, &after, middle, &before],
            Order::SuffixThenPrefix => [suffix, &after, prefix, &before, middle],
        };
        prompt.extend(hole);
        prompt
    }

    /// `text` without anything that reads as one of the marks.
    #[must_use]
    pub fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let marks = [
            self.prefix,
            self.suffix,
            self.middle,
            self.file.unwrap_or(""),
        ];
        let mut plain = Cow::Borrowed(text);
        for mark in marks.iter().chain(self.ends) {
            let mark = mark.trim();
            let mut characters = mark.chars();
            let Some(first) = characters.next() else {
                continue;
            };
            if plain.contains(mark) {
                let apart = format!("{first} {}", characters.as_str());
                plain = Cow::Owned(plain.replace(mark, &apart));
            }
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::inference::{CompletionShape, Snippet};

    fn task(prefix: &str, suffix: &str) -> CompleteTask {
        let snippet = |path: &str, text: &str| Snippet {
            path: path.into(),
            file: None,
            text: text.into(),
        };
        CompleteTask {
            path: Some("src/a.rs".into()),
            language: "rust".into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            snippets: vec![snippet("best.rs", "best"), snippet("good.rs", "good\n\n")],
            shape: CompletionShape::Auto,
        }
    }

    const ROOM: Room = Room {
        before: 8_000,
        after: 2_000,
        files: 6_000,
    };

    fn rendered(model: &str, prefix: &str, suffix: &str) -> String {
        let task = task(prefix, suffix);
        let marks = Marks::of_model(&[model]).unwrap();
        marks.render(&Parts::of(&task, ROOM), task.path.as_deref())
    }

    fn check(model: &str, expected: &Expect) {
        expected.assert_eq(&rendered(model, "fn a() {", "}\n"));
    }

    #[test]
    fn each_model_gets_its_own_frame() {
        check(
            "Qwen/Qwen2.5-Coder-7B-Instruct",
            &expect![[r"
                <|file_sep|>good.rs
                good
                <|file_sep|>best.rs
                best
                <|file_sep|>src/a.rs
                <|fim_prefix|>fn a() {<|fim_suffix|>}
                <|fim_middle|>"]],
        );
        check(
            "tandem-mini.gguf",
            &expect![[r"
                <|file_sep|>good.rs
                good
                <|file_sep|>best.rs
                best
                <|file_sep|>src/a.rs
                <|fim_prefix|><|fim_suffix|>}
                <|fim_middle|>fn a() {"]],
        );
        check(
            "bigcode/starcoder2-3b",
            &expect![[r"
                <fim_prefix>fn a() {<fim_suffix>}
                <fim_middle>"]],
        );
        check(
            "deepseek-ai/deepseek-coder-6.7b-base",
            &expect![[r"
                <｜fim▁begin｜>fn a() {<｜fim▁hole｜>}
                <｜fim▁end｜>"]],
        );
        check(
            "codellama/CodeLlama-7b-hf",
            &expect![[r"
                <PRE> fn a() { <SUF>}
                 <MID>"]],
        );
        check(
            "mistralai/Codestral-22B-v0.1",
            &expect![[r"
                [SUFFIX]}
                [PREFIX]fn a() {"]],
        );
    }

    #[test]
    fn a_model_is_known_by_any_of_its_names() {
        for (names, known) in [
            (&["coder", "Qwen/Qwen3-Coder-30B-A3B-Instruct"][..], true),
            (&["/models/qwen2.5-coder-1.5b-q8_0.gguf"], true),
            (&["codegemma:2b"], true),
            (&["ibm-granite/granite-8b-code-base"], true),
            (&["Qwen/Qwen3-8B"], false),
            (&["gpt-oss-20b", ""], false),
            (&[], false),
        ] {
            assert_eq!(Marks::of_model(names).is_some(), known, "{names:?}");
        }
    }

    #[test]
    fn marks_in_a_document_stay_text() {
        let prompt = rendered(
            "qwen2.5-coder",
            "a<|fim_middle|>",
            "<|im_end|>b<|file_sep|>",
        );
        let (_, hole) = prompt.split_once("<|fim_prefix|>").unwrap();
        assert_eq!(
            hole,
            "a< |fim_middle|><|fim_suffix|>< |im_end|>b< |file_sep|><|fim_middle|>"
        );
    }

    #[test]
    fn a_long_document_keeps_what_is_near_the_cursor() {
        let line = "let number = 1;\n";
        let task = task(&line.repeat(2_000), &line.repeat(2_000));
        for context in [0, 100, 512, 4_096, 1 << 20] {
            let room = ROOM.within(context, 64);
            let parts = Parts::of(&task, room);
            assert!(task.prefix.ends_with(parts.before), "{context}");
            assert!(task.suffix.starts_with(parts.after), "{context}");
            let bytes = parts.before.len() + parts.after.len();
            assert!(bytes <= context * BYTES_PER_TOKEN, "{context}");
            assert!(room.before <= ROOM.before && room.after <= ROOM.after);
        }
        let parts = Parts::of(&task, ROOM.within(8_192, 64));
        assert!(parts.before.len() > 3 * parts.after.len());
    }
}
