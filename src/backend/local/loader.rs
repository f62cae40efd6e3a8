//! From a model's files to something that generates.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read, Seek};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use serde::Deserialize;

use super::anemll;
use super::anemll::bundle::{AnemllBundle, BundleError};
use super::anemll::loading::BundleSource;
use super::device;
use super::error::LoadError;
use super::gguf::{self, Gguf, Metadata};
use super::model_config::{ModelConfig, context_in_metadata};
use super::packed::{PackedQwen, Plan};
use super::probe::Canary;
use super::qwen::Qwen;
use super::read_at::ReadAt;
use super::threads;
use super::tokenizer::Tokenizer;
use super::weights::{FLOAT32_BYTES, Safetensors, Weights};
use super::{LanguageModel, ModelSource};
use crate::config::{ComputeDevice, ComputeEngine};
use crate::inference::Placement;
use crate::prompt::Vocabulary;
use crate::prompt::chatml::ChatTemplate;
use crate::prompt::fim::FimOrder;
use crate::prompt::profile::{Declared, Prompting};

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
    /// How it is asked for a completion.
    pub prompting: Prompting,
    /// How to hold a conversation, if the model knows how.
    pub chat: Option<ChatTemplate>,
    /// A prompt and its answer, where they were written down with the model.
    pub canary: Option<Canary>,
    /// Where it was asked to run, and where it was seen to.
    pub placement: Placement,
}

/// Whose arithmetic computes a model on the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// Our own kernels where the file's types and the processor's instructions allow, else candle.
    #[default]
    Auto,
    /// candle.
    Candle,
    /// Our own kernels.
    Packed,
    /// Our own kernels, on the file's codes also where a model is small enough for float32.
    Rounded,
    /// Our own kernels in plain Rust, which define what the others must give. Slow.
    Portable,
}

/// Why not even slow kernels are used.
const NO_INSTRUCTIONS: &str = "no kernels of ours are for this processor";

impl From<ComputeEngine> for Arithmetic {
    fn from(engine: ComputeEngine) -> Self {
        match engine {
            ComputeEngine::Auto => Self::Auto,
            ComputeEngine::Kernels => Self::Packed,
            ComputeEngine::Candle => Self::Candle,
        }
    }
}

impl Arithmetic {
    /// Whether it is our own kernels or nothing.
    fn is_ours(self) -> bool {
        match self {
            Self::Packed | Self::Rounded | Self::Portable => true,
            Self::Auto | Self::Candle => false,
        }
    }
}

/// The key under which a GGUF file says in which order the model learnt to fill holes: `spm` or `psm`.
/// Ours, since GGUF has none for it.
const FIM_ORDER: &str = "tandem.fim_order";

/// The key under which a GGUF file names the profile of its prompts, ours too. For whoever knows better
/// than its name tells.
const PROMPT: &str = "tandem.prompt";

/// Where a GGUF file says what it is called: itself, the family, what it was made from.
const NAMES: [&str; 4] = [
    "general.name",
    "general.basename",
    "general.finetune",
    "general.base_model.0.name",
];

/// The special tokens after which Qwen has nothing more to say, besides what a file names.
const ENDS: [&str; 2] = ["<|endoftext|>", "<|im_end|>"];

/// The tokens that frame a prompt, and those that begin something else than text. A completion that
/// comes to one of them has left the document.
const FRAME: [&str; 10] = [
    "<think>",
    "</think>",
    "<tool_call>",
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
    load_by(source, context_tokens, device, Arithmetic::Auto)
}

/// As [`load`], with the arithmetic of a GGUF file on the processor chosen by hand.
///
/// # Errors
/// As [`load`]; and [`LoadError`] where our own kernels are asked for and cannot compute the file.
pub fn load_by(
    source: &ModelSource,
    context_tokens: usize,
    device: ComputeDevice,
    arithmetic: Arithmetic,
) -> Result<Loaded, LoadError> {
    match source {
        ModelSource::Gguf(path) => {
            let file = path.display().to_string();
            let opened = device::open(device)?;
            let gguf = Gguf::open(open(path)?, &file)?;
            load_gguf(gguf.on(&opened), &source.name(), context_tokens, arithmetic)
        }
        ModelSource::Folder(path) if arithmetic.is_ours() => {
            let why = "it is a folder with safetensors";
            Err(LoadError::not_by_kernels(&path.display().to_string(), why))
        }
        ModelSource::Folder(path) => load_folder(path, context_tokens, device),
        ModelSource::Bundle(bundle) => load_bundle(bundle, context_tokens),
        ModelSource::Embedded { bytes, name } => {
            let gguf = Gguf::open(Cursor::new(*bytes), name)?;
            load_gguf(gguf, name, context_tokens, arithmetic)
        }
    }
}

