//! What is sent to a server, field by field.
//!
//! Fields: OpenAI's reference for completions and chat, llama.cpp's `tools/server/README.md` for
//! `/infill`. What only some servers know is sent to those alone.

use serde::Serialize;
use serde_json::Value;

use crate::inference::{GenerateRequest, Sampling};

use super::discovery::{Known, Software};

/// OpenAI and TGI take no more stop sequences. The rest are seen to here.
pub const MOST_STOPS: usize = 4;

/// The last event of a stream is to count its tokens.
pub const USAGE: StreamOptions = StreamOptions {
    include_usage: true,
};

/// What every way has.
#[derive(Serialize)]
pub struct Common {
    pub model: String,
    pub stream: bool,
    pub temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Else vLLM and SGLang leave a special token out of the text, and go on behind it, before they
    /// look for stop sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_special_tokens: Option<bool>,
}

impl Common {
    /// For `request`, which ends at `ends` too.
    pub fn new(request: &GenerateRequest, known: &Known, ends: &[String]) -> Self {
        let Sampling {
            temperature,
            top_p,
            seed,
            ..
        } = request.sampling;
        let sampled = temperature > 0.0;
        let keeps = matches!(known.software, Software::Vllm | Software::Sglang);
        let stops = request.stop.iter().chain(ends).cloned();
        Self {
            model: known.model.clone(),
            stream: true,
            temperature,
            top_p: (sampled && top_p < 1.0).then_some(top_p),
            // Within what every server takes for a seed.
            seed: sampled.then_some(seed & 0x7fff_ffff),
            stop: stops.take(MOST_STOPS).collect(),
            skip_special_tokens: (keeps && !ends.is_empty()).then_some(false),
        }
    }
}

/// Of `/infill`.
#[derive(Serialize)]
pub struct Infill<'a> {
    pub input_prefix: &'a str,
    pub input_suffix: &'a str,
    pub input_extra: Vec<Extra<'a>>,
    pub n_predict: usize,
    pub cache_prompt: bool,
    #[serde(flatten)]
    pub common: Common,
}

/// A piece of another file.
#[derive(Serialize)]
pub struct Extra<'a> {
    pub filename: &'a str,
    pub text: &'a str,
}

/// Of `/v1/completions`.
#[derive(Serialize)]
pub struct Completion<'a> {
    pub prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<&'a str>,
    pub max_tokens: usize,
    pub stream_options: StreamOptions,
    #[serde(flatten)]
    pub common: Common,
}

/// Of Ollama's `/api/generate`.
#[derive(Serialize)]
pub struct Generate<'a> {
    pub model: &'a str,
    pub prompt: &'a str,
    /// Not to be put into the model's template.
    pub raw: bool,
    pub stream: bool,
    pub options: Options,
}

/// What Ollama is told of how to generate.
#[derive(Serialize)]
pub struct Options {
    pub num_predict: usize,
    pub temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

/// Of `/v1/chat/completions`.
#[derive(Serialize)]
pub struct Chat<'a> {
    pub messages: Vec<Message>,
    pub max_tokens: usize,
    pub stream_options: StreamOptions,
    /// For Qwen3 and its like, which would think before a light answer.
    #[serde(
        rename = "chat_template_kwargs",
        skip_serializing_if = "Option::is_none"
    )]
    pub template_arguments: Option<TemplateArguments>,
    /// The same for Ollama, which sees to each model's own way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<&'static str>,
    /// llama.cpp, vLLM, SGLang and Ollama hold the answer to it as OpenAI does; llama-cpp-python has a
    /// form of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat<'a>>,
    #[serde(flatten)]
    pub common: Common,
}

/// The form of an answer.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat<'a> {
    /// OpenAI's.
    JsonSchema { json_schema: NamedSchema<'a> },
    /// llama-cpp-python's.
    JsonObject { schema: &'a Value },
}

/// A schema as OpenAI takes it.
#[derive(Serialize)]
pub struct NamedSchema<'a> {
    pub name: &'static str,
    pub strict: bool,
    pub schema: &'a Value,
}

/// A turn of a conversation.
#[derive(Serialize)]
pub struct Message {
    pub role: &'static str,
    pub content: String,
}

/// What a stream holds besides text.
#[derive(Serialize)]
pub struct StreamOptions {
    pub include_usage: bool,
}

/// For the chat template of the model.
#[derive(Serialize)]
pub struct TemplateArguments {
    pub enable_thinking: bool,
}
