//! Qwen's tokenizer: byte-level BPE, from a GGUF file's metadata or from tokenizer.json.
//!
//! Text is never searched for special tokens, so a document that contains `<|im_end|>` is encoded
//! as those characters; prompts insert the ids of special tokens themselves.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{DecoderWrapper, NormalizerWrapper, SplitDelimiterBehavior};

use super::error::LoadError;
use super::gguf::Metadata;
use super::grammar::{Grammar, Grammars};
use crate::inference::{AnswerSchema, ErrorKind, GenerateError};
use crate::prompt::Vocabulary;

/// How text is split before merging, from Qwen2's tokenizer.json.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `llama_token_type` of llama.cpp: special tokens, and tokens added by a user.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Encoded lines are kept up to so many bytes of text: a few long documents.
const LINE_CACHE_BYTES: usize = 2 << 20;

/// A tokenizer that fits its model.
pub struct Tokenizer {
    /// Without any added token, so that it finds none in text.
    plain: tokenizers::Tokenizer,
    added: HashMap<String, u32>,
    /// The bytes of each token, one after another, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    lines: RefCell<LineCache>,
    /// The tokens that stand for text, in the order of their bytes.
    sorted: Vec<u32>,
    /// What grammars need of the vocabulary, once one was asked for.
    grammars: OnceCell<Grammars>,
}

#[derive(Default)]
struct LineCache {
    tokens: HashMap<Box<str>, Box<[u32]>>,
    bytes: usize,
}

