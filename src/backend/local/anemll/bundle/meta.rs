//! meta.yaml: what a bundle says about itself.
//!
//! Keys after ANEMLL's `generate_meta_yaml.py`, 0.3.4 and 0.3.5. What decides is read strictly, what
//! only describes is passed over. The version is shown to people and decides nothing.

use serde::Deserialize;
use serde_yaml::Value;

use super::error::{Fault, Faults, malformed};

/// More chunks than any export has: Qwen3-8B has 4.
const MOST_CHUNKS: usize = 99;

/// Longer than any context on the Neural Engine.
const LONGEST_CONTEXT: usize = 1 << 20;

/// Real files have one bracket or two. The YAML reader's time grows with the square of open ones.
const MOST_BRACKETS: usize = 256;

const PLACE: &str = "meta.yaml";

/// What meta.yaml says, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meta {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) context_length: usize,
    /// `None` where it says nothing of batches.
    pub(super) batch_size: Option<usize>,
    pub(super) layout: Layout,
    /// How many parts the logits are said to have.
    pub(super) split_lm_head: Option<usize>,
    /// Whether the best token of each part is said to come instead of logits.
    pub(super) argmax_in_model: Option<bool>,
    pub(super) vocab_size: Option<usize>,
    pub(super) lm_head_chunk_sizes: Option<Vec<usize>>,
    pub(super) sampling: Option<Sampling>,
}

/// Which components there are, by the names written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// Embeddings, some chunks of blocks, and the head.
    Chunked {
        embeddings: String,
        ffn: String,
        chunks: usize,
        lm_head: String,
    },
    /// All in one.
    Monolithic { model: String },
}

/// How the exporter advises to sample (`recommended_sampling`).
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Whether to sample at all.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// The share of probability that is sampled from.
    pub top_p: Option<f64>,
    /// How many tokens are sampled from.
    pub top_k: Option<u32>,
}

#[derive(Deserialize)]
struct File {
    model_info: Info,
}

#[derive(Deserialize)]
struct Info {
    name: Option<Value>,
    version: Option<Value>,
    architecture: Option<Value>,
    model_type: Option<Value>,
    parameters: serde_yaml::Mapping,
}

impl Meta {
    /// From the text of meta.yaml.
    ///
    /// # Errors
    /// When it is not YAML of that form; faults in single keys are added to `faults`, and `None`
    /// comes back when nothing further can be checked without them.
    pub(super) fn read(text: &[u8], faults: &mut Faults) -> Result<Option<Self>, Fault> {
        let brackets = text.iter().filter(|byte| matches!(byte, b'[' | b'{'));
        if brackets.count() > MOST_BRACKETS {
            return Err(malformed(PLACE, "it makes no sense (too many brackets)"));
        }
        let File { model_info: info } = serde_yaml::from_slice(text)
            .map_err(|error| malformed(PLACE, format!("it makes no sense ({error})")))?;
        let mut keys = Keys {
            parameters: &info.parameters,
            faults,
        };
        let context = keys.size("context_length", LONGEST_CONTEXT);
        if context.is_none() && !keys.has("context_length") {
            keys.faults.malformed(PLACE, "context_length is missing");
        }
        let batch_size = keys.size("batch_size", LONGEST_CONTEXT);
        let layout = keys.layout(info.model_type.as_ref());
        let split_lm_head = keys.size("split_lm_head", 1 << 16);
        let argmax_in_model = keys.flag("argmax_in_model");
        let vocab_size = keys.size("vocab_size", super::check::LARGEST_VOCABULARY);
        let lm_head_chunk_sizes = keys.sizes("lm_head_chunk_sizes");
        // Advice: not worth refusing a model for.
        let sampling = info
            .parameters
            .get("recommended_sampling")
            .and_then(|value| Sampling::deserialize(value).ok());
        let (Some(context_length), Some(layout)) = (context, layout) else {
            return Ok(None);
        };
        let text = |value: Option<Value>| value.as_ref().and_then(scalar);
        Ok(Some(Self {
            name: text(info.name),
            version: text(info.version),
            architecture: text(info.architecture),
            context_length,
            batch_size,
            layout,
            split_lm_head,
            argmax_in_model,
            vocab_size,
            lm_head_chunk_sizes,
            sampling,
        }))
    }
}

