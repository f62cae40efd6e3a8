//! What the pipeline calls a function with, held against what the function declares.

use super::error::Faults;
use super::metadata::Function;
use crate::backend::local::anemll::contract::{Element, Shape, TensorSpec};

/// A dimension of an expected shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    /// So many.
    Is(usize),
    /// The width of the residual stream, which the components tell and must agree on.
    Hidden,
}

/// A tensor as the pipeline will pass or take it.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) name: &'static str,
    pub(super) elements: &'static [Element],
    /// Any of these shapes will do, the first is the one told.
    pub(super) shapes: Vec<Vec<Dim>>,
    /// Whether the function may do without it.
    pub(super) required: bool,
}

impl Expected {
    /// A required tensor of one shape.
    pub(super) fn new(name: &'static str, elements: &'static [Element], dims: &[Dim]) -> Self {
        Self {
            name,
            elements,
            shapes: vec![dims.to_vec()],
            required: true,
        }
    }
}

/// Where each width of the residual stream was declared.
#[derive(Debug, Default)]
pub(super) struct Widths {
    seen: Vec<(usize, String)>,
}

impl Widths {
    /// The width, if all agree; a fault if they do not.
    pub(super) fn agreed(self, faults: &mut Faults) -> Option<usize> {
        let (first, _) = *self.seen.first().as_ref()?;
        if self.seen.iter().all(|(width, _)| width == first) {
            return Some(*first);
        }
        let mut told: Vec<(usize, Vec<String>)> = Vec::new();
        for (width, place) in &self.seen {
            match told.iter_mut().find(|(other, _)| other == width) {
                Some((_, places)) => places.push(place.clone()),
                None => told.push((*width, vec![place.clone()])),
            }
        }
        let told: Vec<String> = told
            .into_iter()
            .map(|(width, places)| format!("{width} in {}", places.join(", ")))
            .collect();
        faults.malformed(
            "components",
            format!("the hidden size differs: {}", told.join("; ")),
        );
        None
    }
}

/// Holds the inputs of `function` against `expected`.
pub(super) fn inputs(
    function: &Function,
    place: &str,
    expected: &[Expected],
    widths: &mut Widths,
    faults: &mut Faults,
) {
    for problem in &function.problems {
        faults.malformed(place, problem.as_str());
    }
    for wanted in expected {
        let found = function
            .spec
            .inputs
            .iter()
            .find(|input| input.name == wanted.name);
        match found {
            Some(found) if found.shape == Shape::Dynamic => {
                let what = format!("the input {} tells no shape", wanted.name);
                faults.malformed(place, what);
            }
            Some(found) => hold(found, "input", place, wanted, widths, faults),
            None if wanted.required && !is_told(function, wanted.name) => {
                faults.malformed(place, format!("the input {} is missing", wanted.name));
            }
            None => {}
        }
    }
    for input in &function.spec.inputs {
        let known = expected.iter().any(|wanted| wanted.name == input.name);
        if !known && !function.optional.contains(&input.name) {
            faults.unsupported(
                place,
                format!(
                    "it needs the input {}, and nothing here knows what to put there",
                    input.name
                ),
            );
        }
    }
}

/// Holds the outputs of `function` against `expected`. Others may be there: they are not read.
pub(super) fn outputs(
    function: &Function,
    place: &str,
    expected: &[Expected],
    widths: &mut Widths,
    faults: &mut Faults,
) {
    for wanted in expected {
        let found = function
            .spec
            .outputs
            .iter()
            .find(|output| output.name == wanted.name);
        match found {
            Some(found) => hold(found, "output", place, wanted, widths, faults),
            None if wanted.required && !is_told(function, wanted.name) => {
                faults.malformed(place, format!("the output {} is missing", wanted.name));
            }
            None => {}
        }
    }
}

/// Whether a tensor that is not among the sound ones is missing because its declaration makes no
/// sense, which is told already.
fn is_told(function: &Function, name: &str) -> bool {
    let named = format!("put {name} ");
    function
        .problems
        .iter()
        .any(|problem| problem.contains(&named))
}

fn hold(
    found: &TensorSpec,
    side: &str,
    place: &str,
    wanted: &Expected,
    widths: &mut Widths,
    faults: &mut Faults,
) {
    let name = wanted.name;
    if !wanted.elements.contains(&found.element) {
        let wanted: Vec<&str> = wanted.elements.iter().map(|one| element(*one)).collect();
        let what = format!(
            "the {side} {name} is of {}, not of {}",
            element(found.element),
            wanted.join(" or ")
        );
        faults.malformed(place, what);
    }
    let declared: Vec<&[usize]> = match &found.shape {
        Shape::Fixed(shape) => vec![shape],
        Shape::Enumerated(shapes) => shapes.iter().map(Vec::as_slice).collect(),
        Shape::Dynamic => return,
    };
    let fits = |shape: &&&[usize]| wanted.shapes.iter().any(|dims| matches(shape, dims));
    let Some(shape) = declared.iter().find(fits) else {
        faults.malformed(place, misfit(&declared, side, wanted));
        return;
    };
    let matching = wanted.shapes.iter().find(|dims| matches(shape, dims));
    for (dim, size) in matching.into_iter().flatten().zip(shape.iter()) {
        if *dim == Dim::Hidden {
            widths.seen.push((*size, format!("{place} {name}")));
        }
    }
}

fn matches(shape: &[usize], dims: &[Dim]) -> bool {
    shape.len() == dims.len()
        && shape.iter().zip(dims).all(|(size, dim)| match dim {
            Dim::Is(wanted) => size == wanted,
            Dim::Hidden => true,
        })
}

/// What does not fit. A mask with too few rows is told with what comes of it, since that is how this
/// fault was met in the field.
fn misfit(declared: &[&[usize]], side: &str, wanted: &Expected) -> String {
    let shapes: Vec<String> = declared.iter().map(|shape| format!("{shape:?}")).collect();
    let dims = wanted.shapes.first().map_or(&[][..], Vec::as_slice);
    let told: Vec<String> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Is(count) => count.to_string(),
            Dim::Hidden => "hidden size".to_owned(),
        })
        .collect();
    let consequence = too_few_rows(declared, dims, wanted.name).unwrap_or_default();
    format!(
        "the {side} {} is {}, but [{}] is needed{consequence}",
        wanted.name,
        shapes.join(" or "),
        told.join(", ")
    )
}

fn too_few_rows(declared: &[&[usize]], dims: &[Dim], name: &str) -> Option<String> {
    let ([[_, _, rows, _]], [_, _, Dim::Is(needed), _]) = (declared, dims) else {
        return None;
    };
    (name == CAUSAL_MASK && rows < needed).then(|| {
        format!(
            ": token {} of a batch would ask for row {rows} of a mask of {rows} row{}",
            rows + 1,
            if *rows == 1 { "" } else { "s" }
        )
    })
}

/// The mask's name, which has a message of its own.
pub(super) const CAUSAL_MASK: &str = "causal_mask";

/// An element type as metadata.json writes it.
pub(super) fn element(element: Element) -> &'static str {
    match element {
        Element::Float16 => "Float16",
        Element::Float32 => "Float32",
        Element::Int32 => "Int32",
    }
}
