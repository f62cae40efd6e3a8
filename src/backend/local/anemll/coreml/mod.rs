//! Core ML by its own interface: components on the Neural Engine, a KV cache as their state, and
//! memory that one component writes and the next one reads.
//!
//! All of it belongs to the thread that loads it: Core ML's models and arrays are not `Send`, so
//! neither is the runtime. What is unsafe is in this folder, the most of it in `buffer`.
//!
//! Nothing here has been run on a Mac yet. It is written after Apple's headers and documentation, and
//! checks at run time what they leave open: whether an output landed in its backing, what strides an
//! array really has, what a function really declares.

mod buffer;
mod call;
pub(super) mod model;
pub(super) mod objc;
mod placement;

use std::cell::RefCell;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use half::f16;
use objc2::rc::Retained;
use objc2_core_ml::{MLModel, MLMultiArray, MLState};

use self::buffer::Buffer;
use self::call::Call;
use super::contract::{
    BufferId, CallId, CallPlan, ComponentRuntime, ComponentSpec, Observed, Role, RuntimeError,
    StateId,
};
use super::described;
use super::preflight::{self, ComponentFile};
use super::verify::verify;

/// The runtime that drives Core ML itself.
pub struct CoreMl {
    components: Vec<ComponentSpec>,
    models: Vec<Loaded>,
    buffers: Vec<Buffer>,
    calls: Vec<Call>,
    /// By [`StateId`]; freed ones leave a gap that the next one takes.
    states: Vec<Option<Retained<MLState>>>,
    observed: Observed,
    /// The first failure of a write, which the next prediction reports: writing has no result.
    failed: RefCell<Option<String>>,
}

/// A function's model.
struct Loaded {
    role: Role,
    function: String,
    model: Retained<MLModel>,
}

impl CoreMl {
    /// Loads every function of every component. Takes from seconds to minutes the first time, so
    /// it belongs off the request path. For `placement` each function's compute plan is waited for
    /// at most that long; zero asks for none.
    ///
    /// # Errors
    /// On a macOS before 15, for a model that is not compiled, and when Core ML refuses one.
    pub fn load(files: &[ComponentFile], placement: Duration) -> Result<Self, RuntimeError> {
        objc::supported()?;
        let mut runtime = Self {
            components: Vec::new(),
            models: Vec::new(),
            buffers: Vec::new(),
            calls: Vec::new(),
            states: Vec::new(),
            observed: Observed {
                requested: "cpu-and-neural-engine".to_owned(),
                ..Observed::default()
            },
            failed: RefCell::new(None),
        };
        for file in files {
            preflight::loadable(file)?;
            runtime.add(file).map_err(|what| RuntimeError::Load {
                component: file.declared.role.name(),
                what,
            })?;
        }
        if !placement.is_zero() {
            runtime.observe_placement(files, placement);
        }
        Ok(runtime)
    }

    fn add(&mut self, file: &ComponentFile) -> Result<(), String> {
        let role = file.declared.role;
        let mut functions = Vec::with_capacity(file.declared.functions.len());
        for declared in &file.declared.functions {
            let begun = Instant::now();
            let (model, spec) = objc::guarded(|| {
                let model = model::load(file, &declared.name)?;
                let spec = model::spec(&model, &declared.name, Some(declared))?;
                Ok((model, spec))
            })
            .map_err(|what| format!("function {}: {what}", declared.name))?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            self.observed
                .load_ms
                .push((place(role, &declared.name), took));
            functions.push(spec);
            self.models.push(Loaded {
                role,
                function: declared.name.clone(),
                model,
            });
        }
        let loaded = ComponentSpec { role, functions };
        let differences = preflight::differences(&file.declared, &loaded);
        for difference in &differences {
            tracing::warn!(%difference, "a Core ML model is not what its metadata.json says");
        }
        self.observed.notes.extend(differences);
        self.components.push(loaded);
        Ok(())
    }

    fn observe_placement(&mut self, files: &[ComponentFile], wait: Duration) {
        for file in files {
            for function in &file.declared.functions {
                let place = place(file.declared.role, &function.name);
                let share = objc::guarded(|| {
                    placement::neural_engine_share(&file.path, &function.name, wait)
                });
                match share {
                    Ok(share) => self.observed.neural_engine_share.push((place, share)),
                    Err(what) => self
                        .observed
                        .notes
                        .push(format!("Where {place} runs cannot be told: {what}.")),
                }
            }
        }
    }

    fn model(&self, role: Role, function: &str) -> Option<&Retained<MLModel>> {
        let loaded = |loaded: &&Loaded| loaded.role == role && loaded.function == function;
        self.models.iter().find(loaded).map(|found| &found.model)
    }

    fn keep(&self, what: Result<(), String>) {
        if let Err(what) = what {
            self.failed.borrow_mut().get_or_insert(what);
        }
    }
}

fn place(role: Role, function: &str) -> String {
    format!("{}/{function}", role.name())
}

