//! A bundle of ANEMLL: components for Core ML, a tokenizer, and meta.yaml. [`AnemllBundle`] is one
//! whose parts fit each other; everything behind it takes that type and asks nothing again.

mod archive;
mod check;
mod error;
mod expect;
mod files;
mod logits;
mod meta;
mod metadata;
mod vocabulary;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use self::error::{BundleError, Fault};
pub use self::logits::{LogitsOutput, LogitsPart};
pub use self::meta::Sampling;

use self::check::Part;
use self::error::Faults;
use self::files::Places;
use self::meta::{Layout, Meta};
use self::metadata::Metadata;
use super::contract::{ComponentSpec, Role, StateSpec};
use crate::backend::local::error::LoadErrorKind;

/// The file that makes a folder a bundle.
const META: &str = "meta.yaml";

/// One component, and how it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// What it declares. Functions that are never called are among it only if they make sense.
    pub spec: ComponentSpec,
    /// Its `.mlmodelc` folder.
    pub path: PathBuf,
    /// The function for one token.
    pub infer: String,
    /// The function for a batch of a prompt; `None` for the head, and in exports without batches.
    pub prefill: Option<String>,
}

/// A bundle whose parts fit each other.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AnemllBundle {
    /// The folder.
    pub folder: PathBuf,
    /// The model's name, for people.
    pub name: String,
    /// The export's version, for people: nothing is decided by it.
    pub version: String,
    /// The architecture, such as `qwen3`; empty if it is not told.
    pub architecture: String,
    /// Prompt and answer together, in tokens.
    pub context_length: usize,
    /// Tokens that a prefill call takes, at least 2 and at most the context; `None` for an export that
    /// takes one token after another.
    pub batch_size: Option<usize>,
    /// The width of the residual stream; `None` for a monolithic model, which does not show it.
    pub hidden: Option<usize>,
    /// Rows of the vocabulary: the sum of the logits' parts. At least the tokenizer's tokens.
    pub vocabulary: usize,
    /// Transformer blocks, from the state's shape.
    pub layers: usize,
    /// Key and value heads, from the state's shape.
    pub kv_heads: usize,
    /// Width of a head, from the state's shape.
    pub head_dim: usize,
    /// The state that all functions of all blocks share.
    pub state: StateSpec,
    /// In the order of their calls: embeddings, blocks 1 to n, head; or the one that is all.
    pub components: Vec<Component>,
    /// How many components hold blocks; 1 for a monolithic model.
    pub num_chunks: usize,
    /// What the last component gives.
    pub logits: LogitsOutput,
    /// tokenizer.json.
    pub tokenizer: PathBuf,
    /// Tokens in tokenizer.json: one more than the largest id.
    pub tokenizer_tokens: usize,
    /// The chat template, if there is one.
    pub chat_template: Option<String>,
    /// The tokens that end a text; never empty.
    pub eos: BTreeSet<u32>,
    /// How the exporter advises to sample.
    pub sampling: Option<Sampling>,
}

impl AnemllBundle {
    /// Whether `folder` claims to be a bundle: it has a meta.yaml.
    #[must_use]
    pub fn is_at(folder: &Path) -> bool {
        folder.join(META).is_file()
    }

