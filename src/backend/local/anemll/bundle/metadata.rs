//! A component's metadata.json: what each of its functions takes and gives.
//!
//! The form is that of Core ML's compiler: an array of one object whose scalars are text. A component
//! with several functions repeats the schemas under `functions`; the ones at the top then describe the
//! default function only, and are not looked at. Taking them for all functions is how a model comes
//! to be asked for the second row of a mask of one.

use serde::Deserialize;
use serde_json::Value;

use super::error::{Fault, malformed};
use crate::backend::local::anemll::contract::{
    Element, FunctionSpec, MAIN, Shape, StateSpec, TensorSpec,
};

/// Core ML's arrays have at most 5 dimensions on the Neural Engine; more than this is no tensor.
const MOST_DIMENSIONS: usize = 8;

/// No tensor of a bundle comes near: the largest cache of a small model has 2^28 elements.
const MOST_ELEMENTS: usize = 1 << 34;

/// What metadata.json declares.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metadata {
    /// Never empty, and no name twice.
    pub(super) functions: Vec<Function>,
    /// ANEMLL's own entries: keys under `com.anemll.`, without that prefix.
    pub(super) anemll: Vec<(String, String)>,
}

/// A function, or why its declaration makes no sense. Nobody minds the latter in a function that is
/// not called.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Function {
    pub(super) spec: FunctionSpec,
    /// Inputs that may be left out.
    pub(super) optional: Vec<String>,
    /// What is wrong with it.
    pub(super) problems: Vec<String>,
}

impl Metadata {
    /// The function of this name.
    pub(super) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|found| found.spec.name == name)
    }

    /// An entry of ANEMLL's.
    pub(super) fn anemll(&self, key: &str) -> Option<&str> {
        let found = self.anemll.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// From the text of the file called `place`.
    pub(super) fn read(text: &[u8], place: &str) -> Result<Self, Fault> {
        let models: Vec<Model> = serde_json::from_slice(text).map_err(|error| {
            let what = format!("it makes no sense ({error})");
            match error.classify() {
                serde_json::error::Category::Eof => Fault {
                    kind: crate::backend::local::error::LoadErrorKind::CutShort,
                    ..malformed(place, what)
                },
                _ => malformed(place, what),
            }
        })?;
        let count = models.len();
        let Ok([model]) = <[Model; 1]>::try_from(models) else {
            return Err(malformed(
                place,
                format!("it describes {count} models, not one"),
            ));
        };
        let functions: Vec<Function> = match model.functions {
            Some(functions) if !functions.is_empty() => {
                functions.into_iter().map(Schemas::checked).collect()
            }
            _ => {
                let only = Schemas {
                    name: MAIN.to_owned(),
                    ..model.schemas
                };
                vec![only.checked()]
            }
        };
        for (index, function) in functions.iter().enumerate() {
            let name = &function.spec.name;
            if functions[..index]
                .iter()
                .any(|other| other.spec.name == *name)
            {
                return Err(malformed(
                    place,
                    format!("it declares the function {name} twice"),
                ));
            }
        }
        let anemll = model.user.into_iter().filter_map(|(key, value)| {
            let key = key.strip_prefix("com.anemll.")?;
            Some((key.to_owned(), scalar(&value)?))
        });
        Ok(Self {
            functions,
            anemll: anemll.collect(),
        })
    }
}

#[derive(Deserialize)]
struct Model {
    functions: Option<Vec<Schemas>>,
    #[serde(default, rename = "userDefinedMetadata")]
    user: serde_json::Map<String, Value>,
    #[serde(flatten)]
    schemas: Schemas,
}

/// The schemas of a function, or of a model that has only one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schemas {
    #[serde(default)]
    name: String,
    #[serde(default)]
    input_schema: Vec<Declared>,
    #[serde(default)]
    output_schema: Vec<Declared>,
    #[serde(default)]
    state_schema: Vec<Declared>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    name: String,
    data_type: Option<Value>,
    shape: Option<Value>,
    enumerated_shapes: Option<Value>,
    is_optional: Option<Value>,
}