impl ComponentRuntime for CoreMl {
    fn name(&self) -> &'static str {
        "coreml"
    }

    fn components(&self) -> &[ComponentSpec] {
        &self.components
    }

    fn prepare(&mut self, plan: &CallPlan) -> Result<(), RuntimeError> {
        verify(&self.components, plan)?;
        let buffers = plan
            .buffers
            .iter()
            .map(|spec| objc::guarded(|| Buffer::new(spec)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|what| RuntimeError::Resources { what })?;
        let mut calls = Vec::with_capacity(plan.calls.len());
        for spec in &plan.calls {
            let model = self.model(spec.role, &spec.function);
            let call = model
                .ok_or_else(|| "it is not loaded".to_owned())
                .and_then(|model| objc::guarded(|| Call::new(spec, model, &buffers)));
            calls.push(call.map_err(|what| RuntimeError::Mismatch {
                component: spec.role.name(),
                function: spec.function.clone(),
                what,
            })?);
        }
        self.buffers = buffers;
        self.calls = calls;
        Ok(())
    }

    fn make_state(&mut self) -> Result<StateId, RuntimeError> {
        let maker = described::state_maker(&self.components);
        let model = maker.and_then(|(role, function)| self.model(role, function));
        let model = model.ok_or_else(|| RuntimeError::Resources {
            what: "no function of this model keeps a state".to_owned(),
        })?;
        // SAFETY: the model declares a state; a new one is zeroed, and retained by what is returned.
        let state = objc::guarded(|| Ok(unsafe { model.newState() }))
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
        let written = objc::guarded(|| self.buffers[buffer.0].write_i32(at, values));
        self.keep(written);
    }

    fn write_f16(&mut self, buffer: BufferId, at: usize, values: &[f16]) {
        let written = objc::guarded(|| self.buffers[buffer.0].write_f16(at, values));
        self.keep(written);
    }

    fn predict(&mut self, call: CallId, state: Option<StateId>) -> Result<(), RuntimeError> {
        let call = &mut self.calls[call.0];
        let failed = |call: &Call, what| RuntimeError::Predict {
            component: call.component.clone(),
            function: call.function.clone(),
            what,
        };
        if let Some(what) = self.failed.get_mut().take() {
            return Err(failed(call, what));
        }
        let state = match state {
            None => None,
            Some(id) => match self.states.get(id.0) {
                Some(Some(state)) => Some(&**state),
                _ => return Err(failed(call, "its state is gone".to_owned())),
            },
        };
        match call.predict(state, &mut self.buffers) {
            Ok(copied) => {
                self.observed.copied_outputs += copied;
                Ok(())
            }
            Err(what) => Err(failed(call, what)),
        }
    }

    fn read_f32(&self, buffer: BufferId, into: &mut [f32]) {
        let read = objc::guarded(|| self.buffers[buffer.0].read_f32(into));
        if read.is_err() {
            // Not numbers: the pipeline refuses logits that are not finite.
            into.fill(f32::NAN);
        }
        self.keep(read);
    }

    fn read_i32(&self, buffer: BufferId, into: &mut [i32]) {
        let read = objc::guarded(|| self.buffers[buffer.0].read_i32(into));
        if read.is_err() {
            // No token and no position is negative.
            into.fill(-1);
        }
        self.keep(read);
    }

    fn state_rows(&self, state: StateId) -> Option<Vec<(String, Vec<f64>)>> {
        let state = self.states.get(state.0)?.as_ref()?;
        let (role, function) = described::state_maker(&self.components)?;
        let component = self.components.iter().find(|own| own.role == role)?;
        let declared = &component.function(function)?.states;
        declared
            .iter()
            .map(|spec| Some((spec.name.clone(), rows(state, &spec.name)?)))
            .collect()
    }

    fn observed(&self) -> Observed {
        let mut observed = self.observed.clone();
        let unshared = self.buffers.iter().filter(|buffer| {
            buffer.spec().element == super::contract::Element::Float16 && !buffer.is_shared()
        });
        let unshared = unshared.count();
        if unshared > 0 {
            observed.notes.push(format!(
                "{unshared} buffers of half precision are plain memory: no IOSurface could be made."
            ));
        }
        for call in self.calls.iter().filter(|call| call.refuses_backings()) {
            observed.notes.push(format!(
                "{}/{} refuses output backings: its outputs are copied.",
                call.component, call.function
            ));
        }
        observed
    }
}

/// The sums of a state's rows, where Core ML lets us look.
fn rows(state: &MLState, name: &str) -> Option<Vec<f64>> {
    let sums = RefCell::new(None);
    objc::guarded(|| {
        let block = block2::StackBlock::new(|array: NonNull<MLMultiArray>| {
            // SAFETY: Core ML lends the array for as long as the block runs.
            *sums.borrow_mut() = buffer::row_sums(unsafe { array.as_ref() }).ok();
        });
        // SAFETY: the name is a valid object, and the block is called before this returns.
        unsafe { state.getMultiArrayForStateNamed_handler(&objc::name(name), &block) };
        Ok(())
    })
    .ok()?;
    sums.into_inner()
}
