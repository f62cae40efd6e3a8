//! What a loaded model says of itself, as the contract's specs.
//!
//! Core ML's own description is what predictions are checked against, so it is what counts. It
//! comes as dictionaries, which have no order; the order is that of metadata.json, where the name
//! is known, and otherwise that of the numbers in the names.

use std::cmp::Ordering;

use super::contract::{ComponentSpec, Element, FunctionSpec, Role, Shape, StateSpec, TensorSpec};
use super::layout;

/// `MLMultiArrayDataType` of half precision.
pub const FLOAT16: isize = 0x10000 | 16;
/// `MLMultiArrayDataType` of single precision.
pub const FLOAT32: isize = 0x10000 | 32;
/// `MLMultiArrayDataType` of 32-bit integers.
pub const INT32: isize = 0x20000 | 32;

/// `MLMultiArrayShapeConstraintTypeEnumerated`.
pub const ENUMERATED: isize = 2;
/// `MLMultiArrayShapeConstraintTypeRange`.
pub const RANGE: isize = 3;

/// An input or output, as `MLFeatureDescription` and `MLMultiArrayConstraint` describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTensor {
    /// Its name.
    pub name: String,
    /// `MLMultiArrayDataType`; `None` for what is no array, such as an image.
    pub data_type: Option<isize>,
    /// The shape, or the default one of several; empty when it is not known.
    pub shape: Vec<usize>,
    /// `MLMultiArrayShapeConstraintType`.
    pub constraint: isize,
    /// The shapes it may have.
    pub enumerated: Vec<Vec<usize>>,
}

/// A state, as `MLStateConstraint` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedState {
    /// Its name.
    pub name: String,
    /// `MLMultiArrayDataType`; `None` for what is no state.
    pub data_type: Option<isize>,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A function, as its model's `MLModelDescription` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// What it takes.
    pub inputs: Vec<DescribedTensor>,
    /// What it gives.
    pub outputs: Vec<DescribedTensor>,
    /// What it keeps.
    pub states: Vec<DescribedState>,
}

