//! From a model's files to something that generates.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::anemll;
use super::anemll::bundle::{AnemllBundle, BundleError};
use super::anemll::loading::BundleSource;
use super::device;
use super::error::LoadError;
use super::gguf::{self, Gguf, Metadata};
use super::model_config::{ModelConfig, context_in_metadata};
use super::probe::Canary;
use super::qwen::Qwen;
use super::threads;
use super::tokenizer::Tokenizer;
use super::weights::{FLOAT32_BYTES, Safetensors};
use super::{LanguageModel, ModelSource};
use crate::config::ComputeDevice;
use crate::inference::Placement;
use crate::prompt::Vocabulary;
use crate::prompt::chatml::ChatTemplate;
use crate::prompt::fim::{FimOrder, FimTokens};

/// A model, ready to generate.
pub struct Loaded {
    /// The model.
    pub model: Box<dyn LanguageModel>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// Tokens that end an answer in a conversation.
    pub ends: Arc<HashSet<u32>>,
    /// Tokens that end a completion: also every special token of a prompt's frame.
    pub completion_ends: Arc<HashSet<u32>>,
    /// How to ask for a text between two others, if the model knows how.
    pub fim: Option<FimTokens>,
    /// How to hold a conversation, if the model knows how.
    pub chat: Option<ChatTemplate>,
    /// Whether completions are mixed with what the document itself says comes next: for a model too
    /// small to tell better.
    pub copies: bool,
    /// A prompt and its answer, where they were written down with the model.
    pub canary: Option<Canary>,
    /// Where it was asked to run, and where it was seen to.
    pub placement: Placement,
}

/// The key under which a GGUF file says in which order the model learnt to fill holes: `spm` or `psm`.
/// Ours, since GGUF has none for it; files without it are prefix first.
const FIM_ORDER: &str = "tandem.fim_order";

/// The special tokens after which Qwen has nothing more to say, besides what a file names.
const ENDS: [&str; 2] = ["<|endoftext|>", "<|im_end|>"];

