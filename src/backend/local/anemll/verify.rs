//! Whether a plan of calls fits what the components declare: names, element types and shapes, as
//! strictly as Core ML checks them at every prediction.
//!
//! Buffers never change their shape, so what holds for the plan holds for every call.

use super::contract::{
    BufferId, BufferSpec, CallPlan, CallSpec, ComponentSpec, FunctionSpec, RuntimeError, TensorSpec,
};

/// Checks every call of `plan`.
///
/// # Errors
/// [`RuntimeError::Mismatch`] for the first call that does not fit.
pub fn verify(components: &[ComponentSpec], plan: &CallPlan) -> Result<(), RuntimeError> {
    for call in &plan.calls {
        verify_call(components, plan, call).map_err(|what| RuntimeError::Mismatch {
            component: call.role.name(),
            function: call.function.clone(),
            what,
        })?;
    }
    Ok(())
}

/// The function that a call names.
#[must_use]
pub fn function_of<'a>(
    components: &'a [ComponentSpec],
    call: &CallSpec,
) -> Option<&'a FunctionSpec> {
    components
        .iter()
        .find(|component| component.role == call.role)?
        .function(&call.function)
}

fn verify_call(
    components: &[ComponentSpec],
    plan: &CallPlan,
    call: &CallSpec,
) -> Result<(), String> {
    let function = function_of(components, call).ok_or("there is no such function")?;
    bindings("input", &function.inputs, &call.inputs, &plan.buffers)?;
    bindings("output", &function.outputs, &call.outputs, &plan.buffers)?;
    if let Some((name, _)) = call.outputs.iter().find(|(_, output)| {
        let input = |(_, input): &(String, BufferId)| input == output;
        call.inputs.iter().any(input)
    }) {
        return Err(format!("the output {name} overwrites an input"));
    }
    match (call.stateful, function.states.is_empty()) {
        (true, true) => Err("it is called with a state and declares none".to_owned()),
        (false, false) => Err("it declares a state and is called without one".to_owned()),
        (true, false) | (false, true) => Ok(()),
    }
}

fn bindings(
    kind: &str,
    declared: &[TensorSpec],
    bound: &[(String, BufferId)],
    buffers: &[BufferSpec],
) -> Result<(), String> {
    for (name, _) in bound {
        if bound.iter().filter(|(other, _)| other == name).count() > 1 {
            return Err(format!("the {kind} {name} is given twice"));
        }
        if !declared.iter().any(|tensor| tensor.name == *name) {
            return Err(format!("the {kind} {name} is not declared"));
        }
    }
    for tensor in declared {
        let name = &tensor.name;
        let Some((_, id)) = bound.iter().find(|(other, _)| other == name) else {
            return Err(format!("the {kind} {name} is missing"));
        };
        let buffer = buffers
            .get(id.0)
            .ok_or_else(|| format!("the {kind} {name} has no buffer"))?;
        if buffer.element != tensor.element {
            return Err(format!(
                "the {kind} {name} is {:?}, declared is {:?}",
                buffer.element, tensor.element
            ));
        }
        if !tensor.shape.admits(&buffer.shape) {
            return Err(format!(
                "the {kind} {name} has the shape {:?}, declared is {:?}",
                buffer.shape, tensor.shape
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::contract::{Element, MAIN, Role, Shape, StateSpec};
    use super::*;

    fn tensor(name: &str, element: Element, shape: Shape) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            element,
            shape,
        }
    }

    fn components() -> Vec<ComponentSpec> {
        let ids = Shape::Enumerated(vec![vec![1, 1], vec![1, 4]]);
        vec![ComponentSpec {
            role: Role::Embeddings,
            functions: vec![FunctionSpec {
                name: MAIN.to_owned(),
                inputs: vec![tensor("input_ids", Element::Int32, ids)],
                outputs: vec![tensor("hidden_states", Element::Float16, Shape::Dynamic)],
                states: Vec::new(),
            }],
        }]
    }

    fn plan() -> CallPlan {
        let buffer = |element, shape: &[usize]| BufferSpec {
            element,
            shape: shape.to_vec(),
        };
        CallPlan {
            buffers: vec![
                buffer(Element::Int32, &[1, 4]),
                buffer(Element::Float16, &[1, 4, 8]),
            ],
            calls: vec![CallSpec {
                role: Role::Embeddings,
                function: MAIN.to_owned(),
                inputs: vec![("input_ids".to_owned(), BufferId(0))],
                outputs: vec![("hidden_states".to_owned(), BufferId(1))],
                stateful: false,
            }],
        }
    }

    /// A change to a sound plan, and what is said of it.
    fn check(change: impl FnOnce(&mut CallPlan, &mut Vec<ComponentSpec>), expected: &str) {
        let (mut plan, mut components) = (plan(), components());
        change(&mut plan, &mut components);
        let error = verify(&components, &plan).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_plan_that_fits_is_accepted() {
        assert_eq!(verify(&components(), &plan()), Ok(()));
    }

    #[test]
    fn each_way_not_to_fit_is_named() {
        check(
            |plan, _| plan.calls[0].function = "infer".to_owned(),
            "no such function",
        );
        check(
            |plan, _| plan.calls[0].role = Role::LmHead,
            "no such function",
        );
        check(
            |plan, _| plan.calls[0].inputs.clear(),
            "input input_ids is missing",
        );
        check(
            |plan, _| plan.calls[0].outputs.clear(),
            "output hidden_states is missing",
        );
        check(
            |plan, _| plan.calls[0].inputs.push(("ids".to_owned(), BufferId(0))),
            "input ids is not declared",
        );
        check(
            |plan, _| {
                let again = plan.calls[0].inputs[0].clone();
                plan.calls[0].inputs.push(again);
            },
            "given twice",
        );
        check(
            |plan, _| plan.calls[0].inputs[0].1 = BufferId(7),
            "has no buffer",
        );
        check(
            |plan, _| plan.buffers[0].element = Element::Float16,
            "is Float16, declared is Int32",
        );
        check(
            |plan, _| plan.buffers[0].shape = vec![1, 3],
            "has the shape [1, 3]",
        );
        check(
            |plan, components| {
                components[0].functions[0].outputs[0].element = Element::Int32;
                plan.calls[0].outputs[0].1 = BufferId(0);
            },
            "overwrites an input",
        );
        check(|plan, _| plan.calls[0].stateful = true, "declares none");
        check(
            |_, components| {
                components[0].functions[0].states.push(StateSpec {
                    name: "cache".to_owned(),
                    element: Element::Float16,
                    shape: vec![2, 1, 8, 4],
                });
            },
            "called without one",
        );
    }
}
