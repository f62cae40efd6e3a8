//! Core ML through the crate candle-coreml: a second way to the same components, which checks the
//! first one.
//!
//! Of that crate only the low level is used: [`CoreMLModel`] and [`CoreMLState`], which turn candle's
//! tensors into Core ML's arrays and back. Its `qwen` module takes one function's shapes for
//! another's and is left alone. What the low level lacks, and what is done here instead:
//! - Its loading sets no compute units, so Core ML may choose the GPU. Models are loaded with our
//!   configuration and handed over by `from_mlmodel`.
//! - Tensors go in as float32 and int64 only. Half precision is widened, exactly, and Core ML narrows
//!   it again; every call copies its inputs and outputs.
//! - `predict_with_state` gives one output. Where a stateful function has several, the prediction is
//!   made on `inner_model`, with a state of ours, since the crate's cannot be taken out of its
//!   wrapper; the conversions stay the crate's.
//! - Half-precision outputs are read without regard to strides. One row has none, and rows that are
//!   multiples of 64 bytes have no gaps between them; a plan with other rows is refused.
//!
//! Its `Tensor` is candle 0.9's, another type than that of the candle used elsewhere here. Like the
//! direct runtime it belongs to one thread, and nobody has run it on a Mac yet.

use std::collections::HashMap;
use std::time::Instant;