fn load_gguf<R: Read + Seek + ReadAt + Send>(
    mut gguf: Gguf<R>,
    called: &str,
    context: usize,
    arithmetic: Arithmetic,
) -> Result<Loaded, LoadError> {
    let file = gguf.file().to_owned();
    let metadata = gguf.take_metadata();
    let config = ModelConfig::from_gguf(&metadata, &file)?;
    let ends = metadata
        .integer("tokenizer.ggml.eos_token_id")
        .and_then(|id| u32::try_from(id).ok());
    let names = NAMES.iter().filter_map(|key| metadata.text(key));
    let known = Known {
        context_tokens: context.min(config.context_tokens),
        vocabulary: config.vocabulary,
        ends: ends.into_iter().collect(),
        template: metadata.text("tokenizer.chat_template").map(str::to_owned),
        architecture: metadata.text("general.architecture").map(str::to_owned),
        names: names.chain([called]).map(str::to_owned).collect(),
        fim_order: match metadata.text(FIM_ORDER) {
            Some("spm") => Some(FimOrder::SuffixFirst),
            Some("psm") => Some(FimOrder::PrefixFirst),
            Some(_) | None => None,
        },
        profile: metadata.text(PROMPT).map(str::to_owned),
    };
    let plan = plan(&gguf, &config, arithmetic)?;
    let context = known.context_tokens;
    let tokenizer = || {
        // Gone when it has done.
        let metadata = metadata;
        Tokenizer::from_gguf(&metadata, &file)
    };
    let (tokenizer, model, placement) = match plan {
        Ok(plan) => {
            // Qwen's vocabulary takes about as long as the weights of a small model. It is read by this thread,
            // which allocates the keys and values later: in the memory that reading leaves free.
            let packed = || pack(&config, &mut gguf, plan, context);
            let (packed, tokenizer) = beside(packed, tokenizer);
            let model = packed?;
            let placement = threads::by("tandem-kernels", model.threads(), plan.kernels());
            (tokenizer?, Box::new(model) as Box<_>, placement)
        }
        Err(why) => {
            // candle's devices stay with their thread.
            let computed = || by_candle(config, &mut gguf, context, &file);
            let (tokenizer, computed) = beside(tokenizer, computed);
            let (model, placement) = computed?;
            (tokenizer?, model, told(placement, why))
        }
    };
    known.with(model, tokenizer, placement, &file)
}

/// What the two give, the first on a thread of its own beside the second.
fn beside<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        let first = first.join();
        (first.unwrap_or_else(|panic| resume_unwind(panic)), second)
    })
}

/// How our own kernels will compute the model; or why candle does, where there is something to tell.
fn plan<R: Read + Seek>(
    gguf: &Gguf<R>,
    config: &ModelConfig,
    arithmetic: Arithmetic,
) -> Result<Result<Plan, Option<String>>, LoadError> {
    let refused = |why: &str| LoadError::not_by_kernels(gguf.file(), why);
    if !gguf.device().is_cpu() && arithmetic.is_ours() {
        return Err(refused("`local.device` is no processor"));
    }
    if arithmetic == Arithmetic::Candle || !gguf.device().is_cpu() {
        return Ok(Err(None));
    }
    let why = match (arithmetic, Plan::new(gguf, config)) {
        (Arithmetic::Auto, Ok(plan)) => {
            let plan = plan.proven();
            if !plan.is_portable() {
                return Ok(Ok(plan));
            }
            NO_INSTRUCTIONS.to_owned()
        }
        (Arithmetic::Portable, Ok(plan)) => return Ok(Ok(plan)),
        (Arithmetic::Rounded, Ok(plan)) => return Ok(Ok(plan.rounded().proven())),
        (_, Ok(plan)) => {
            let plan = plan.proven();
            if plan.is_portable() {
                return Err(refused(NO_INSTRUCTIONS));
            }
            return Ok(Ok(plan));
        }
        (Arithmetic::Auto, Err(why)) => why,
        (_, Err(why)) => return Err(refused(&why)),
    };
    tracing::info!(file = gguf.file(), why, "candle computes the model");
    Ok(Err(Some(why)))
}

/// A placement that says why it is candle's.
fn told(placement: Placement, why: Option<String>) -> Placement {
    let Some(why) = why else {
        return placement;
    };
    let observed = placement
        .observed
        .map(|observed| format!("{observed} ({why})"));
    Placement {
        observed,
        ..placement
    }
}