/// The tokens that frame a prompt. A completion that comes to one of them has left the document.
const FRAME: [&str; 7] = [
    "<|im_start|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

/// The model's own context, without loading it: for GGUF the part of the metadata before the
/// vocabulary is read, for a folder config.json.
///
/// # Errors
/// [`LoadError`] when there is no such file, or its beginning makes no sense.
pub fn context_tokens(source: &ModelSource) -> Result<usize, LoadError> {
    fn in_gguf(source: impl Read + Seek, file: &str) -> Result<usize, LoadError> {
        let enough = |metadata: &Metadata| context_in_metadata(metadata).is_some();
        let metadata = gguf::peek(source, file, enough)?;
        context_in_metadata(&metadata)
            .ok_or_else(|| LoadError::malformed(file, "it does not tell the length of its context"))
    }
    match source {
        ModelSource::Gguf(path) => in_gguf(open(path)?, &path.display().to_string()),
        ModelSource::Folder(path) => Ok(folder_config(path)?.context_tokens),
        ModelSource::Bundle(bundle) => Ok(open_bundle(&bundle.folder)?.context_length),
        ModelSource::Embedded { bytes, name } => in_gguf(Cursor::new(*bytes), name),
    }
}

/// Loads a model for at most `context_tokens`, on the thread that will compute with it. A GGUF file
/// or a folder with safetensors goes onto `device`; bundles have their own hardware, and the embedded
/// model is too small for any but the processor.
///
/// # Errors
/// [`LoadError`] naming the file, what is wrong with it, and the next step; or the device, where it
/// cannot be had.
pub fn load(
    source: &ModelSource,
    context_tokens: usize,
    device: ComputeDevice,
) -> Result<Loaded, LoadError> {
    match source {
        ModelSource::Gguf(path) => {
            let file = path.display().to_string();
            let opened = device::open(device)?;
            let gguf = Gguf::open(open(path)?, &file)?;
            load_gguf(gguf.on(&opened), context_tokens)
        }
        ModelSource::Folder(path) => load_folder(path, context_tokens, device),
        ModelSource::Bundle(bundle) => load_bundle(bundle, context_tokens),
        ModelSource::Embedded { bytes, name } => {
            let gguf = Gguf::open(Cursor::new(*bytes), name)?;
            let loaded = load_gguf(gguf, context_tokens)?;
            Ok(Loaded {
                copies: true,
                ..loaded
            })
        }
    }
}

fn load_gguf<R: Read + Seek>(mut gguf: Gguf<R>, context: usize) -> Result<Loaded, LoadError> {
    let file = gguf.file().to_owned();
    let metadata = gguf.metadata();
    let config = ModelConfig::from_gguf(metadata, &file)?;
    let tokenizer = Tokenizer::from_gguf(metadata, &file)?;
    let template = metadata.text("tokenizer.chat_template").map(str::to_owned);
    let order = match metadata.text(FIM_ORDER) {
        Some("spm") => FimOrder::SuffixFirst,
        Some(_) | None => FimOrder::PrefixFirst,
    };
    let ends = metadata
        .integer("tokenizer.ggml.eos_token_id")
        .and_then(|id| u32::try_from(id).ok())
        .into_iter()
        .collect();
    let mut loaded = finish(
        config,
        &mut gguf,
        tokenizer,
        ends,
        template.as_deref(),
        context,
        &file,
    )?;
    if let Some(fim) = &mut loaded.fim {
        fim.order = order;
    }
    Ok(loaded)
}

fn load_folder(folder: &Path, context: usize, device: ComputeDevice) -> Result<Loaded, LoadError> {
    let file = folder.display().to_string();
    let config = folder_config(folder)?;
    let path = folder.join("tokenizer.json");
    let name = path.display().to_string();
    let json = fs::read(&path).map_err(|error| LoadError::io(&name, &error))?;
    let tokenizer = Tokenizer::from_json(&json, config.vocabulary, &name)?;

    let generation: Generation = optional_json(&folder.join("generation_config.json"))?;
    let ends = match generation.eos_token_id {
        Some(OneOrMore::One(id)) => vec![id],
        Some(OneOrMore::More(ids)) => ids,
        None => Vec::new(),
    };
    let described: TokenizerConfig = optional_json(&folder.join("tokenizer_config.json"))?;
    let template = described
        .chat_template
        .or_else(|| fs::read_to_string(folder.join("chat_template.jinja")).ok());
    let opened = device::open(device)?;
    let mut weights = Safetensors::open(folder, &opened)?;
    finish(
        config,
        &mut weights,
        tokenizer,
        ends,
        template.as_deref(),
        context,
        &file,
    )
}

fn open_bundle(folder: &Path) -> Result<AnemllBundle, LoadError> {
    AnemllBundle::open(folder).map_err(BundleError::into_load_error)
}

fn load_bundle(source: &BundleSource, context: usize) -> Result<Loaded, LoadError> {
    let bundle = open_bundle(&source.folder)?;
    let name = bundle.tokenizer.display().to_string();
    let json = fs::read(&bundle.tokenizer).map_err(|error| LoadError::io(&name, &error))?;
    let tokenizer = Tokenizer::from_json(&json, bundle.vocabulary, &name)?;
    let model = anemll::loading::model(&bundle, source)?;
    let known = Known {
        // The window is the model's: it moves on where the setting would be shorter.
        context_tokens: context.min(bundle.context_length),
        vocabulary: bundle.vocabulary,
        ends: bundle.eos.into_iter().collect(),
        template: bundle.chat_template,
    };
    let placement = model.observed().into();
    known.with(Box::new(model), tokenizer, placement, &name)
}

fn finish(
    config: ModelConfig,
    weights: &mut dyn super::weights::Weights,
    tokenizer: Tokenizer,
    ends: Vec<u32>,
    template: Option<&str>,
    context_tokens: usize,
    file: &str,
) -> Result<Loaded, LoadError> {
    if weights.elements() * size_of::<f32>() <= FLOAT32_BYTES {
        threads::stay_on_this_one();
    }
    let known = Known {
        context_tokens: context_tokens.min(config.context_tokens),
        vocabulary: config.vocabulary,
        ends,
        template: template.map(str::to_owned),
    };
    let placement = device::observed(weights.device());
    let model = Qwen::load(config, weights, known.context_tokens, file)?;
    known.with(Box::new(model), tokenizer, placement, file)
}

/// What is known of a model beside its weights.
struct Known {
    context_tokens: usize,
    vocabulary: usize,
    /// Tokens that end a text.
    ends: Vec<u32>,
    /// The chat template.
    template: Option<String>,
}

impl Known {
    fn with(
        mut self,
        model: Box<dyn LanguageModel>,
        tokenizer: Tokenizer,
        placement: Placement,
        file: &str,
    ) -> Result<Loaded, LoadError> {
        let past = self
            .ends
            .iter()
            .find(|end| **end as usize >= self.vocabulary);
        if let Some(end) = past {
            let fact = format!(
                "the tokenizer does not fit the model: text ends with the token {end}, the model \
                 has {} rows",
                self.vocabulary
            );
            return Err(LoadError::malformed(file, fact));
        }
        let known = |names: &[&str]| -> Vec<u32> {
            let ids = names.iter().filter_map(|name| tokenizer.special(name));
            ids.collect()
        };
        self.ends.extend(known(&ENDS));
        let completion_ends = self.ends.iter().copied().chain(known(&FRAME)).collect();
        let template = self.template.as_deref();
        let chat = template.and_then(|template| ChatTemplate::find(template, &tokenizer));
        let fim = FimTokens::find(&tokenizer, FimOrder::default());
        Ok(Loaded {
            model,
            context_tokens: self.context_tokens,
            ends: Arc::new(self.ends.into_iter().collect()),
            completion_ends: Arc::new(completion_ends),
            fim,
            chat,
            tokenizer,
            copies: false,
            canary: None,
            placement,
        })
    }
}

fn open(path: &Path) -> Result<BufReader<File>, LoadError> {
    let file = File::open(path);
    let file = file.map_err(|error| LoadError::io(&path.display().to_string(), &error))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn folder_config(folder: &Path) -> Result<ModelConfig, LoadError> {
    let path = folder.join("config.json");
    let name = path.display().to_string();
    let text = fs::read(&path).map_err(|error| LoadError::io(&name, &error))?;
    ModelConfig::from_json(&text, &name)
}

fn optional_json<T: serde::de::DeserializeOwned + Default>(path: &Path) -> Result<T, LoadError> {
    let name = path.display().to_string();
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| LoadError::malformed(&name, format!("it makes no sense ({error})"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(LoadError::io(&name, &error)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Generation {
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
    chat_template: Option<String>,
}
