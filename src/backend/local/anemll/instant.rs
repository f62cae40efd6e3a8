//! A runtime that computes nothing and returns at once, for tests and benches: what a token costs
//! over it is what the pipeline itself costs.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::contract::{
    BufferId, CallId, CallPlan, ComponentRuntime, ComponentSpec, Element, Observed, RuntimeError,
    StateId,
};
use super::verify::verify;

/// Remembers what it is given, and how often it is called.
#[derive(Debug)]
pub struct InstantRuntime {
    components: Vec<ComponentSpec>,
    plan: CallPlan,
    halves: Vec<Vec<f16>>,
    integers: Vec<Vec<i32>>,
    states: usize,
    predictions: usize,
}

impl InstantRuntime {
    /// A runtime for these components.
    #[must_use]
    pub fn new(components: Vec<ComponentSpec>) -> Self {
        Self {
            components,
            plan: CallPlan::default(),
            halves: Vec::new(),
            integers: Vec::new(),
            states: 0,
            predictions: 0,
        }
    }

    /// How often [`ComponentRuntime::predict`] was called.
    #[must_use]
    pub fn predictions(&self) -> usize {
        self.predictions
    }
}

impl ComponentRuntime for InstantRuntime {
    fn name(&self) -> &'static str {
        "instant"
    }

    fn components(&self) -> &[ComponentSpec] {
        &self.components
    }

    /// Buffers hold numbers that differ from each other, so that choosing among logits is work.
    fn prepare(&mut self, plan: &CallPlan) -> Result<(), RuntimeError> {
        verify(&self.components, plan)?;
        self.plan = plan.clone();
        for (number, buffer) in plan.buffers.iter().enumerate() {
            let elements = buffer.elements();
            let (halves, integers) = match buffer.element {
                Element::Int32 => (0, elements),
                Element::Float16 | Element::Float32 => (elements, 0),
            };
            let scattered = |at: usize| {
                // Knuth's multiplicative hash, for numbers that look like noise and repeat.
                let hash = ((at + number * 131_071) as u32).wrapping_mul(2_654_435_761);
                f16::from_f32((hash >> 16) as f32 / 4096.0 - 8.0)
            };
            self.halves.push((0..halves).map(scattered).collect());
            self.integers.push(vec![0; integers]);
        }
        Ok(())
    }

    fn make_state(&mut self) -> Result<StateId, RuntimeError> {
        self.states += 1;
        Ok(StateId(self.states))
    }

    fn drop_state(&mut self, _: StateId) {}

    fn state_bytes(&self) -> usize {
        let functions = self.components.iter().flat_map(|part| &part.functions);
        let states = functions.flat_map(|function| &function.states);
        let bytes = |elements: usize| elements * size_of::<f16>();
        states
            .map(|state| bytes(state.shape.iter().product()))
            .max()
            .unwrap_or_default()
    }

    fn write_i32(&mut self, buffer: BufferId, at: usize, values: &[i32]) {
        self.integers[buffer.0][at..at + values.len()].copy_from_slice(values);
    }

    fn write_f16(&mut self, buffer: BufferId, at: usize, values: &[f16]) {
        self.halves[buffer.0][at..at + values.len()].copy_from_slice(values);
    }

    fn predict(&mut self, call: CallId, state: Option<StateId>) -> Result<(), RuntimeError> {
        self.predictions += 1;
        let call = &self.plan.calls[call.0];
        if call.stateful == state.is_some() {
            return Ok(());
        }
        Err(RuntimeError::Predict {
            component: call.role.name(),
            function: call.function.clone(),
            what: "a state is given exactly where one is declared".to_owned(),
        })
    }

    fn read_f32(&self, buffer: BufferId, into: &mut [f32]) {
        self.halves[buffer.0].convert_to_f32_slice(into);
    }

    fn read_i32(&self, buffer: BufferId, into: &mut [i32]) {
        into.copy_from_slice(&self.integers[buffer.0]);
    }

    fn observed(&self) -> Observed {
        Observed::default()
    }
}
