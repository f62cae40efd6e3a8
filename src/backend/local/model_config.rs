//! The dimensions of a Qwen model, from GGUF metadata or from config.json, checked.

use serde::Deserialize;

use super::error::LoadError;
use super::gguf::Metadata;

/// The generations of Qwen that this engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Qwen2 and Qwen2.5, Coder included: biases on query, key and value.
    Qwen2,
    /// Qwen3, dense: norms on each head's query and key.
    Qwen3,
}

/// The dimensions of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The generation.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even. Not always `hidden / heads`.
    pub head_dim: usize,
    /// Epsilon of every norm.
    pub norm_epsilon: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Positions the model was trained for.
    pub context_tokens: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
}

/// The architecture's name and its context, for a descriptor: what can be told without loading.
#[must_use]
pub fn context_in_metadata(metadata: &Metadata) -> Option<usize> {
    let architecture = metadata.text("general.architecture")?;
    let context = metadata.integer(&format!("{architecture}.context_length"))?;
    usize::try_from(context).ok()
}

impl ModelConfig {
    /// From GGUF metadata.
    ///
    /// # Errors
    /// [`LoadError`] naming `file` and the key that is missing or makes no sense.
    pub fn from_gguf(metadata: &Metadata, file: &str) -> Result<Self, LoadError> {
        let name = metadata.text("general.architecture").unwrap_or("unnamed");
        let architecture = architecture(name, file)?;
        let missing = |key: &str| {
            LoadError::malformed(file, format!("the metadata entry {name}.{key} is missing"))
        };
        let integer = |key: &str| {
            metadata
                .integer(&format!("{name}.{key}"))
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| missing(key))
        };
        let scaling = metadata.text(&format!("{name}.rope.scaling.type"));
        check_rope_scaling(scaling, file)?;
        let hidden = integer("embedding_length")?;
        let heads = integer("attention.head_count")?;
        Self {
            architecture,
            hidden,
            intermediate: integer("feed_forward_length")?,
            layers: integer("block_count")?,
            heads,
            kv_heads: integer("attention.head_count_kv").unwrap_or(heads),
            head_dim: integer("attention.key_length")
                .unwrap_or_else(|_| hidden.checked_div(heads).unwrap_or_default()),
            norm_epsilon: metadata
                .float(&format!("{name}.attention.layer_norm_rms_epsilon"))
                .ok_or_else(|| missing("attention.layer_norm_rms_epsilon"))?,
            rope_theta: metadata
                .float(&format!("{name}.rope.freq_base"))
                .unwrap_or(10_000.0),
            context_tokens: integer("context_length")?,
            vocabulary: metadata
                .texts("tokenizer.ggml.tokens")
                .map(<[String]>::len)
                .ok_or_else(|| {
                    LoadError::malformed(file, "it has no vocabulary (tokenizer.ggml.tokens)")
                })?,
        }
        .checked(file)
    }

    /// From a `config.json` of transformers 4 or 5.
    ///
    /// # Errors
    /// [`LoadError`] naming `file` and what is missing or makes no sense.
    pub fn from_json(text: &[u8], file: &str) -> Result<Self, LoadError> {
        let config: HuggingFaceConfig = serde_json::from_slice(text).map_err(|error| {
            LoadError::malformed(file, format!("it does not describe a model ({error})"))
        })?;
        let architecture = architecture(&config.model_type, file)?;
        if config.use_sliding_window {
            let fact = "the model uses a sliding window, which is not supported";
            return Err(LoadError::unsupported(file, fact));
        }
        let rope = config.rope_parameters.or(config.rope_scaling);
        let scaling = rope.as_ref().and_then(|rope| rope.rope_type.as_deref());
        check_rope_scaling(scaling, file)?;
        Self {
            architecture,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config
                .num_key_value_heads
                .unwrap_or(config.num_attention_heads),
            head_dim: config.head_dim.unwrap_or_else(|| {
                let heads = config.num_attention_heads;
                config.hidden_size.checked_div(heads).unwrap_or_default()
            }),
            norm_epsilon: config.rms_norm_eps,
            rope_theta: rope
                .and_then(|rope| rope.rope_theta)
                .or(config.rope_theta)
                .unwrap_or(10_000.0),
            context_tokens: config.max_position_embeddings,
            vocabulary: config.vocab_size,
        }
        .checked(file)
    }

    /// Bounds that hold for every real model by a wide margin; with them no product of dimensions
    /// overflows, and no table is made that the weights would not fill.
    fn checked(self, file: &str) -> Result<Self, LoadError> {
        let sizes = [
            ("hidden size", self.hidden, 1 << 16),
            ("intermediate size", self.intermediate, 1 << 18),
            ("number of layers", self.layers, 1 << 10),
            ("number of heads", self.heads, 1 << 10),
            ("number of key-value heads", self.kv_heads, 1 << 10),
            ("head size", self.head_dim, 1 << 10),
            ("context length", self.context_tokens, 1 << 24),
            ("vocabulary", self.vocabulary, 1 << 22),
        ];
        for (what, size, largest) in sizes {
            if size == 0 || size > largest {
                return Err(LoadError::malformed(file, format!("its {what} is {size}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            let fact = format!(
                "{} heads, {} key-value heads and head size {} do not fit each other",
                self.heads, self.kv_heads, self.head_dim
            );
            return Err(LoadError::malformed(file, fact));
        }
        let sound = |value: f64| value.is_finite() && value > 0.0;
        if !sound(self.norm_epsilon) || !sound(self.rope_theta) {
            let fact = format!(
                "its norm epsilon is {} and its rope base {}",
                self.norm_epsilon, self.rope_theta
            );
            return Err(LoadError::malformed(file, fact));
        }
        Ok(self)
    }
}

#[derive(Deserialize)]
struct HuggingFaceConfig {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    #[serde(default)]
    use_sliding_window: bool,
    max_position_embeddings: usize,
    vocab_size: usize,
}

#[derive(Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
}

fn architecture(name: &str, file: &str) -> Result<Architecture, LoadError> {
    match name {
        "qwen2" => Ok(Architecture::Qwen2),
        "qwen3" => Ok(Architecture::Qwen3),
        other => Err(LoadError::unsupported(
            file,
            format!("it holds a model of the architecture {other:?}"),
        )),
    }
}

fn check_rope_scaling(kind: Option<&str>, file: &str) -> Result<(), LoadError> {
    match kind {
        None | Some("none" | "default") => Ok(()),
        Some(other) => Err(LoadError::unsupported(
            file,
            format!("the model scales its positions by {other:?}, which is not supported"),
        )),
    }
}
