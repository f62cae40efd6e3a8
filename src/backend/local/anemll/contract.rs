//! The contract between the pipeline and whatever runs the components: what a component declares,
//! which buffers it is called with, and the trait that Core ML, candle-coreml and the reference
//! runtime implement.
//!
//! Everything that can be decided once is decided before the first token. The pipeline makes a
//! [`CallPlan`]: all buffers, and for each call which buffer is bound to which declared name. A
//! runtime checks the plan against what its components declare, allocates the buffers and builds
//! its calls; from then on a token costs writes of a few numbers and [`ComponentRuntime::predict`].
//! One component's output buffer is the next one's input, so nothing is copied between them.

use half::f16;

use crate::inference::{ErrorKind, GenerateError, Placement};

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE 754 half precision.
    Float16,
    /// Single precision: declared by some exports for logits and argmax values.
    Float32,
    /// 32-bit signed integers.
    Int32,
}

/// The shapes that a tensor may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// This one.
    Fixed(Vec<usize>),
    /// One of these (`enumeratedShapes`).
    Enumerated(Vec<Vec<usize>>),
    /// Not declared: the output's shape follows from the inputs (`"[]"` in metadata.json).
    Dynamic,
}

impl Shape {
    /// Whether a tensor of the shape `dims` may stand here.
    #[must_use]
    pub fn admits(&self, dims: &[usize]) -> bool {
        match self {
            Self::Fixed(shape) => shape == dims,
            Self::Enumerated(shapes) => shapes.iter().any(|shape| shape == dims),
            Self::Dynamic => true,
        }
    }
}

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name, the key in Core ML's feature provider.
    pub name: String,
    /// Its element type.
    pub element: Element,
    /// Its shapes.
    pub shape: Shape,
}

/// A declared state: the KV cache, which stays inside the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub element: Element,
    /// `[2 x layers, key-value heads, context, head_dim]`; row `i` is K of layer `i`, row
    /// `layers + i` is V.
    pub shape: Vec<usize>,
}

/// One function of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Its name: `infer`, `prefill`, or [`MAIN`] for a component that declares no functions.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives, in declared order.
    pub outputs: Vec<TensorSpec>,
    /// The states it reads and writes.
    pub states: Vec<StateSpec>,
}

/// The name of the only function of a component that declares none.
pub const MAIN: &str = "main";

/// What a component does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Token ids to hidden states.
    Embeddings,
    /// Some of the transformer's blocks.
    Ffn {
        /// Which part, from 1.
        chunk: usize,
        /// Of how many.
        of: usize,
    },
    /// Hidden state to logits.
    LmHead,
    /// All of it in one: token ids to logits.
    Monolithic,
}

impl Role {
    /// The name used in traces and errors: `embeddings`, `ffn_chunk_01of02`, `lm_head`,
    /// `monolithic`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Embeddings => "embeddings".to_owned(),
            Self::Ffn { chunk, of } => format!("ffn_chunk_{chunk:02}of{of:02}"),
            Self::LmHead => "lm_head".to_owned(),
            Self::Monolithic => "monolithic".to_owned(),
        }
    }
}

/// A component and all it declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentSpec {
    /// What it does.
    pub role: Role,
    /// Its functions; never empty.
    pub functions: Vec<FunctionSpec>,
}

impl ComponentSpec {
    /// The function of this name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&FunctionSpec> {
        self.functions.iter().find(|function| function.name == name)
    }
}

/// A buffer of the plan, by its index in [`CallPlan::buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferId(pub usize);

/// A call of the plan, by its index in [`CallPlan::calls`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub usize);

/// A KV cache inside the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateId(pub usize);

/// A buffer that lives as long as the loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferSpec {
    /// Its element type.
    pub element: Element,
    /// Its shape, concrete.
    pub shape: Vec<usize>,
}

impl BufferSpec {
    /// How many elements it has.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One way of calling a function: which buffer stands for which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpec {
    /// The component.
    pub role: Role,
    /// The function's name.
    pub function: String,
    /// Every declared input and its buffer.
    pub inputs: Vec<(String, BufferId)>,
    /// Every declared output and its buffer.
    pub outputs: Vec<(String, BufferId)>,
    /// Whether it is called with a state.
    pub stateful: bool,
}

/// All buffers and all calls of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallPlan {
    /// The buffers.
    pub buffers: Vec<BufferSpec>,
    /// The calls.
    pub calls: Vec<CallSpec>,
}

