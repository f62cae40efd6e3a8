//! What is on disk before Core ML loads it: which folder, which functions, and afterwards how its own
//! description differs from what metadata.json said.

use std::path::{Path, PathBuf};

use super::bundle::Component;
use super::contract::{ComponentSpec, RuntimeError, Shape, StateSpec, TensorSpec};

/// A component on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentFile {
    /// What metadata.json declares.
    pub declared: ComponentSpec,
    /// The `.mlmodelc` folder.
    pub path: PathBuf,
}

impl From<&Component> for ComponentFile {
    /// With the functions that are called: loading one more costs a compilation.
    fn from(component: &Component) -> Self {
        let mut declared = component.spec.clone();
        declared.functions.retain(|function| {
            function.name == component.infer || component.prefill.as_ref() == Some(&function.name)
        });
        Self {
            declared,
            path: component.path.clone(),
        }
    }
}

/// Refuses what Core ML cannot load as it is, with the next step.
///
/// # Errors
/// [`RuntimeError::Load`] for anything but a folder that ends in `.mlmodelc`.
pub fn loadable(file: &ComponentFile) -> Result<(), RuntimeError> {
    refusal(&file.path).map_or(Ok(()), |what| {
        Err(RuntimeError::Load {
            component: file.declared.role.name(),
            what,
        })
    })
}

fn refusal(path: &Path) -> Option<String> {
    let shown = path.display();
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    match ending.as_str() {
        "mlmodelc" if path.is_dir() => None,
        "mlmodelc" => Some(format!(
            "{shown} is not there. Run `tandem model verify`, then `tandem model pull`."
        )),
        "mlpackage" | "mlmodel" => Some(format!(
            "{shown} is not compiled. Compile it with `xcrun coremlcompiler compile {shown} .` and \
             name the .mlmodelc folder, or use a repository that has one."
        )),
        _ => Some(format!(
            "{shown} is not a compiled Core ML model. Name a folder that ends in .mlmodelc."
        )),
    }
}

/// What metadata.json says of a component and Core ML does not, in sentences.
#[must_use]
pub fn differences(declared: &ComponentSpec, loaded: &ComponentSpec) -> Vec<String> {
    let mut found = Vec::new();
    let component = loaded.role.name();
    for function in &declared.functions {
        let place = format!("{component}, function {}", function.name);
        let Some(own) = loaded.function(&function.name) else {
            found.push(format!("{place}: metadata.json has it, Core ML does not."));
            continue;
        };
        tensors_differ(&place, "input", &function.inputs, &own.inputs, &mut found);
        tensors_differ(
            &place,
            "output",
            &function.outputs,
            &own.outputs,
            &mut found,
        );
        if function.states != own.states {
            found.push(format!(
                "{place}: metadata.json has the states {}, Core ML has {}.",
                states(&function.states),
                states(&own.states)
            ));
        }
    }
    found
}

fn states(states: &[StateSpec]) -> String {
    let state = |state: &StateSpec| format!("{} {:?} {:?}", state.name, state.element, state.shape);
    format!(
        "[{}]",
        states.iter().map(state).collect::<Vec<_>>().join(", ")
    )
}

fn tensors_differ(
    place: &str,
    kind: &str,
    declared: &[TensorSpec],
    loaded: &[TensorSpec],
    found: &mut Vec<String>,
) {
    for tensor in declared {
        let name = &tensor.name;
        match loaded.iter().find(|own| own.name == *name) {
            None => found.push(format!(
                "{place}: metadata.json has the {kind} {name}, Core ML does not."
            )),
            Some(own) if own.element != tensor.element || !agree(&own.shape, &tensor.shape) => {
                found.push(format!(
                    "{place}: metadata.json has the {kind} {name} as {:?} {:?}, Core ML has {:?} \
                     {:?}.",
                    tensor.element, tensor.shape, own.element, own.shape
                ));
            }
            Some(_) => {}
        }
    }
    for own in loaded {
        if !declared.iter().any(|tensor| tensor.name == own.name) {
            found.push(format!(
                "{place}: Core ML has the {kind} {}, metadata.json does not.",
                own.name
            ));
        }
    }
}