/// The specs of one function: `described` as Core ML loaded it, in the order of `declared`, which is
/// what metadata.json says of the same function.
///
/// # Errors
/// What is described and cannot be used: an image, or numbers of a kind that ANEMLL has none of.
pub fn function(
    name: &str,
    described: &Described,
    declared: Option<&FunctionSpec>,
) -> Result<FunctionSpec, String> {
    let tensors = |kind: &str, found: &[DescribedTensor], known: &[TensorSpec]| {
        let mut tensors = found
            .iter()
            .map(|tensor| {
                spec(tensor).map_err(|what| format!("the {kind} {}: {what}", tensor.name))
            })
            .collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by(|a, b| {
            let place = |name: &str| {
                let at = known.iter().position(|tensor| tensor.name == name);
                at.unwrap_or(usize::MAX)
            };
            place(&a.name)
                .cmp(&place(&b.name))
                .then_with(|| by_number(&a.name, &b.name))
        });
        Ok::<_, String>(tensors)
    };
    let known = |of: fn(&FunctionSpec) -> &Vec<TensorSpec>| declared.map_or(&[][..], |f| of(f));
    let mut states = described
        .states
        .iter()
        .map(|state| {
            Ok(StateSpec {
                name: state.name.clone(),
                element: element(state.data_type)
                    .map_err(|what| format!("the state {}: {what}", state.name))?,
                shape: state.shape.clone(),
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    states.sort_by(|a, b| by_number(&a.name, &b.name));
    Ok(FunctionSpec {
        name: name.to_owned(),
        inputs: tensors("input", &described.inputs, known(|f| &f.inputs))?,
        outputs: tensors("output", &described.outputs, known(|f| &f.outputs))?,
        states,
    })
}

fn spec(described: &DescribedTensor) -> Result<TensorSpec, String> {
    let shape = match described.constraint {
        ENUMERATED if described.enumerated.len() > 1 => {
            Shape::Enumerated(described.enumerated.clone())
        }
        ENUMERATED if described.enumerated.len() == 1 => {
            Shape::Fixed(described.enumerated[0].clone())
        }
        RANGE => Shape::Dynamic,
        _ if described.shape.is_empty() => Shape::Dynamic,
        _ => Shape::Fixed(described.shape.clone()),
    };
    Ok(TensorSpec {
        name: described.name.clone(),
        element: element(described.data_type)?,
        shape,
    })
}

fn element(data_type: Option<isize>) -> Result<Element, String> {
    match data_type {
        Some(FLOAT16) => Ok(Element::Float16),
        Some(FLOAT32) => Ok(Element::Float32),
        Some(INT32) => Ok(Element::Int32),
        Some(other) => Err(format!(
            "its numbers are of Core ML's type {other:#x}; float16, float32 and int32 can be used"
        )),
        None => Err("it is not an array".to_owned()),
    }
}

/// Names in the order of the numbers in them: `logits2` before `logits10`.
#[must_use]
pub fn by_number(a: &str, b: &str) -> Ordering {
    fn key(name: &str) -> (&str, Option<u64>) {
        let letters = name.trim_end_matches(|c: char| c.is_ascii_digit());
        (letters, name[letters.len()..].parse().ok())
    }
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

/// The function whose model makes the state that all stateful calls are given: `prefill` of the
/// first chunk, or the first stateful function where there is no such.
#[must_use]
pub fn state_maker(components: &[ComponentSpec]) -> Option<(Role, &str)> {
    let stateful = || {
        components.iter().flat_map(|component| {
            let functions = component.functions.iter();
            functions
                .filter(|function| !function.states.is_empty())
                .map(|function| (component.role, function.name.as_str()))
        })
    };
    let first = stateful().map(|(role, _)| role).min()?;
    stateful()
        .find(|&(role, name)| role == first && name.starts_with("prefill"))
        .or_else(|| stateful().find(|&(role, _)| role == first))
}

/// Bytes of all states. Chunks declare the same cache, which exists once.
#[must_use]
pub fn state_bytes(components: &[ComponentSpec]) -> usize {
    let mut counted: Vec<&StateSpec> = Vec::new();
    for function in components.iter().flat_map(|component| &component.functions) {
        for state in &function.states {
            if !counted.iter().any(|known| known.name == state.name) {
                counted.push(state);
            }
        }
    }
    counted
        .iter()
        .map(|state| {
            let width = match state.element {
                Element::Float16 => 2,
                Element::Float32 | Element::Int32 => 4,
            };
            layout::product(&state.shape).map_or(usize::MAX, |count| count.saturating_mul(width))
        })
        .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::contract::MAIN;
    use super::*;

    fn half(name: &str, shape: &[usize]) -> DescribedTensor {
        DescribedTensor {
            name: name.to_owned(),
            data_type: Some(FLOAT16),
            shape: shape.to_vec(),
            constraint: 1,
            enumerated: Vec::new(),
        }
    }

    fn tensor(name: &str, element: Element, shape: Shape) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            element,
            shape,
        }
    }

    fn component(role: Role, functions: Vec<FunctionSpec>) -> ComponentSpec {
        ComponentSpec { role, functions }
    }

    fn stateful(name: &str, cache: &[&str]) -> FunctionSpec {
        let state = |name: &&str| StateSpec {
            name: (*name).to_owned(),
            element: Element::Float16,
            shape: vec![4, 2, 8, 16],
        };
        FunctionSpec {
            name: name.to_owned(),
            inputs: vec![tensor("current_pos", Element::Int32, Shape::Fixed(vec![1]))],
            outputs: Vec::new(),
            states: cache.iter().map(state).collect(),
        }
    }

    #[test]
    fn every_kind_of_shape_is_understood() {
        let check = |change: fn(&mut DescribedTensor), expected: Shape| {
            let mut described = half("x", &[1, 4]);
            change(&mut described);
            assert_eq!(spec(&described).unwrap().shape, expected);
        };
        check(|_| {}, Shape::Fixed(vec![1, 4]));
        check(|x| x.shape.clear(), Shape::Dynamic);
        check(|x| x.constraint = RANGE, Shape::Dynamic);
        check(
            |x| {
                x.constraint = ENUMERATED;
                x.enumerated = vec![vec![1, 1], vec![1, 64]];
            },
            Shape::Enumerated(vec![vec![1, 1], vec![1, 64]]),
        );
        check(
            |x| {
                x.constraint = ENUMERATED;
                x.enumerated = vec![vec![1, 64]];
            },
            Shape::Fixed(vec![1, 64]),
        );
        check(|x| x.constraint = ENUMERATED, Shape::Fixed(vec![1, 4]));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |data_type: Option<isize>, expected: &str| {
            let mut described = Described::default();
            described.outputs.push(half("picture", &[1]));
            described.outputs[0].data_type = data_type;
            let error = function(MAIN, &described, None).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("the output picture"), "{error}");
        };
        check(None, "not an array");
        check(Some(0x10000 | 64), "0x10040");
    }

    #[test]
    fn outputs_come_in_declared_order_and_then_by_number() {
        let names = |function: &FunctionSpec| -> Vec<String> {
            let names = function.outputs.iter().map(|output| output.name.clone());
            names.collect()
        };
        let described = Described {
            outputs: ["logits10", "logits2", "argmax_val", "logits1"]
                .map(|name| half(name, &[1]))
                .to_vec(),
            ..Described::default()
        };
        let found = function(MAIN, &described, None).unwrap();
        assert_eq!(
            names(&found),
            ["argmax_val", "logits1", "logits2", "logits10"]
        );
        let mut declared = found;
        declared.outputs.rotate_left(1);
        declared.outputs.remove(1);
        let found = function(MAIN, &described, Some(&declared)).unwrap();
        assert_eq!(
            names(&found),
            ["logits1", "logits10", "argmax_val", "logits2"]
        );
    }

    #[test]
    fn the_state_comes_from_the_first_chunks_prefill() {
        let chunk = |chunk| Role::Ffn { chunk, of: 2 };
        let both = || vec![stateful("infer", &["kv"]), stateful("prefill", &["kv"])];
        let stateless = component(Role::LmHead, vec![stateful(MAIN, &[])]);
        let check = |components: &[ComponentSpec], expected: Option<(Role, &str)>, bytes: usize| {
            assert_eq!(state_maker(components), expected);
            assert_eq!(state_bytes(components), bytes);
        };
        let cache = 4 * 2 * 8 * 16 * 2;
        check(
            &[
                stateless.clone(),
                component(chunk(2), both()),
                component(chunk(1), both()),
            ],
            Some((chunk(1), "prefill")),
            cache,
        );
        check(
            &[component(chunk(1), vec![stateful("infer", &["k", "v"])])],
            Some((chunk(1), "infer")),
            2 * cache,
        );
        check(&[stateless], None, 0);
    }
}
