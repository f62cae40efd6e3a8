//! The files about text beside the components: how large the tokenizer is, which tokens end a text,
//! and the chat template.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::{Fault, Faults, malformed};
use super::files::{SMALL_BYTES, TOKENIZER_BYTES, read, read_optional};

/// Tokens after which Qwen has nothing more to say, whatever the configurations name.
const ENDS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

/// What the files about text say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) tokenizer: PathBuf,
    /// One more than the largest id.
    pub(super) tokens: usize,
    pub(super) eos: BTreeSet<u32>,
    pub(super) chat_template: Option<String>,
}

/// Reads them in `folder`.
pub(super) fn read_text(folder: &Path, faults: &mut Faults) -> Option<Text> {
    let path = folder.join("tokenizer.json");
    let tokenizer = faults.keep(tokenizer(&path));
    let config: Ends = optional(folder, "config.json", faults);
    let generation: Ends = optional(folder, "generation_config.json", faults);
    let described: TokenizerConfig = optional(folder, "tokenizer_config.json", faults);
    let chat_template = template(folder, described.chat_template, faults);
    let tokenizer = tokenizer?;

    let mut eos = BTreeSet::new();
    for ends in [config, generation] {
        match ends.eos_token_id {
            Some(OneOrMore::One(id)) => {
                eos.insert(id);
            }
            Some(OneOrMore::More(ids)) => eos.extend(ids),
            None => {}
        }
    }
    eos.extend(ENDS.iter().filter_map(|name| tokenizer.id(name)));
    if let Some(Named::Plain(name) | Named::Described { content: name }) = described.eos_token {
        match tokenizer.id(&name) {
            Some(id) => {
                eos.insert(id);
            }
            None => faults.malformed(
                "tokenizer_config.json",
                format!("text ends with {name:?}, a token that tokenizer.json has not"),
            ),
        }
    }
    if eos.is_empty() {
        faults.malformed("tokenizer.json", "no token ends a text");
    }
    let foreign: Vec<u32> = eos
        .iter()
        .copied()
        .filter(|id| *id as usize >= tokenizer.tokens)
        .collect();
    if !foreign.is_empty() {
        let what = format!(
            "text ends with the token {}, but tokenizer.json has {} tokens: it belongs to another \
             model",
            foreign
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            tokenizer.tokens
        );
        faults.malformed("generation_config.json", what);
    }
    Some(Text {
        tokenizer: path,
        tokens: tokenizer.tokens,
        eos,
        chat_template,
    })
}

/// As much of tokenizer.json as can be told without building a tokenizer.
struct Tokenizer {
    tokens: usize,
    added: Vec<Added>,
}

impl Tokenizer {
    fn id(&self, text: &str) -> Option<u32> {
        let found = self.added.iter().find(|token| token.content == text);
        found.map(|token| token.id)
    }
}

fn tokenizer(path: &Path) -> Result<Tokenizer, Fault> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: Largest,
    }
    const PLACE: &str = "tokenizer.json";
    let bytes = read(path, PLACE, TOKENIZER_BYTES)?;
    let file: File = parse(&bytes, PLACE)?;
    let added = file.added_tokens.iter().map(|token| token.id);
    let Some(largest) = added.chain(file.model.vocab.0).max() else {
        return Err(malformed(PLACE, "it has no tokens"));
    };
    Ok(Tokenizer {
        tokens: largest as usize + 1,
        added: file.added_tokens,
    })
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

/// The largest id of a vocabulary, which is not kept: it has 150,000 entries.
struct Largest(Option<u32>);

impl<'de> Deserialize<'de> for Largest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Largest;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("tokens and their ids")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Largest, M::Error> {
                let mut largest = None;
                while let Some((IgnoredAny, id)) = map.next_entry::<IgnoredAny, u32>()? {
                    largest = largest.max(Some(id));
                }
                Ok(Largest(largest))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// chat_template.jinja, which newer exports have, else the one in tokenizer_config.json.
fn template(folder: &Path, described: Option<Templates>, faults: &mut Faults) -> Option<String> {
    const PLACE: &str = "chat_template.jinja";
    let file = faults.keep(read_optional(&folder.join(PLACE), PLACE, SMALL_BYTES));
    if let Some(bytes) = file.flatten() {
        match String::from_utf8(bytes) {
            Ok(text) => return Some(text),
            Err(_) => faults.malformed(PLACE, "it is not text"),
        }
    }
    match described? {
        Templates::One(text) => Some(text),
        Templates::Named(templates) => {
            let default = templates.iter().position(|entry| entry.name == "default");
            let mut templates = templates;
            let chosen = default.or((!templates.is_empty()).then_some(0))?;
            Some(templates.swap_remove(chosen).template)
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ends {
    eos_token_id: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenizerConfig {
    eos_token: Option<Named>,
    chat_template: Option<Templates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Described { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

fn optional<T: DeserializeOwned + Default>(folder: &Path, name: &str, faults: &mut Faults) -> T {
    let bytes = faults.keep(read_optional(&folder.join(name), name, SMALL_BYTES));
    let Some(bytes) = bytes.flatten() else {
        return T::default();
    };
    faults.keep(parse(&bytes, name)).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(bytes: &[u8], place: &str) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        let mut fault = malformed(place, format!("it makes no sense ({error})"));
        if error.is_eof() {
            fault.kind = crate::backend::local::error::LoadErrorKind::CutShort;
        }
        fault
    })
}