/// Why a runtime could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// A call does not fit what the component declares, as Core ML says at run time.
    #[error("{component}, function {function}: {what}")]
    Mismatch {
        /// The component's name.
        component: String,
        /// The function.
        function: String,
        /// What does not fit.
        what: String,
    },
    /// The component could not be loaded or compiled.
    #[error("{component} could not be loaded: {what}")]
    Load {
        /// The component's name.
        component: String,
        /// What went wrong.
        what: String,
    },
    /// A prediction failed.
    #[error("{component}, function {function}, failed: {what}")]
    Predict {
        /// The component's name.
        component: String,
        /// The function.
        function: String,
        /// What went wrong.
        what: String,
    },
    /// The runtime ran out of states or memory, or the system refused something.
    #[error("{what}")]
    Resources {
        /// What went wrong.
        what: String,
    },
}

impl From<RuntimeError> for GenerateError {
    fn from(error: RuntimeError) -> Self {
        Self::new(
            ErrorKind::Backend,
            format!("the on-device model failed: {error}"),
            "Run `tandem doctor`; if it happens again, download the model again.",
        )
    }
}

/// How long a component took to be ready, and where it runs, as far as can be observed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Milliseconds to load (and, on first load, compile) each component's function.
    pub load_ms: Vec<(String, f64)>,
    /// The hardware that was asked for, such as `cpu-and-neural-engine`.
    pub requested: String,
    /// The share of operations that the Neural Engine was seen to take, by component and function;
    /// empty where it cannot be seen.
    pub neural_engine_share: Vec<(String, f64)>,
    /// Outputs that did not land in the buffer given for them and had to be copied, since loading.
    pub copied_outputs: u64,
    /// What `tandem doctor` is to say of it, in sentences: what was declared one way and loaded
    /// another, what could not be observed, and why.
    pub notes: Vec<String>,
}

impl From<Observed> for Placement {
    fn from(seen: Observed) -> Self {
        let shares: Vec<String> = seen
            .neural_engine_share
            .iter()
            .map(|(component, share)| format!("{component} {:.0} %", share * 100.0))
            .collect();
        Self {
            requested: seen.requested,
            observed: (!shares.is_empty())
                .then(|| format!("on the Neural Engine: {}", shares.join(", "))),
        }
    }
}

/// What runs the components of a bundle.
///
/// All calls come from one thread, the one that loaded the components. Indices are in row-major
/// order of the buffer's shape, whatever the strides in memory.
pub trait ComponentRuntime {
    /// The runtime's name: `reference`, `coreml` or `candle-coreml`.
    fn name(&self) -> &'static str;

    /// What the loaded components declare.
    fn components(&self) -> &[ComponentSpec];

    /// Checks `plan` against what the components declare, allocates its buffers (zeroed) and builds
    /// its calls. Called once, before anything below.
    ///
    /// # Errors
    /// [`RuntimeError::Mismatch`] for a missing or unknown name, another element type, or a shape
    /// that is not declared.
    fn prepare(&mut self, plan: &CallPlan) -> Result<(), RuntimeError>;

    /// A new state, zeroed, which every stateful call may be given. Its size is
    /// [`Self::state_bytes`].
    ///
    /// # Errors
    /// When there is no room.
    fn make_state(&mut self) -> Result<StateId, RuntimeError>;

    /// Frees a state.
    fn drop_state(&mut self, state: StateId);

    /// Bytes of one state.
    fn state_bytes(&self) -> usize;

    /// Writes `values` from element `at` on. The range lies within the buffer, whose elements are
    /// [`Element::Int32`].
    fn write_i32(&mut self, buffer: BufferId, at: usize, values: &[i32]);

    /// Writes `values` from element `at` on. The range lies within the buffer, whose elements are
    /// [`Element::Float16`].
    fn write_f16(&mut self, buffer: BufferId, at: usize, values: &[f16]);

    /// Runs a call: reads its inputs, writes its outputs, and reads and writes `state`, which is
    /// given exactly when the call is stateful.
    ///
    /// # Errors
    /// When the prediction fails.
    fn predict(&mut self, call: CallId, state: Option<StateId>) -> Result<(), RuntimeError>;

    /// Reads the whole buffer as float32 (half precision is widened) into `into`, which has as many
    /// elements.
    fn read_f32(&self, buffer: BufferId, into: &mut [f32]);

    /// Reads the whole [`Element::Int32`] buffer into `into`, which has as many elements.
    fn read_i32(&self, buffer: BufferId, into: &mut [i32]);

    /// For traces: the sums of absolute values of each row of a state, by the state's name. `None`
    /// where the runtime cannot look inside.
    fn state_rows(&self, state: StateId) -> Option<Vec<(String, Vec<f64>)>> {
        let _ = state;
        None
    }

    /// Load times and placement.
    fn observed(&self) -> Observed;
}
