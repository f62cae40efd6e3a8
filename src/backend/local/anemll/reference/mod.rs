//! The reference runtime: the components of an ANEMLL bundle, executed on the processor of any
//! machine from the weights of the same model in Hugging Face's form.
//!
//! A bundle's compiled programs run on Apple's systems only. This runtime takes what the bundle
//! declares and computes what its programs compute, checking every call as strictly as Core ML does,
//! so that the pipeline above can be proven, and doubted, anywhere. Arithmetic is float32; what
//! crosses a component's border or goes into the cache is rounded to half precision, as there.

mod arithmetic;
mod call;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use half::f16;
use half::slice::HalfFloatSliceExt;

use self::arithmetic::{Cache, Model};
use self::call::BoundCall;
use self::program::{Declared, Program};
use super::contract::{
    BufferId, BufferSpec, CallId, CallPlan, CallSpec, ComponentRuntime, ComponentSpec, Element,
    Observed, Role, RuntimeError, StateId,
};
use super::verify::verify;
use crate::backend::local::error::{LoadError, LoadErrorKind};
use crate::backend::local::model_config::ModelConfig;
use crate::backend::local::threads;
use crate::backend::local::weights::{FLOAT32_BYTES, Safetensors, Weights};

/// The components of a bundle, on the processor.
pub struct ReferenceRuntime {
    components: Vec<ComponentSpec>,
    model: Model,
    programs: Vec<(Role, String, Program)>,
    cache: Option<(String, [usize; 4])>,
    load_ms: f64,
    buffers: Vec<Buffer>,
    calls: Vec<BoundCall>,
    states: BTreeMap<usize, Cache>,
    next_state: usize,
}

/// A buffer's elements, row-major.
enum Buffer {
    Float16(Vec<f16>),
    Float32(Vec<f32>),
    Int32(Vec<i32>),
}

/// Where the weights are when nobody says: the folder `hf` beside the bundle's own.
#[must_use]
pub fn weights_beside(bundle: &Path) -> PathBuf {
    // A bundle that is named `.` has its parent in its real path only.
    let real = fs::canonicalize(bundle).unwrap_or_else(|_| bundle.to_owned());
    real.parent().unwrap_or(Path::new("..")).join("hf")
}

impl ReferenceRuntime {
    /// Reads config.json and the safetensors of `weights`, and holds them to what `components`
    /// declare. The thread that calls it is to make all further calls.
    ///
    /// # Errors
    /// [`LoadError`] when the weights are missing or damaged, or are those of another model; then
    /// every contradiction is named.
    pub fn load(components: &[ComponentSpec], weights: &Path) -> Result<Self, LoadError> {
        let started = Instant::now();
        let folder = weights.display().to_string();
        let path = weights.join("config.json");
        let file = path.display().to_string();
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unfit(
                LoadErrorKind::Absent,
                &folder,
                "the reference runtime finds no weights there (config.json is missing)",
            ),
            _ => LoadError::io(&file, &error),
        })?;
        let config = ModelConfig::from_json(&text, &file)?;
        let mut declared = Declared::read(components, &config);
        let mut programs = Vec::new();
        for component in components {
            for function in &component.functions {
                if let Some(program) = declared.program(component.role, function) {
                    programs.push((component.role, function.name.clone(), program));
                }
            }
        }
        if !declared.contradictions.is_empty() {
            let facts = declared.contradictions.join("; ");
            return Err(unfit(
                LoadErrorKind::Malformed,
                &folder,
                &format!("the weights are not those of the bundle: {facts}"),
            ));
        }
        let cache = declared.cache.map(|shape| (declared.cache_name, shape));
        let mut tensors = Safetensors::open(weights, &Device::Cpu)?;
        if tensors.elements() * size_of::<f32>() <= FLOAT32_BYTES {
            threads::stay_on_this_one();
        }
        let model = Model::load(config, &mut tensors)?;
        Ok(Self {
            components: components.to_vec(),
            model,
            programs,
            cache,
            load_ms: started.elapsed().as_secs_f64() * 1e3,
            buffers: Vec::new(),
            calls: Vec::new(),
            states: BTreeMap::new(),
            next_state: 0,
        })
    }

    fn program(&self, role: Role, function: &str) -> Option<&Program> {
        let mut programs = self.programs.iter();
        let found = programs.find(|(of, name, _)| *of == role && name == function);
        found.map(|(.., program)| program)
    }
}

fn unfit(kind: LoadErrorKind, folder: &str, fact: &str) -> LoadError {
    LoadError {
        kind,
        file: folder.to_owned(),
        fact: fact.to_owned(),
        next_step:
            "Put the same model's config.json and safetensors into a folder `hf` beside the \
                    bundle's folder, or name their folder with `--weights`."
                .to_owned(),
    }
}