/// Threads for a model that is small enough for float32. Its products are short: the second thread takes
/// a third of the time off on an idle machine, and costs a fifth where others compute. More were not
/// measured.
const SMALL_THREADS: usize = 2;

fn pack<R: Read + Seek + ReadAt>(
    config: &ModelConfig,
    gguf: &mut Gguf<R>,
    plan: Plan,
    context_tokens: usize,
) -> Result<PackedQwen, LoadError> {
    let most = if plan.is_exact() {
        SMALL_THREADS
    } else {
        usize::MAX
    };
    let threads = threads::count().min(most);
    PackedQwen::load(config, gguf, plan, threads, context_tokens)
}

fn by_candle(
    config: ModelConfig,
    weights: &mut dyn Weights,
    context_tokens: usize,
    file: &str,
) -> Result<(Box<dyn LanguageModel>, Placement), LoadError> {
    if weights.elements() * size_of::<f32>() <= FLOAT32_BYTES {
        threads::stay_on_this_one();
    }
    let placement = device::observed(weights.device());
    let model = Qwen::load(config, weights, context_tokens, file)?;
    Ok((Box::new(model), placement))
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
    let named: NamedConfig = optional_json(&folder.join("config.json"))?;
    let called = folder.file_name().map(|name| name.to_string_lossy().into());
    let known = Known {
        context_tokens: context.min(config.context_tokens),
        vocabulary: config.vocabulary,
        ends,
        template,
        architecture: named.model_type,
        names: named.name_or_path.into_iter().chain(called).collect(),
        fim_order: None,
        profile: named.tandem_prompt,
    };
    let (model, placement) = by_candle(config, &mut weights, known.context_tokens, &file)?;
    known.with(model, tokenizer, placement, &file)
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
    let known = Known::of_bundle(&bundle, context);
    let placement = model.observed().into();
    known.with(Box::new(model), tokenizer, placement, &name)
}

/// What is known of a model beside its weights.
struct Known {
    context_tokens: usize,
    vocabulary: usize,
    /// Tokens that end a text.
    ends: Vec<u32>,
    /// The chat template.
    template: Option<String>,
    architecture: Option<String>,
    /// Whatever it is called.
    names: Vec<String>,
    /// The order in which it learnt to fill holes, and the profile of its prompts, where it says so.
    fim_order: Option<FimOrder>,
    profile: Option<String>,
}

/// How a bundle is asked for completions.
#[must_use]
pub fn prompting(bundle: &AnemllBundle, tokenizer: &Tokenizer) -> Prompting {
    let known = Known::of_bundle(bundle, bundle.context_length);
    known.prompting(tokenizer, known.chat(tokenizer))
}

impl Known {
    fn of_bundle(bundle: &AnemllBundle, context: usize) -> Self {
        Self {
            // The window is the model's: it moves on where the setting would be shorter.
            context_tokens: context.min(bundle.context_length),
            vocabulary: bundle.vocabulary,
            ends: bundle.eos.iter().copied().collect(),
            template: bundle.chat_template.clone(),
            architecture: Some(bundle.architecture.clone()),
            names: vec![bundle.name.clone()],
            fim_order: None,
            profile: None,
        }
    }

    fn chat(&self, tokenizer: &Tokenizer) -> Option<ChatTemplate> {
        let template = self.template.as_deref()?;
        ChatTemplate::find(template, tokenizer)
    }

    fn prompting(&self, tokenizer: &Tokenizer, chat: Option<ChatTemplate>) -> Prompting {
        let declared = Declared {
            profile: self.profile.as_deref(),
            fim_order: self.fim_order,
            architecture: self.architecture.as_deref().unwrap_or_default(),
            names: &self.names,
        };
        Prompting::of(&declared, tokenizer, chat)
    }

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
        let chat = self.chat(&tokenizer);
        let prompting = self.prompting(&tokenizer, chat);
        tracing::info!(
            model = file,
            profile = prompting.profile.name,
            "how it is asked for completions"
        );
        Ok(Loaded {
            model,
            context_tokens: self.context_tokens,
            ends: Arc::new(self.ends.into_iter().collect()),
            completion_ends: Arc::new(completion_ends),
            prompting,
            chat,
            tokenizer,
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

/// What config.json says of a model's name.
#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedConfig {
    model_type: Option<String>,
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
    /// As [`PROMPT`].
    tandem_prompt: Option<String>,
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

#[cfg(test)]
mod tests;