use ::candle_coreml::conversion::{
    create_multi_feature_provider, extract_all_outputs, tensor_to_mlmultiarray,
};
use ::candle_coreml::{Config, CoreMLModel, CoreMLState};
use candle_core_09::{DType, Device, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_core_ml::MLState;

use super::contract::{
    BufferId, BufferSpec, CallId, CallPlan, CallSpec, ComponentRuntime, ComponentSpec, Element,
    FunctionSpec, Observed, Role, RuntimeError, StateId,
};
use super::coreml::{model, objc};
use super::described;
use super::preflight::{self, ComponentFile};
use super::verify::verify;

/// Rows of an IOSurface begin at multiples of this many bytes.
const ROW_ALIGNMENT: usize = 64;

/// The runtime that goes through candle-coreml.
pub struct CandleCoreMl {
    components: Vec<ComponentSpec>,
    models: Vec<Loaded>,
    plan: CallPlan,
    buffers: Vec<Values>,
    /// By [`StateId`]; freed ones leave a gap that the next one takes.
    states: Vec<Option<State>>,
    observed: Observed,
}

/// A function's model.
struct Loaded {
    role: Role,
    spec: FunctionSpec,
    model: CoreMLModel,
}

/// A buffer's elements, row-major and without gaps.
enum Values {
    Half(Vec<f16>),
    Single(Vec<f32>),
    Integers(Vec<i32>),
}

/// A KV cache.
enum State {
    /// The crate's, for functions of one output.
    Wrapped(CoreMLState),
    /// Our own, for functions of several.
    Plain(Retained<MLState>),
}

impl CandleCoreMl {
    /// Loads every function of every component, which takes from seconds to minutes the first time.
    ///
    /// # Errors
    /// On a macOS before 15, for a model that is not compiled, and when Core ML refuses one.
    pub fn load(files: &[ComponentFile]) -> Result<Self, RuntimeError> {
        objc::supported()?;
        let mut runtime = Self {
            components: Vec::new(),
            models: Vec::new(),
            plan: CallPlan::default(),
            buffers: Vec::new(),
            states: Vec::new(),
            observed: Observed {
                requested: "cpu-and-neural-engine".to_owned(),
                ..Observed::default()
            },
        };
        for file in files {
            preflight::loadable(file)?;
            runtime.add(file).map_err(|what| RuntimeError::Load {
                component: file.declared.role.name(),
                what,
            })?;
        }
        Ok(runtime)
    }

    fn add(&mut self, file: &ComponentFile) -> Result<(), String> {
        let role = file.declared.role;
        let mut functions = Vec::new();
        for declared in &file.declared.functions {
            let begun = Instant::now();
            let (inner, spec) = objc::guarded(|| {
                let inner = model::load(file, &declared.name)?;
                let spec = model::spec(&inner, &declared.name, Some(declared))?;
                Ok((inner, spec))
            })
            .map_err(|what| format!("function {}: {what}", declared.name))?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let place = format!("{}/{}", role.name(), declared.name);
            self.observed.load_ms.push((place, took));
            let config = Config {
                input_names: spec.inputs.iter().map(|input| input.name.clone()).collect(),
                output_name: spec
                    .outputs
                    .first()
                    .map(|output| output.name.clone())
                    .unwrap_or_default(),
                // The crate's low level reads neither of these two.
                max_sequence_length: 0,
                vocab_size: 0,
                model_type: role.name(),
            };
            functions.push(spec.clone());
            self.models.push(Loaded {
                role,
                spec,
                model: CoreMLModel::from_mlmodel(inner, config),
            });
        }
        let loaded = ComponentSpec { role, functions };
        let differences = preflight::differences(&file.declared, &loaded);
        self.observed.notes.extend(differences);
        self.components.push(loaded);
        Ok(())
    }

    fn loaded(&self, role: Role, function: &str) -> Option<&Loaded> {
        let found = |loaded: &&Loaded| loaded.role == role && loaded.spec.name == function;
        self.models.iter().find(found)
    }

    /// Whether the crate's own state can serve: every stateful function has one output.
    fn wraps_states(&self) -> bool {
        let stateful = |loaded: &&Loaded| !loaded.spec.states.is_empty();
        let mut stateful = self.models.iter().filter(stateful);
        stateful.all(|loaded| loaded.spec.outputs.len() == 1)
    }

    fn run(&mut self, call: &CallSpec, state: Option<StateId>) -> Result<(), String> {
        let found =
            |loaded: &&Loaded| loaded.role == call.role && loaded.spec.name == call.function;
        let loaded = self.models.iter().find(found).ok_or("it is not loaded")?;
        let mut inputs = Vec::with_capacity(loaded.spec.inputs.len());
        for declared in &loaded.spec.inputs {
            let bound = call.inputs.iter().find(|(name, _)| *name == declared.name);
            let (_, id) = bound.ok_or_else(|| format!("the input {} is missing", declared.name))?;
            let tensor = self.buffers[id.0].tensor(&self.plan.buffers[id.0].shape);
            inputs.push(tensor.map_err(|error| error.to_string())?);
        }
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let state = match state {
            None => None,
            Some(id) => {
                let slot = self.states.get_mut(id.0).and_then(Option::as_mut);
                Some(slot.ok_or("its state is gone")?)
            }
        };
        let model = &loaded.model;
        let outputs = objc::guarded(|| match state {
            None => model
                .forward_all(&inputs)
                .map_err(|error| error.to_string()),
            Some(state) => stateful(model, &inputs, state),
        })?;
        for (name, id) in &call.outputs {
            let tensor = outputs
                .get(name)
                .ok_or_else(|| format!("the output {name} did not come"))?;
            self.buffers[id.0]
                .fill(tensor)
                .map_err(|what| format!("the output {name}: {what}"))?;
        }
        Ok(())
    }
}

fn stateful(
    model: &CoreMLModel,
    inputs: &[&Tensor],
    state: &mut State,
) -> Result<HashMap<String, Tensor>, String> {
    match state {
        State::Wrapped(state) => {
            let output = model
                .predict_with_state(inputs, state)
                .map_err(|error| error.to_string())?;
            let name = model.config().output_name.clone();
            Ok(HashMap::from([(name, output)]))
        }
        State::Plain(state) => several(model, inputs, state),
    }
}

/// A stateful prediction with all its outputs, which the crate does not offer.
fn several(
    model: &CoreMLModel,
    inputs: &[&Tensor],
    state: &MLState,
) -> Result<HashMap<String, Tensor>, String> {
    let arrays = inputs
        .iter()
        .map(|tensor| tensor_to_mlmultiarray(tensor))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let provider = create_multi_feature_provider(&model.config().input_names, &arrays)
        .map_err(|error| error.to_string())?;
    // SAFETY: model, inputs and state are valid, and this thread alone uses them.
    let outputs = unsafe {
        model
            .inner_model()
            .predictionFromFeatures_usingState_error(ProtocolObject::from_ref(&*provider), state)
    }
    .map_err(|error| objc::text(&error))?;
    extract_all_outputs(&outputs, &Device::Cpu).map_err(|error| error.to_string())
}

impl Values {
    fn new(spec: &BufferSpec) -> Self {
        let count = spec.elements();
        match spec.element {
            Element::Float16 => Self::Half(vec![f16::ZERO; count]),
            Element::Float32 => Self::Single(vec![0.0; count]),
            Element::Int32 => Self::Integers(vec![0; count]),
        }
    }

    fn tensor(&self, shape: &[usize]) -> Result<Tensor, candle_core_09::Error> {
        match self {
            Self::Half(values) => Tensor::from_vec(values.to_f32_vec(), shape, &Device::Cpu),
            Self::Single(values) => Tensor::from_slice(values, shape, &Device::Cpu),
            Self::Integers(values) => {
                let wide: Vec<i64> = values.iter().map(|&value| i64::from(value)).collect();
                Tensor::from_vec(wide, shape, &Device::Cpu)
            }
        }
    }

    /// Takes an output, all of which the crate gives as float32. Token ids below 2^24 are exact.
    fn fill(&mut self, tensor: &Tensor) -> Result<(), String> {
        let values = tensor
            .to_dtype(DType::F32)
            .and_then(|tensor| tensor.flatten_all())
            .and_then(|tensor| tensor.to_vec1::<f32>())
            .map_err(|error| error.to_string())?;
        let expected = match self {
            Self::Half(own) => own.len(),
            Self::Single(own) => own.len(),
            Self::Integers(own) => own.len(),
        };
        if values.len() != expected {
            return Err(format!("it has {} elements, not {expected}", values.len()));
        }
        match self {
            Self::Half(own) => own.convert_from_f32_slice(&values),
            Self::Single(own) => own.copy_from_slice(&values),
            Self::Integers(own) => {
                for (own, value) in own.iter_mut().zip(values) {
                    *own = value as i32;
                }
            }
        }
        Ok(())
    }
}

/// Why the crate would read an output wrongly, if it would.
fn unreadable(spec: &BufferSpec) -> Option<String> {
    let row = spec.shape.last().copied().unwrap_or(1);
    let gaps = spec.elements() > row && !(row * size_of::<f16>()).is_multiple_of(ROW_ALIGNMENT);
    (spec.element == Element::Float16 && gaps).then(|| {
        format!(
            "rows of {row} elements may have gaps between them, which candle-coreml does not honour. \
             Use `--runtime coreml`."
        )
    })
}

impl ComponentRuntime for CandleCoreMl {
    fn name(&self) -> &'static str {
        "candle-coreml"
    }

    fn components(&self) -> &[ComponentSpec] {
        &self.components
    }

    fn prepare(&mut self, plan: &CallPlan) -> Result<(), RuntimeError> {
        verify(&self.components, plan)?;
        for call in &plan.calls {
            for (name, id) in &call.outputs {
                if let Some(what) = unreadable(&plan.buffers[id.0]) {
                    return Err(RuntimeError::Mismatch {
                        component: call.role.name(),
                        function: call.function.clone(),
                        what: format!("the output {name}: {what}"),
                    });
                }
            }
        }
        self.buffers = plan.buffers.iter().map(Values::new).collect();
        self.plan = plan.clone();
        Ok(())
    }

    fn make_state(&mut self) -> Result<StateId, RuntimeError> {
        let maker = described::state_maker(&self.components);
        let loaded = maker.and_then(|(role, function)| self.loaded(role, function));
        let loaded = loaded.ok_or_else(|| RuntimeError::Resources {
            what: "no function of this model keeps a state".to_owned(),
        })?;
        let wrap = self.wraps_states();
        let state = objc::guarded(|| {
            if wrap {
                let state = loaded.model.make_state();
                state.map(State::Wrapped).map_err(|error| error.to_string())
            } else {
                // SAFETY: the model declares a state; a new one is zeroed and retained here.
                Ok(State::Plain(unsafe {
                    loaded.model.inner_model().newState()
                }))
            }
        })
        .map_err(|what| RuntimeError::Resources { what })?;
        let free = self.states.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.states.push(None);
            self.states.len() - 1
        });
        self.states[at] = Some(state);
        Ok(StateId(at))
    }

    fn drop_state(&mut self, state: StateId) {
        if let Some(slot) = self.states.get_mut(state.0) {
            *slot = None;
        }
    }

    fn state_bytes(&self) -> usize {
        described::state_bytes(&self.components)
    }

    fn write_i32(&mut self, buffer: BufferId, at: usize, values: &[i32]) {
        if let Values::Integers(own) = &mut self.buffers[buffer.0] {
            own[at..at + values.len()].copy_from_slice(values);
        }
    }

    fn write_f16(&mut self, buffer: BufferId, at: usize, values: &[f16]) {
        if let Values::Half(own) = &mut self.buffers[buffer.0] {
            own[at..at + values.len()].copy_from_slice(values);
        }
    }

    fn predict(&mut self, call: CallId, state: Option<StateId>) -> Result<(), RuntimeError> {
        let spec = self.plan.calls[call.0].clone();
        let outputs = spec.outputs.len() as u64;
        self.run(&spec, state)
            .map_err(|what| RuntimeError::Predict {
                component: spec.role.name(),
                function: spec.function,
                what,
            })?;
        self.observed.copied_outputs += outputs;
        Ok(())
    }

    fn read_f32(&self, buffer: BufferId, into: &mut [f32]) {
        match &self.buffers[buffer.0] {
            Values::Half(own) => own.convert_to_f32_slice(into),
            Values::Single(own) => into.copy_from_slice(own),
            Values::Integers(own) => {
                for (into, own) in into.iter_mut().zip(own) {
                    *into = *own as f32;
                }
            }
        }
    }

    fn read_i32(&self, buffer: BufferId, into: &mut [i32]) {
        if let Values::Integers(own) = &self.buffers[buffer.0] {
            into.copy_from_slice(own);
        }
    }

    fn observed(&self) -> Observed {
        self.observed.clone()
    }
}
