//! How a model gives its logits: in numbered parts, or as the best token of each part.

use super::check::LARGEST_VOCABULARY;
use super::error::Faults;
use super::expect::element;
use super::meta::Meta;
use super::metadata::{Function, Metadata};
use crate::backend::local::anemll::contract::{Element, Shape, TensorSpec};

/// Outputs of exports that find the best token themselves: its index within each part, and its logit.
const ARGMAX: [&str; 2] = ["argmax_idx", "argmax_val"];

/// What stands before a part's number.
const PART: &str = "logits";

/// Names of an undivided output.
const WHOLE: [&str; 2] = ["logits", "output_logits"];

/// What the head gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogitsOutput {
    /// Logits, in parts that follow one another in this order.
    Parts(Vec<LogitsPart>),
    /// The best token of each part.
    Argmax {
        /// The output with each part's best index, counted within the part.
        index: String,
        /// The output with each part's best logit.
        value: String,
        /// The sizes of the parts.
        sizes: Vec<usize>,
    },
}

/// One output of logits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogitsPart {
    /// The output's name.
    pub name: String,
    /// Rows of the vocabulary in it.
    pub size: usize,
}

impl LogitsOutput {
    /// How many parts there are.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.sizes().count()
    }

    /// Rows of the vocabulary in all parts together.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.sizes().sum()
    }

    /// The sizes of the parts, in order.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        let (parts, sizes) = match self {
            Self::Parts(parts) => (parts.as_slice(), &[][..]),
            Self::Argmax { sizes, .. } => (&[][..], sizes.as_slice()),
        };
        let parts = parts.iter().map(|part| part.size);
        parts.chain(sizes.iter().copied())
    }
}

/// What `function` gives, held against meta.yaml.
pub(super) fn output(
    function: &Function,
    metadata: &Metadata,
    place: &str,
    meta: &Meta,
    faults: &mut Faults,
) -> Option<LogitsOutput> {
    let outputs = &function.spec.outputs;
    let named = |name: &str| outputs.iter().find(|output| output.name == name);
    let output = match ARGMAX.map(named) {
        [Some(index), Some(value)] => {
            if meta.argmax_in_model == Some(false) {
                let what = "it gives argmax_idx, but meta.yaml says argmax_in_model: false";
                faults.malformed(place, what);
            }
            argmax(index, value, metadata, place, meta, faults)?
        }
        [None, None] => {
            if meta.argmax_in_model == Some(true) {
                let what = "it gives no argmax_idx, but meta.yaml says argmax_in_model: true";
                faults.malformed(place, what);
            }
            LogitsOutput::Parts(parts(outputs, place, faults)?)
        }
        [index, _] => {
            let missing = ARGMAX[usize::from(index.is_some())];
            faults.malformed(place, format!("the output {missing} is missing"));
            return None;
        }
    };
    let count = output.parts();
    if let Some(said) = meta.split_lm_head.filter(|said| *said != count) {
        let what =
            format!("it gives {count} parts of logits, meta.yaml says {said} (split_lm_head)");
        faults.malformed(place, what);
    }
    if let Some(said) = &meta.lm_head_chunk_sizes
        && !output.sizes().eq(said.iter().copied())
    {
        let sizes: Vec<usize> = output.sizes().collect();
        let what = format!("its parts have {sizes:?} logits, meta.yaml says {said:?}");
        faults.malformed(place, what);
    }
    let vocabulary = output.vocabulary();
    if let Some(said) = meta.vocab_size.filter(|said| *said != vocabulary) {
        let what = format!("it gives {vocabulary} logits, meta.yaml says {said} (vocab_size)");
        faults.malformed(place, what);
    }
    Some(output)
}

/// The numbered outputs in the order of their numbers: `logits10` follows `logits9`.
fn parts(outputs: &[TensorSpec], place: &str, faults: &mut Faults) -> Option<Vec<LogitsPart>> {
    let mut numbered: Vec<(usize, &TensorSpec)> = Vec::new();
    let mut sound = true;
    for output in outputs {
        if let Some(number) = output.name.strip_prefix(PART)
            && !number.is_empty()
        {
            match number.parse::<usize>() {
                // What a number parses from is not always how it is written: `logits01`, `logits+1`.
                Ok(parsed) if parsed > 0 && parsed.to_string() == number => {
                    numbered.push((parsed, output));
                }
                _ => {
                    let what = format!("the output {} has no number of a part", output.name);
                    faults.malformed(place, what);
                    sound = false;
                }
            }
        }
    }
    numbered.sort_by_key(|(number, _)| *number);
    let whole = outputs
        .iter()
        .find(|output| WHOLE.contains(&output.name.as_str()));
    let ordered: Vec<&TensorSpec> = match whole {
        Some(whole) if numbered.is_empty() => vec![whole],
        _ => numbered.iter().map(|(_, output)| *output).collect(),
    };
    if ordered.is_empty() && sound {
        faults.malformed(place, "it gives no logits (logits1, logits2, ..)");
    }
    if let Some((last, _)) = numbered.last() {
        sound &= gaps(&numbered, *last, place, faults);
    }
    let mut parts = Vec::with_capacity(ordered.len());
    let mut vocabulary = 0_usize;
    for output in &ordered {
        match logits_of(output) {
            Ok(size) => {
                vocabulary = vocabulary.saturating_add(size);
                parts.push(LogitsPart {
                    name: output.name.clone(),
                    size,
                });
            }
            Err(why) => {
                faults.malformed(place, format!("the output {} {why}", output.name));
                sound = false;
            }
        }
    }
    if vocabulary > LARGEST_VOCABULARY {
        faults.malformed(place, format!("it gives {vocabulary} logits"));
        sound = false;
    }
    (sound && !parts.is_empty()).then_some(parts)
}

