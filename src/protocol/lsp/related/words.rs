//! What a stretch of text is about: the set of its words, and how similar two such sets are. Pure.

use std::sync::OnceLock;

/// Windows are made of steps of so many lines.
const STEP: usize = 16;

/// Lines of a window, two steps: about a screenful. The next one starts a step later.
pub const WINDOW: usize = 2 * STEP;

/// Shorter words (`i`, `fn`, `if`) are everywhere.
const LEAST_WORD: usize = 3;

/// Words that tell nothing of what a text is about.
const STOP_WORDS: &[&str] = &[
    "and",
    "any",
    "are",
    "async",
    "await",
    "bool",
    "boolean",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "continue",
    "def",
    "default",
    "defer",
    "del",
    "dyn",
    "elif",
    "else",
    "enum",
    "err",
    "error",
    "except",
    "export",
    "extends",
    "extern",
    "false",
    "False",
    "final",
    "finally",
    "float",
    "for",
    "from",
    "func",
    "function",
    "get",
    "global",
    "goto",
    "impl",
    "implements",
    "import",
    "instanceof",
    "int",
    "interface",
    "into",
    "lambda",
    "let",
    "long",
    "loop",
    "match",
    "mod",
    "module",
    "move",
    "mut",
    "namespace",
    "new",
    "nil",
    "none",
    "None",
    "nonlocal",
    "not",
    "null",
    "number",
    "object",
    "override",
    "package",
    "pass",
    "private",
    "protected",
    "public",
    "pub",
    "raise",
    "range",
    "readonly",
    "ref",
    "require",
    "return",
    "self",
    "Self",
    "set",
    "short",
    "static",
    "str",
    "string",
    "String",
    "struct",
    "super",
    "switch",
    "synchronized",
    "template",
    "the",
    "this",
    "throw",
    "throws",
    "trait",
    "true",
    "True",
    "try",
    "type",
    "typeof",
    "undefined",
    "union",
    "unsafe",
    "unsigned",
    "use",
    "using",
    "var",
    "void",
    "volatile",
    "where",
    "while",
    "with",
    "yield",
];

/// The words of a text, as 16 bits each: a word in 65,000 is taken for another, which does not matter
/// here and fits into a processor's first cache.
#[derive(Debug, Clone)]
pub struct Words {
    bits: Box<[u64; 1024]>,
    count: usize,
}

/// The windows of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows(Vec<Vec<u16>>);

impl Words {
    /// Those of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut words = Self::empty();
        each_word(text, |word| words.insert(word));
        words
    }

    fn empty() -> Self {
        Self {
            bits: Box::new([0; 1024]),
            count: 0,
        }
    }

    fn insert(&mut self, word: u16) {
        let (at, bit) = (usize::from(word >> 6), 1 << (word & 63));
        if self.bits[at] & bit == 0 {
            self.bits[at] |= bit;
            self.count += 1;
        }
    }

    fn has(&self, word: u16) -> bool {
        self.bits[usize::from(word >> 6)] & (1 << (word & 63)) != 0
    }

    /// The share of words that both have in all that either has (Jaccard's index).
    fn similarity(&self, others: &[u16]) -> f32 {
        let both = others.iter().filter(|word| self.has(**word)).count();
        let all = self.count + others.len() - both;
        if all == 0 {
            return 0.0;
        }
        both as f32 / all as f32
    }
}

impl Windows {
    /// Those of `text`: window `n` begins at line `n * STEP`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut steps: Vec<Vec<u16>> = Vec::new();
        let mut lines = text.split_inclusive('\n').peekable();
        while lines.peek().is_some() {
            let mut words = Vec::new();
            for line in lines.by_ref().take(STEP) {
                each_word(line, |word| words.push(word));
            }
            words.sort_unstable();
            words.dedup();
            steps.push(words);
        }
        if steps.len() < 2 {
            return Self(steps);
        }
        let both = steps.windows(2).map(|pair| {
            let mut words = pair.concat();
            words.sort_unstable();
            words.dedup();
            words
        });
        Self(both.collect())
    }

    /// The first line of each window, and how similar it is to `words`.
    pub fn similar(&self, words: &Words) -> impl Iterator<Item = (usize, f32)> {
        let all = self.0.iter().enumerate();
        all.map(|(number, window)| (number * STEP, words.similarity(window)))
    }
}

fn stop_words() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| {
        let mut words = Words::empty();
        for word in STOP_WORDS {
            words.insert(folded(word.as_bytes()));
        }
        words
    })
}

/// Calls `found` for each word of `text` that may tell something.
fn each_word(text: &str, mut found: impl FnMut(u16)) {
    let stop = stop_words();
    let words = text
        .as_bytes()
        .split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80));
    for word in words {
        if word.len() >= LEAST_WORD && !word[0].is_ascii_digit() {
            let word = folded(word);
            if !stop.has(word) {
                found(word);
            }
        }
    }
}

/// FNV-1a of 32 bits, folded to 16 as its authors advise.
fn folded(word: &[u8]) -> u16 {
    let hash = word.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 16) as u16 ^ hash as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_the_same_words_are_similar() {
        let words = Words::of("let area = width * height;");
        let similarity = |text: &str| {
            let windows = Windows::of(text);
            let found: Vec<_> = windows.similar(&words).collect();
            assert_eq!((found.len(), found[0].0), (1, 0));
            found[0].1
        };
        assert!((similarity("height, area; width") - 1.0).abs() < f32::EPSILON);
        assert!((similarity("area and depth") - 0.25).abs() < f32::EPSILON);
        assert!(similarity("return self;").abs() < f32::EPSILON);
        assert!(similarity("\n").abs() < f32::EPSILON);
        assert!(Windows::of("").similar(&words).next().is_none());
    }

    #[test]
    fn windows_overlap_by_half_and_reach_to_the_end() {
        let lines: Vec<String> = (0..50).map(|line| format!("word{line}\n")).collect();
        let text = lines.concat();
        let windows = Windows::of(&text);
        let firsts: Vec<usize> = windows
            .similar(&Words::of("word49"))
            .map(|(line, _)| line)
            .collect();
        assert_eq!(firsts, [0, 16, 32]);
        let best = |word: &str| -> Vec<usize> {
            let word = Words::of(word);
            let similar = windows.similar(&word);
            let found = similar.filter(|(_, similarity)| *similarity > 0.0);
            found.map(|(line, _)| line).collect()
        };
        assert_eq!(best("word0"), [0]);
        assert_eq!(best("word20"), [0, 16]);
        assert_eq!(best("word49"), [32]);
    }
}