impl Tokenizer {
    /// From `tokenizer.ggml.*`.
    ///
    /// # Errors
    /// [`LoadError`] when entries are missing, contradict each other, or describe another kind of
    /// tokenizer.
    pub fn from_gguf(metadata: &Metadata, file: &str) -> Result<Self, LoadError> {
        let missing =
            |key: &str| LoadError::malformed(file, format!("the metadata entry {key} is missing"));
        match metadata.text("tokenizer.ggml.model") {
            Some("gpt2") => {}
            other => {
                let fact = format!("its tokenizer is of the kind {other:?}, not byte-level BPE");
                return Err(LoadError::unsupported(file, fact));
            }
        }
        match metadata.text("tokenizer.ggml.pre") {
            None | Some("qwen2") => {}
            Some(other) => {
                let fact = format!("its tokenizer splits text as {other:?}, not as \"qwen2\"");
                return Err(LoadError::unsupported(file, fact));
            }
        }
        let tokens = metadata
            .texts("tokenizer.ggml.tokens")
            .ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        let merges = metadata
            .texts("tokenizer.ggml.merges")
            .ok_or_else(|| missing("tokenizer.ggml.merges"))?;
        let kinds = metadata.integers("tokenizer.ggml.token_type");
        if kinds.is_some_and(|kinds| kinds.len() != tokens.len()) {
            let fact = "it has not as many token types as tokens";
            return Err(LoadError::malformed(file, fact));
        }
        let is_added =
            |id: usize| kinds.is_some_and(|kinds| matches!(kinds[id], CONTROL | USER_DEFINED));
        let numbered = || tokens.iter().zip(0u32..);
        let added: HashMap<String, u32> = numbered()
            .filter(|(_, id)| is_added(*id as usize))
            .map(|(token, id)| (token.clone(), id))
            .collect();
        let of_text = || numbered().filter(|(_, id)| !is_added(*id as usize));
        let vocabulary: Vocab = of_text().map(|(token, id)| (token.clone(), id)).collect();
        let longest = tokens.iter().map(String::len).max().unwrap_or(0);
        let merges = merges
            .iter()
            .map(|merge| {
                let (left, right) = merge.split_once(' ')?;
                // Longer ones make no token, and the builder does not bear them.
                let fits = left.len() + right.len() <= longest;
                fits.then(|| (left.to_owned(), right.to_owned()))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                LoadError::malformed(file, "a merge is not a pair that makes a token")
            })?;
        let failed = |error: tokenizers::Error| {
            LoadError::malformed(file, format!("its tokenizer is inconsistent ({error})"))
        };
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .build()
            .map_err(failed)?;
        let split = Split::new(
            SplitPattern::Regex(SPLIT.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(failed)?;
        let mut plain = tokenizers::Tokenizer::new(model);
        plain
            .with_normalizer(Some(NormalizerWrapper::from(NFC)))
            .map_err(failed)?
            .with_pre_tokenizer(Some(PreTokenizerWrapper::from(Sequence::new(vec![
                split.into(),
                ByteLevel::new(false, false, false).into(),
            ]))));
        let of_text = of_text().map(|(token, id)| (token.as_str(), id));
        Self::new(plain, of_text, added, tokens.len(), file)
    }

    /// From the text of a `tokenizer.json`, for a model with `vocabulary` rows.
    ///
    /// # Errors
    /// [`LoadError`] when it is malformed, of another kind, or has tokens that the model has not.
    pub fn from_json(json: &[u8], vocabulary: usize, file: &str) -> Result<Self, LoadError> {
        let failed = |error: tokenizers::Error| {
            LoadError::malformed(file, format!("it is no tokenizer ({error})"))
        };
        let whole = tokenizers::Tokenizer::from_bytes(json).map_err(failed)?;
        if !matches!(whole.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            let fact = "its tokenizer is not byte-level BPE";
            return Err(LoadError::unsupported(file, fact));
        }
        let added: HashMap<String, u32> = whole
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| (token.content, id))
            .collect();
        let mut tokens = whole.get_vocab(false);
        tokens.retain(|token, _| !added.contains_key(token));
        let mut plain = tokenizers::Tokenizer::new(whole.get_model().clone());
        plain
            .with_normalizer(whole.get_normalizer().cloned())
            .map_err(failed)?
            .with_pre_tokenizer(whole.get_pre_tokenizer().cloned());
        let of_text = tokens.iter().map(|(token, id)| (token.as_str(), *id));
        Self::new(plain, of_text, added, vocabulary, file)
    }

    fn new<'a>(
        plain: tokenizers::Tokenizer,
        of_text: impl Iterator<Item = (&'a str, u32)>,
        added: HashMap<String, u32>,
        rows: usize,
        file: &str,
    ) -> Result<Self, LoadError> {
        let byte_of = bytes_of_characters();
        let mut texts = vec![Vec::new(); rows];
        let mut place = |id: u32, text: Vec<u8>| {
            let Some(place) = texts.get_mut(id as usize) else {
                let fact = format!(
                    "the tokenizer does not fit the model: it has the token {id}, the model has \
                     {rows} rows"
                );
                return Err(LoadError::malformed(file, fact));
            };
            *place = text;
            Ok(())
        };
        for (token, id) in of_text {
            let mut text = Vec::with_capacity(token.len());
            for character in token.chars() {
                let byte = byte_of.get(character as usize).copied().flatten();
                text.push(byte.ok_or_else(|| {
                    let fact = format!("the token {id} is not written in the byte alphabet");
                    LoadError::malformed(file, fact)
                })?);
            }
            place(id, text)?;
        }
        // Added tokens stand for their own text, all others are written in the byte alphabet.
        for (token, id) in &added {
            place(*id, token.clone().into_bytes())?;
        }
        let single: HashSet<u8> = texts
            .iter()
            .filter(|text| text.len() == 1)
            .map(|text| text[0])
            .collect();
        if single.len() < 256 {
            let fact = "the tokenizer lacks some of the 256 single bytes";
            return Err(LoadError::malformed(file, fact));
        }
        let special: HashSet<u32> = added.values().copied().collect();
        // Most are told apart by their first eight bytes, which need no look at the texts.
        let mut sorted: Vec<(u64, u32)> = texts
            .iter()
            .zip(0u32..)
            .filter(|(text, id)| !text.is_empty() && !special.contains(id))
            .map(|(text, id)| (first_eight(text), id))
            .collect();
        sorted.sort_unstable_by(|(a_first, a), (b_first, b)| {
            let whole = || texts[*a as usize].cmp(&texts[*b as usize]);
            a_first.cmp(b_first).then_with(whole)
        });
        let bytes = texts.concat();
        // In 32 bits: there are so many tokens that the other half would be felt.
        if u32::try_from(bytes.len()).is_err() {
            let fact = "its tokens are of more than 4 GB of text";
            return Err(LoadError::unsupported(file, fact));
        }
        let mut ends = Vec::with_capacity(texts.len());
        let mut end = 0;
        for text in &texts {
            end += text.len() as u32;
            ends.push(end);
        }
        Ok(Self {
            plain,
            added,
            bytes,
            ends,
            lines: RefCell::default(),
            sorted: sorted.into_iter().map(|(_, id)| id).collect(),
            grammars: OnceCell::new(),
        })
    }

    /// The bytes that a token stands for; none for a row of the model that no token uses.
    #[must_use]
    pub fn bytes(&self, token: u32) -> &[u8] {
        let token = token as usize;
        let Some(end) = self.ends.get(token) else {
            return &[];
        };
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..*end as usize]
    }