/// Whether the numbers run from 1 to `last` without a gap.
fn gaps(numbered: &[(usize, &TensorSpec)], last: usize, place: &str, faults: &mut Faults) -> bool {
    if numbered.len() == last {
        return true;
    }
    let there = |number: &usize| numbered.iter().any(|(other, _)| other == number);
    // Bounded, since the last number may be anything.
    let mut missing = (1..last).filter(|number| !there(number));
    let shown: Vec<String> = missing
        .by_ref()
        .take(8)
        .map(|n| format!("{PART}{n}"))
        .collect();
    let more = if missing.next().is_some() {
        " and more"
    } else {
        ""
    };
    let what = format!(
        "it gives {PART}{last}, but {}{more} is missing: the parts have a gap",
        shown.join(", ")
    );
    faults.malformed(place, what);
    false
}

/// The size of a part of shape `[1, 1, size]`.
fn logits_of(output: &TensorSpec) -> Result<usize, String> {
    if !matches!(output.element, Element::Float16 | Element::Float32) {
        let of = element(output.element);
        return Err(format!("is of {of}, not of Float16 or Float32"));
    }
    match &output.shape {
        Shape::Fixed(shape) => match shape.as_slice() {
            [1, 1, size] => Ok(*size),
            other => Err(format!("is {other:?}, but [1, 1, logits] is needed")),
        },
        Shape::Enumerated(_) | Shape::Dynamic => Err("has no fixed shape".to_owned()),
    }
}

fn argmax(
    index: &TensorSpec,
    value: &TensorSpec,
    metadata: &Metadata,
    place: &str,
    meta: &Meta,
    faults: &mut Faults,
) -> Option<LogitsOutput> {
    let mut count = |tensor: &TensorSpec, elements: &[Element]| {
        if !elements.contains(&tensor.element) {
            let what = format!(
                "the output {} is of {}",
                tensor.name,
                element(tensor.element)
            );
            faults.malformed(place, what);
        }
        match &tensor.shape {
            Shape::Fixed(shape) => Some(shape.iter().product::<usize>()),
            Shape::Enumerated(_) | Shape::Dynamic => {
                let what = format!("the output {} has no fixed shape", tensor.name);
                faults.malformed(place, what);
                None
            }
        }
    };
    let indices = count(index, &[Element::Int32]);
    let values = count(value, &[Element::Float16, Element::Float32]);
    let (indices, values) = (indices?, values?);
    if indices != values {
        let what = format!("argmax_idx has {indices} elements and argmax_val {values}");
        faults.malformed(place, what);
        return None;
    }
    let sizes = sizes_of_parts(indices, metadata, meta);
    let Some(sizes) = sizes.filter(|sizes| sizes.len() == indices) else {
        let what = format!(
            "it gives the best token of each of {indices} parts, but nothing tells their sizes \
             (vocab_size or lm_head_chunk_sizes)"
        );
        faults.malformed(place, what);
        return None;
    };
    let vocabulary = sizes
        .iter()
        .fold(0, |sum: usize, size| sum.saturating_add(*size));
    if vocabulary > LARGEST_VOCABULARY || sizes.contains(&0) {
        faults.malformed(place, format!("its parts have {sizes:?} logits"));
        return None;
    }
    Some(LogitsOutput::Argmax {
        index: index.name.clone(),
        value: value.name.clone(),
        sizes,
    })
}

/// The sizes of the parts behind an argmax: as listed, else the vocabulary in equal parts of which
/// the first are one larger, as ANEMLL's converter cuts it.
fn sizes_of_parts(parts: usize, metadata: &Metadata, meta: &Meta) -> Option<Vec<usize>> {
    if let Some(sizes) = &meta.lm_head_chunk_sizes {
        return Some(sizes.clone());
    }
    if let Some(listed) = metadata.anemll("lm_head_chunk_sizes") {
        let listed = listed.trim_matches(|c: char| "[] ".contains(c));
        let sizes = listed.split(',').map(|size| size.trim().parse().ok());
        return sizes.collect();
    }
    let told = metadata
        .anemll("vocab_size")
        .and_then(|size| size.parse().ok());
    let vocabulary: usize = meta.vocab_size.or(told)?;
    let (base, larger) = (
        vocabulary.checked_div(parts)?,
        vocabulary.checked_rem(parts)?,
    );
    let sizes = (0..parts).map(|part| base + usize::from(part < larger));
    (vocabulary <= LARGEST_VOCABULARY && parts <= vocabulary).then(|| sizes.collect())
}