/// Whether two declarations can both be true. An unknown shape contradicts nothing.
fn agree(a: &Shape, b: &Shape) -> bool {
    let sorted = |shapes: &[Vec<usize>]| {
        let mut shapes = shapes.to_vec();
        shapes.sort();
        shapes
    };
    match (a, b) {
        (Shape::Dynamic, _) | (_, Shape::Dynamic) => true,
        (Shape::Fixed(a), Shape::Fixed(b)) => a == b,
        (Shape::Enumerated(a), Shape::Enumerated(b)) => sorted(a) == sorted(b),
        (Shape::Fixed(one), Shape::Enumerated(several))
        | (Shape::Enumerated(several), Shape::Fixed(one)) => several.contains(one),
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{Element, FunctionSpec, Role};
    use super::*;

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
    fn only_contradictions_are_differences() {
        let with = |change: fn(&mut FunctionSpec)| {
            let mut function = stateful("infer", &["cache"]);
            change(&mut function);
            component(Role::Ffn { chunk: 1, of: 1 }, vec![function])
        };
        let check = |change: fn(&mut FunctionSpec), expected: &[&str]| {
            let found = differences(&with(|_| {}), &with(change));
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{found}");
            }
        };
        check(|_| {}, &[]);
        check(|f| f.inputs[0].shape = Shape::Dynamic, &[]);
        check(
            |f| f.inputs[0].shape = Shape::Enumerated(vec![vec![1], vec![2]]),
            &[],
        );
        check(
            |f| f.inputs[0].shape = Shape::Fixed(vec![2]),
            &["the input current_pos as Int32"],
        );
        check(
            |f| f.inputs[0].element = Element::Float16,
            &["Core ML has Float16"],
        );
        check(
            |f| f.inputs[0].name = "pos".to_owned(),
            &[
                "has the input current_pos, Core ML does not",
                "the input pos, metadata.json does not",
            ],
        );
        check(|f| f.name = "main".to_owned(), &["function infer"]);
        check(|f| f.states.clear(), &["the states [cache Float16"]);
    }

    #[test]
    fn only_functions_that_are_called_are_loaded() {
        let names = ["infer", "prefill", "infer_ctx1024", "prefill_ctx1024"];
        let mut whole = Component {
            spec: component(
                Role::Ffn { chunk: 1, of: 1 },
                names.map(|name| stateful(name, &["kv"])).to_vec(),
            ),
            path: PathBuf::from("ffn.mlmodelc"),
            infer: "infer".to_owned(),
            prefill: Some("prefill".to_owned()),
        };
        let check = |whole: &Component, expected: &[&str]| {
            let file = ComponentFile::from(whole);
            let functions = file.declared.functions.iter();
            let names: Vec<&str> = functions.map(|function| function.name.as_str()).collect();
            assert_eq!(names, expected);
        };
        check(&whole, &["infer", "prefill"]);
        whole.prefill = None;
        check(&whole, &["infer"]);
    }

    #[test]
    fn what_cannot_be_loaded_is_refused_with_the_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let compiled = folder.path().join("qwen_lm_head.mlmodelc");
        std::fs::create_dir(&compiled).unwrap();
        let check = |name: &str, expected: Option<&str>| {
            let file = ComponentFile {
                declared: component(Role::LmHead, Vec::new()),
                path: folder.path().join(name),
            };
            match (loadable(&file), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    let error = error.to_string();
                    assert!(error.starts_with("lm_head could not be loaded"), "{error}");
                    assert!(error.contains(expected), "{error}");
                }
                (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
            }
        };
        check("qwen_lm_head.mlmodelc", None);
        check("gone.mlmodelc", Some("tandem model pull"));
        check("qwen.mlpackage", Some("coremlcompiler compile"));
        check("qwen.onnx", Some("ends in .mlmodelc"));
    }
}