    /// The tokens with which a text that begins with `begun` (not empty) can begin: those that begin
    /// with it, and those that it begins with. Some always do, since every byte is a token.
    pub fn agreeing(&self, begun: &[u8]) -> impl Iterator<Item = u32> {
        let sorted = self.sorted.as_slice();
        let equal = |bytes: &[u8]| {
            let from = sorted.partition_point(|token| self.bytes(*token) < bytes);
            let count = sorted[from..].partition_point(|token| self.bytes(*token) == bytes);
            &sorted[from..from + count]
        };
        let mut agreeing: Vec<u32> = (1..begun.len())
            .flat_map(|length| equal(&begun[..length]))
            .copied()
            .collect();
        let from = sorted.partition_point(|token| self.bytes(*token) < begun);
        let count = sorted[from..].partition_point(|token| self.bytes(*token).starts_with(begun));
        agreeing.extend(&sorted[from..from + count]);
        agreeing.into_iter()
    }

    /// The grammar of an answer that is valid by `schema`, and that any of `ends` may end.
    ///
    /// # Errors
    /// As in [`Grammars::new`] and [`Grammars::grammar`].
    pub fn grammar(
        &self,
        schema: &AnswerSchema,
        ends: &Arc<HashSet<u32>>,
    ) -> Result<Grammar, GenerateError> {
        let grammars = if let Some(grammars) = self.grammars.get() {
            grammars
        } else {
            let made = Grammars::new(self)?;
            self.grammars.get_or_init(|| made)
        };
        grammars.grammar(schema, ends)
    }

    /// How many rows the model's vocabulary has: every token is below it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// The ids of all added tokens, special or not.
    pub fn added(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added.iter().map(|(text, id)| (text.as_str(), *id))
    }

    fn encode_uncached(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        let encoding = self.plain.encode_fast(text, false).map_err(|error| {
            GenerateError::new(
                ErrorKind::Backend,
                format!("the local model's tokenizer failed ({error})"),
                "Download the model again.",
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl Vocabulary for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        // Whole lines come again with every keystroke, the line being typed does not.
        if !text.ends_with('\n') {
            return self.encode_uncached(text);
        }
        if let Some(tokens) = self.lines.borrow().tokens.get(text) {
            return Ok(tokens.to_vec());
        }
        let tokens = self.encode_uncached(text)?;
        let mut lines = self.lines.borrow_mut();
        if lines.bytes + text.len() > LINE_CACHE_BYTES {
            *lines = LineCache::default();
        }
        lines.bytes += text.len();
        lines.tokens.insert(text.into(), tokens.as_slice().into());
        Ok(tokens)
    }

    fn special(&self, text: &str) -> Option<u32> {
        self.added.get(text).copied()
    }
}

/// The first eight bytes of a text as a number that sorts as they do; zeros where there are fewer.
fn first_eight(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(text) {
        *to = *from;
    }
    u64::from_be_bytes(first)
}

/// The alphabet in which byte-level vocabularies are written, by character: printable characters of
/// Latin-1 stand for themselves, the other bytes for the characters from U+0100 on (`bytes_to_unicode`
/// in GPT-2's encoder.py).
fn bytes_of_characters() -> [Option<u8>; 0x200] {
    let mut bytes = [None; 0x200];
    let mut next = 0x100;
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let character = if printable {
            usize::from(byte)
        } else {
            next += 1;
            next - 1
        };
        bytes[character] = Some(byte);
    }
    bytes
}