    /// Reads and checks the bundle in `folder`. Archived components are unpacked beside their
    /// archives.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        Self::open_with_cache(folder, None)
    }

    /// Like [`Self::open`]; where the folder cannot be written to, archives are unpacked into `cache`.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn open_with_cache(folder: &Path, cache: Option<&Path>) -> Result<Self, BundleError> {
        let mut faults = Faults::default();
        let single = |fault| BundleError::single(folder, fault);
        let path = folder.join(META);
        let text = files::read(&path, META, files::META_BYTES).map_err(single)?;
        let meta = Meta::read(&text, &mut faults).map_err(single)?;
        let text = vocabulary::read_text(folder, &mut faults);
        let Some(meta) = meta else {
            return Err(faults.into_error(folder));
        };
        let parts = parts(&meta, Places { folder, cache }, &mut faults);
        let agreed = check::check(&meta, &parts, &mut faults);
        if let (Some(text), Some(agreed)) = (&text, &agreed) {
            fits_tokenizer(text, agreed.logits.vocabulary(), &mut faults);
        }
        let (Some(text), Some(agreed)) = (text, agreed) else {
            return Err(faults.into_error(folder));
        };
        if !faults.is_empty() {
            return Err(faults.into_error(folder));
        }
        let [rows, kv_heads, _, head_dim] = agreed.state.shape[..] else {
            unreachable!("the check holds the state to four dimensions");
        };
        let components = parts
            .into_iter()
            .zip(agreed.calls)
            .map(|(part, calls)| Component {
                spec: spec(part.role, part.metadata),
                path: part.path,
                infer: calls.infer,
                prefill: calls.prefill,
            })
            .collect();
        let named = |name: Option<String>| name.unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            name: meta.name.unwrap_or_else(|| folder_name(folder)),
            version: named(meta.version),
            architecture: named(meta.architecture),
            context_length: meta.context_length,
            batch_size: agreed.batch_size,
            hidden: agreed.hidden,
            vocabulary: agreed.logits.vocabulary(),
            layers: rows / 2,
            kv_heads,
            head_dim,
            state: agreed.state,
            components,
            num_chunks: match meta.layout {
                Layout::Chunked { chunks, .. } => chunks,
                Layout::Monolithic { .. } => 1,
            },
            logits: agreed.logits,
            tokenizer: text.tokenizer,
            tokenizer_tokens: text.tokens,
            chat_template: text.chat_template,
            eos: text.eos,
            sampling: meta.sampling,
        })
    }

    /// Whether the model gives the best token of each part instead of logits.
    #[must_use]
    pub fn argmax_in_model(&self) -> bool {
        matches!(self.logits, LogitsOutput::Argmax { .. })
    }

    /// The component of this role.
    #[must_use]
    pub fn component(&self, role: Role) -> Option<&Component> {
        self.components.iter().find(|part| part.spec.role == role)
    }

    /// The components that hold blocks, in order; these are called with the state.
    pub fn stateful(&self) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(|part| matches!(part.spec.role, Role::Ffn { .. } | Role::Monolithic))
    }

    /// The name of the blocks' function for one token.
    #[must_use]
    pub fn infer_function(&self) -> Option<&str> {
        self.stateful().next().map(|part| part.infer.as_str())
    }

    /// The name of the blocks' function for a batch.
    #[must_use]
    pub fn prefill_function(&self) -> Option<&str> {
        self.stateful().next()?.prefill.as_deref()
    }
}

/// The components that could be found and read; the others are faults.
fn parts(meta: &Meta, places: Places<'_>, faults: &mut Faults) -> Vec<Part> {
    let mut found = Vec::new();
    match &meta.layout {
        Layout::Monolithic { model } => found.push((Role::Monolithic, places.component(model))),
        Layout::Chunked {
            embeddings,
            ffn,
            chunks,
            lm_head,
        } => {
            found.push((Role::Embeddings, places.component(embeddings)));
            for chunk in 1..=*chunks {
                let role = Role::Ffn { chunk, of: *chunks };
                found.push((role, places.chunk(ffn, chunk, *chunks)));
            }
            found.push((Role::LmHead, places.component(lm_head)));
        }
    }
    let mut parts = Vec::new();
    for (role, path) in found {
        let Some(path) = faults.keep(path) else {
            continue;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("{name}/metadata.json");
        let text = files::read(&path.join("metadata.json"), &place, files::METADATA_BYTES);
        let metadata = text.and_then(|text| Metadata::read(&text, &place));
        if let Some(metadata) = faults.keep(metadata) {
            parts.push(Part {
                role,
                path,
                metadata,
            });
        }
    }
    parts
}

fn fits_tokenizer(text: &vocabulary::Text, vocabulary: usize, faults: &mut Faults) {
    if text.tokens > vocabulary {
        let what = format!(
            "it has {} tokens, but the model has {vocabulary} logits: it belongs to another model",
            text.tokens
        );
        faults.add(LoadErrorKind::Malformed, "tokenizer.json", what);
    }
}

fn spec(role: Role, metadata: Metadata) -> ComponentSpec {
    let sound = metadata
        .functions
        .into_iter()
        .filter(|function| function.problems.is_empty());
    ComponentSpec {
        role,
        functions: sound.map(|function| function.spec).collect(),
    }
}

fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