impl Schemas {
    fn checked(self) -> Function {
        let mut problems = Vec::new();
        let optional = self.input_schema.iter().filter(|input| {
            let said = input.is_optional.as_ref().and_then(scalar);
            matches!(said.as_deref(), Some("1" | "true"))
        });
        let optional = optional.map(|input| input.name.clone()).collect();
        let inputs = tensors(&self.input_schema, "input", &mut problems);
        let outputs = tensors(&self.output_schema, "output", &mut problems);
        let states = tensors(&self.state_schema, "state", &mut problems)
            .into_iter()
            .filter_map(|tensor| match tensor.shape {
                Shape::Fixed(shape) => Some(StateSpec {
                    name: tensor.name,
                    element: tensor.element,
                    shape,
                }),
                Shape::Enumerated(_) | Shape::Dynamic => {
                    problems.push(format!("the state {} has no fixed shape", tensor.name));
                    None
                }
            })
            .collect();
        let spec = FunctionSpec {
            name: self.name,
            inputs,
            outputs,
            states,
        };
        Function {
            spec,
            optional,
            problems,
        }
    }
}

/// The tensors whose declaration makes sense; `problems` gets the others.
fn tensors(declared: &[Declared], side: &str, problems: &mut Vec<String>) -> Vec<TensorSpec> {
    let mut tensors: Vec<TensorSpec> = Vec::new();
    for entry in declared {
        let name = &entry.name;
        if tensors.iter().any(|tensor| tensor.name == *name) {
            problems.push(format!("the {side} {name} is declared twice"));
            continue;
        }
        match entry.tensor() {
            Ok(tensor) => tensors.push(tensor),
            Err(why) => problems.push(format!("the {side} {name} {why}")),
        }
    }
    tensors
}

impl Declared {
    fn tensor(&self) -> Result<TensorSpec, String> {
        let element = self.data_type.as_ref().and_then(scalar);
        let element = match element.as_deref() {
            Some("Float16") => Element::Float16,
            Some("Float32") => Element::Float32,
            Some("Int32") => Element::Int32,
            Some(other) => return Err(format!("is of the type {other:?}, which is unknown")),
            None => return Err("has no type".to_owned()),
        };
        let fixed = match &self.shape {
            Some(shape) => sizes(shape)?,
            None => Vec::new(),
        };
        let shape = match &self.enumerated_shapes {
            Some(shapes) => Shape::Enumerated(several(shapes)?),
            None if fixed.is_empty() => Shape::Dynamic,
            None => Shape::Fixed(fixed),
        };
        Ok(TensorSpec {
            name: self.name.clone(),
            element,
            shape,
        })
    }
}

/// A list that is written as one, or as its text, as Core ML's compiler does.
fn list(value: &Value) -> Result<Vec<Value>, String> {
    let no_list = || "has a shape that is no list of sizes".to_owned();
    match value {
        Value::Array(items) => Ok(items.clone()),
        Value::String(text) => serde_json::from_str(text).map_err(|_| no_list()),
        _ => Err(no_list()),
    }
}

fn several(value: &Value) -> Result<Vec<Vec<usize>>, String> {
    let shapes: Vec<Vec<usize>> = list(value)?.iter().map(sizes).collect::<Result<_, _>>()?;
    if shapes.is_empty() || shapes.iter().any(Vec::is_empty) {
        return Err("has enumerated shapes without sizes".to_owned());
    }
    Ok(shapes)
}

/// A shape; empty for `[]`, which stands for one that is not told.
fn sizes(value: &Value) -> Result<Vec<usize>, String> {
    let items = list(value)?;
    if items.len() > MOST_DIMENSIONS {
        return Err(format!("has {} dimensions", items.len()));
    }
    let mut shape = Vec::with_capacity(items.len());
    let mut elements = 1_usize;
    for item in &items {
        let size = scalar(item).and_then(|text| text.trim().parse::<usize>().ok());
        let Some(size) = size.filter(|size| *size > 0) else {
            return Err("has a shape with a size that is no positive number".to_owned());
        };
        elements = match elements.checked_mul(size) {
            Some(elements) if elements <= MOST_ELEMENTS => elements,
            _ => return Err("has a shape with more elements than any tensor".to_owned()),
        };
        shape.push(size);
    }
    Ok(shape)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