impl Buffer {
    fn zeroed(spec: &BufferSpec) -> Self {
        match spec.element {
            Element::Float16 => Self::Float16(vec![f16::ZERO; spec.elements()]),
            Element::Float32 => Self::Float32(vec![0.0; spec.elements()]),
            Element::Int32 => Self::Int32(vec![0; spec.elements()]),
        }
    }
}

impl ComponentRuntime for ReferenceRuntime {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn components(&self) -> &[ComponentSpec] {
        &self.components
    }

    fn prepare(&mut self, plan: &CallPlan) -> Result<(), RuntimeError> {
        verify(&self.components, plan)?;
        let bind = |call: &CallSpec| {
            let found = self.program(call.role, &call.function);
            let program = found.ok_or_else(|| "there is no such function".to_owned());
            program
                .and_then(|program| BoundCall::bind(program, call, &plan.buffers, &self.model))
                .map_err(|what| RuntimeError::Mismatch {
                    component: call.role.name(),
                    function: call.function.clone(),
                    what,
                })
        };
        self.calls = plan.calls.iter().map(bind).collect::<Result<_, _>>()?;
        self.buffers = plan.buffers.iter().map(Buffer::zeroed).collect();
        Ok(())
    }

    fn make_state(&mut self) -> Result<StateId, RuntimeError> {
        let refused = |what: &str| RuntimeError::Resources {
            what: what.to_owned(),
        };
        let (_, shape) = self
            .cache
            .as_ref()
            .ok_or_else(|| refused("none of the components declares a state"))?;
        let cache = Cache::zeroed(*shape).ok_or_else(|| {
            refused("there is not enough memory for another KV cache; close other programs")
        })?;
        let id = self.next_state;
        self.next_state += 1;
        self.states.insert(id, cache);
        Ok(StateId(id))
    }

    fn drop_state(&mut self, state: StateId) {
        self.states.remove(&state.0);
    }

    fn state_bytes(&self) -> usize {
        let elements = |(_, shape): &(String, [usize; 4])| shape.iter().product::<usize>();
        self.cache.as_ref().map_or(0, elements) * size_of::<f16>()
    }

    fn write_i32(&mut self, buffer: BufferId, at: usize, values: &[i32]) {
        match &mut self.buffers[buffer.0] {
            Buffer::Int32(all) => all[at..at + values.len()].copy_from_slice(values),
            Buffer::Float16(_) | Buffer::Float32(_) => {
                unreachable!("the plan's buffer {} holds no integers", buffer.0)
            }
        }
    }

    fn write_f16(&mut self, buffer: BufferId, at: usize, values: &[f16]) {
        match &mut self.buffers[buffer.0] {
            Buffer::Float16(all) => all[at..at + values.len()].copy_from_slice(values),
            Buffer::Float32(_) | Buffer::Int32(_) => {
                unreachable!("the plan's buffer {} is not in half precision", buffer.0)
            }
        }
    }

    fn predict(&mut self, call: CallId, state: Option<StateId>) -> Result<(), RuntimeError> {
        let Some(bound) = self.calls.get(call.0) else {
            return Err(RuntimeError::Resources {
                what: format!("the plan has no call {}", call.0),
            });
        };
        let cache = match (state, bound.stateful) {
            (None, false) => None,
            (Some(_), false) => return Err(bound.mismatch("it takes no state and was given one")),
            (None, true) => return Err(bound.mismatch("it takes a state and was given none")),
            (Some(id), true) => Some(self.states.get_mut(&id.0).ok_or_else(|| {
                bound.mismatch("the state that it was given does not exist (any more)")
            })?),
        };
        bound.run(&self.model, &mut self.buffers, cache)
    }

    fn read_f32(&self, buffer: BufferId, into: &mut [f32]) {
        match &self.buffers[buffer.0] {
            Buffer::Float16(all) => all.convert_to_f32_slice(into),
            Buffer::Float32(all) => into.copy_from_slice(all),
            Buffer::Int32(_) => unreachable!("the plan's buffer {} holds integers", buffer.0),
        }
    }

    fn read_i32(&self, buffer: BufferId, into: &mut [i32]) {
        match &self.buffers[buffer.0] {
            Buffer::Int32(all) => into.copy_from_slice(all),
            Buffer::Float16(_) | Buffer::Float32(_) => {
                unreachable!("the plan's buffer {} holds no integers", buffer.0)
            }
        }
    }

    fn state_rows(&self, state: StateId) -> Option<Vec<(String, Vec<f64>)>> {
        let (name, _) = self.cache.as_ref()?;
        let rows = self.states.get(&state.0)?.abs_sum_by_row();
        Some(vec![(name.clone(), rows)])
    }

    fn observed(&self) -> Observed {
        Observed {
            load_ms: vec![("weights".to_owned(), self.load_ms)],
            requested: "cpu".to_owned(),
            ..Observed::default()
        }
    }
}