/// The keys below `parameters`.
struct Keys<'a, 'f> {
    parameters: &'a serde_yaml::Mapping,
    faults: &'f mut Faults,
}

impl<'a> Keys<'a, '_> {
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.parameters
            .get(key)
            .filter(|value| !matches!(value, Value::Null))
            .filter(|value| value.as_str() != Some("none"))
    }

    fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// A whole number from 1 to `largest`, written as a number or as text.
    fn size(&mut self, key: &str, largest: usize) -> Option<usize> {
        let value = self.value(key)?;
        let size = as_size(value).filter(|size| (1..=largest).contains(size));
        if size.is_none() {
            let what = format!(
                "{key} is {}, not a number from 1 to {largest}",
                shown(value)
            );
            self.faults.malformed(PLACE, what);
        }
        size
    }

    fn sizes(&mut self, key: &str) -> Option<Vec<usize>> {
        let value = self.value(key)?;
        let sizes: Option<Vec<usize>> = value
            .as_sequence()
            .filter(|list| !list.is_empty())
            .and_then(|list| list.iter().map(as_size).collect());
        if sizes.is_none() {
            let what = format!("{key} is {}, not a list of numbers", shown(value));
            self.faults.malformed(PLACE, what);
        }
        sizes
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => text.to_ascii_lowercase().parse().ok(),
            _ => None,
        };
        if flag.is_none() {
            let what = format!("{key} is {}, not true or false", shown(value));
            self.faults.malformed(PLACE, what);
        }
        flag
    }

    fn layout(&mut self, model_type: Option<&Value>) -> Option<Layout> {
        let said = model_type.or_else(|| self.parameters.get("model_type"));
        let monolithic =
            self.has("monolithic_model") || said.and_then(Value::as_str) == Some("monolithic");
        if monolithic {
            let model = self.component("monolithic_model", "_monolithic_full", "lut_bits")?;
            return Some(Layout::Monolithic { model });
        }
        let embeddings = self.component("embeddings", "_embeddings", "lut_embeddings");
        let ffn = self.component("ffn", "_FFN_PF", "lut_ffn");
        let lm_head = self.component("lm_head", "_lm_head", "lut_lmhead");
        let chunks = if self.has("num_chunks") {
            self.size("num_chunks", MOST_CHUNKS)?
        } else {
            1
        };
        Some(Layout::Chunked {
            embeddings: embeddings?,
            ffn: ffn?,
            chunks,
            lm_head: lm_head?,
        })
    }

    /// The name of a component: as written, else put together as ANEMLL's `chat.py` does for files
    /// that leave it out.
    fn component(&mut self, key: &str, middle: &str, lut: &str) -> Option<String> {
        if let Some(value) = self.value(key) {
            let name = value.as_str().map(str::to_owned);
            if name.is_none() {
                let what = format!("{key} is {}, not a name", shown(value));
                self.faults.malformed(PLACE, what);
            }
            return name;
        }
        let Some(prefix) = self.value("model_prefix").and_then(Value::as_str) else {
            let what = format!("{key} is missing, and there is no model_prefix to tell it by");
            self.faults.malformed(PLACE, what);
            return None;
        };
        let lut = self.value(lut).and_then(scalar);
        let lut = lut.map_or_else(String::new, |bits| format!("_lut{bits}"));
        Some(format!("{prefix}{middle}{lut}"))
    }
}

fn as_size(value: &Value) -> Option<usize> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.and_then(|number| usize::try_from(number).ok())
}

/// The text of a scalar: `0.3.4` is text, `0.3` would be a number.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A value for people: scalars as they are, everything else by its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) | Value::Tagged(_) => "a table".to_owned(),
        other => scalar(other).map_or_else(
            || "nothing".to_owned(),
            |text| format!("{:?}", text.chars().take(40).collect::<String>()),
        ),
    }
}
