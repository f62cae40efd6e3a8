//! Which buffers and which calls a model needs, from what its components declare.
//!
//! Two ways lead through the components: `infer`, one token to its logits, and `prefill`, a batch of
//! tokens into the cache. Each component's output buffer is the next one's input. The masks and
//! positions of every batch are buffers of their own, so that a batch costs writing its token ids.

use half::f16;

use super::bundle::{AnemllBundle, Component, LogitsOutput};
use super::contract::{
    BufferId, BufferSpec, CallId, CallPlan, CallSpec, ComponentRuntime, ComponentSpec, Element,
    FunctionSpec, Role, RuntimeError, Shape, TensorSpec,
};
use super::mask;

/// How a model is called: what its bundle, once checked, says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Slots in the cache.
    pub context: usize,
    /// Tokens in a prefill batch, at most the context; `None` for an export without.
    pub batch: Option<usize>,
    /// The components in the order of their calls.
    pub parts: Vec<PartCalls>,
    /// What the last of them gives.
    pub logits: LogitsOutput,
}

/// Which functions of a component are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartCalls {
    /// The component.
    pub role: Role,
    /// For one token.
    pub infer: String,
    /// For a batch; `None` where a batch does not come this way.
    pub prefill: Option<String>,
}

impl From<&AnemllBundle> for Layout {
    fn from(bundle: &AnemllBundle) -> Self {
        let calls = |part: &Component| PartCalls {
            role: part.spec.role,
            infer: part.infer.clone(),
            prefill: part.prefill.clone(),
        };
        Self {
            context: bundle.context_length,
            batch: bundle.batch_size,
            parts: bundle.components.iter().map(calls).collect(),
            logits: bundle.logits.clone(),
        }
    }
}

/// What a model computes of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Logits, in parts: each part's buffer and where it begins in the vocabulary.
    Logits {
        /// In the order of the vocabulary.
        parts: Vec<(BufferId, usize)>,
        /// Elements in all.
        vocabulary: usize,
    },
    /// The best token of each part: its index within the part, and its logit.
    Best {
        /// i32, one for each part.
        indices: BufferId,
        /// One for each part.
        values: BufferId,
        /// Where each part begins in the vocabulary.
        starts: Vec<usize>,
    },
}

/// The way of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Infer {
    /// i32 `[1, 1]`.
    pub ids: BufferId,
    /// i32 `[1]` each: everything that is told the position.
    pub positions: [BufferId; 2],
    /// `[1, 1, 1, context]`.
    pub mask: BufferId,
    /// Fill the cache and leave the hidden state.
    pub body: Way,
    /// From the hidden state to [`Plan::head`]; `None` where the body gives it.
    pub head: Option<CallId>,
}

/// The way of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefill {
    /// Tokens in it.
    pub batch: usize,
    /// i32 `[1, batch]`.
    pub ids: BufferId,
    /// The calls of each batch, by its number from the front of the context; true: with state.
    pub blocks: Vec<Way>,
    /// What each block's buffers hold once and for all.
    constants: Vec<Constants>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Constants {
    start: usize,
    positions: BufferId,
    mask: BufferId,
    current: BufferId,
}

/// Everything that is decided before the first token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// For the runtime.
    pub calls: CallPlan,
    /// Slots in the cache.
    pub context: usize,
    /// One token.
    pub infer: Infer,
    /// A batch, where the components declare how.
    pub prefill: Option<Prefill>,
    /// What a token gives.
    pub head: Head,
}

/// What the inputs of a call stand for.
struct Inputs {
    ids: BufferId,
    positions: BufferId,
    mask: BufferId,
    current: BufferId,
}

/// A component on a way, and its function there.
type Station<'a> = (&'a ComponentSpec, &'a FunctionSpec);

/// The calls of a way, and whether each takes the state.
pub type Way = Vec<(CallId, bool)>;

impl Plan {
    /// The plan for a model of this `layout` whose loaded components declare `components`.
    ///
    /// # Errors
    /// [`RuntimeError::Mismatch`] when a component is not as the layout says, or declares something
    /// that nothing can be bound to.
    pub fn new(components: &[ComponentSpec], layout: &Layout) -> Result<Self, RuntimeError> {
        let mut calls = CallPlan::default();
        let context = layout.context;
        let single = Inputs {
            ids: calls.buffer(Element::Int32, &[1, 1]),
            positions: calls.buffer(Element::Int32, &[1]),
            mask: calls.buffer(Element::Float16, &[1, 1, 1, context]),
            current: calls.buffer(Element::Int32, &[1]),
        };
        let stations = stations(components, layout, |part| Some(&part.infer))?;
        let (mut body, outputs) = calls.way(&stations, &single, 1)?;
        let head = calls.head(&layout.logits, &outputs)?;
        let apart = layout.parts.iter().any(|part| part.role == Role::LmHead);
        let head_call = if apart { body.pop() } else { None };
        let infer = Infer {
            ids: single.ids,
            positions: [single.positions, single.current],
            mask: single.mask,
            body,
            head: head_call.map(|(call, _)| call),
        };
        let prefill = match layout.batch {
            Some(batch) if (1..=context).contains(&batch) => {
                let way = self::stations(components, layout, |part| part.prefill.as_ref())?;
                Some(calls.prefill(&way, context, batch)?)
            }
            _ => None,
        };
        Ok(Self {
            calls,
            context,
            infer,
            prefill,
            head,
        })
    }

    /// Writes what never changes: the positions and masks of every batch.
    pub fn write_constants(&self, runtime: &mut dyn ComponentRuntime) {
        let Some(prefill) = &self.prefill else {
            return;
        };
        for block in &prefill.constants {
            let positions: Vec<i32> = (block.start..block.start + prefill.batch)
                .map(|position| position as i32)
                .collect();
            runtime.write_i32(block.positions, 0, &positions);
            runtime.write_i32(block.current, 0, &positions[..1]);
            let mask: Vec<f16> = mask::block(block.start, prefill.batch, self.context);
            runtime.write_f16(block.mask, 0, &mask);
        }
    }
}

impl CallPlan {
    fn buffer(&mut self, element: Element, shape: &[usize]) -> BufferId {
        self.buffers.push(BufferSpec {
            element,
            shape: shape.to_vec(),
        });
        BufferId(self.buffers.len() - 1)
    }

    /// The calls of every batch that fits the context.
    fn prefill(
        &mut self,
        way: &[Station<'_>],
        context: usize,
        batch: usize,
    ) -> Result<Prefill, RuntimeError> {
        let ids = self.buffer(Element::Int32, &[1, batch]);
        let mut blocks: Vec<Way> = Vec::new();
        let mut constants: Vec<Constants> = Vec::new();
        for start in (0..=context - batch).step_by(batch) {
            let inputs = Inputs {
                ids,
                positions: self.buffer(Element::Int32, &[batch]),
                mask: self.buffer(Element::Float16, &[1, 1, batch, context]),
                current: self.buffer(Element::Int32, &[1]),
            };
            let calls = match (blocks.first(), constants.first()) {
                (Some(first), Some(old)) => self.again(first, old, &inputs),
                _ => self.way(way, &inputs, batch)?.0,
            };
            constants.push(Constants {
                start,
                positions: inputs.positions,
                mask: inputs.mask,
                current: inputs.current,
            });
            blocks.push(calls);
        }
        Ok(Prefill {
            batch,
            ids,
            blocks,
            constants,
        })
    }

    /// The calls of the first batch once more, with the positions and masks of another. Those that
    /// take neither are the same calls.
    fn again(&mut self, first: &[(CallId, bool)], old: &Constants, inputs: &Inputs) -> Way {
        let swap = |buffer: BufferId| match buffer {
            id if id == old.positions => inputs.positions,
            id if id == old.mask => inputs.mask,
            id if id == old.current => inputs.current,
            id => id,
        };
        let mut calls = Vec::with_capacity(first.len());
        for (id, stateful) in first {
            let mut call = self.calls[id.0].clone();
            let mut changed = false;
            for (_, buffer) in &mut call.inputs {
                changed |= swap(*buffer) != *buffer;
                *buffer = swap(*buffer);
            }
            if changed {
                self.calls.push(call);
                calls.push((CallId(self.calls.len() - 1), *stateful));
            } else {
                calls.push((*id, *stateful));
            }
        }
        calls
    }

    /// The calls of one way through the components, with `tokens` tokens at once, and the last
    /// one's outputs.
    fn way(
        &mut self,
        stations: &[Station<'_>],
        inputs: &Inputs,
        tokens: usize,
    ) -> Result<(Way, Vec<(String, BufferId)>), RuntimeError> {
        let mut calls = Way::new();
        let mut outputs = Vec::new();
        for (at, station) in stations.iter().enumerate() {
            let (component, declared) = station;
            let hidden = outputs.first().map(|(_, buffer): &(_, BufferId)| *buffer);
            let bound = bind(declared, inputs, hidden).map_err(|what| mismatch(station, what))?;
            let mut given = Vec::with_capacity(declared.outputs.len());
            for output in &declared.outputs {
                let shape = match &output.shape {
                    Shape::Fixed(shape) => Some(shape.clone()),
                    // Embeddings leave it open: it is what the next component takes.
                    Shape::Enumerated(_) | Shape::Dynamic => taken(stations.get(at + 1), tokens),
                };
                let shape = shape.ok_or_else(|| {
                    let what = format!("nothing tells the shape of its output {}", output.name);
                    mismatch(station, what)
                })?;
                given.push((output.name.clone(), self.buffer(output.element, &shape)));
            }
            outputs = given;
            let stateful = !declared.states.is_empty();
            calls.push((CallId(self.calls.len()), stateful));
            self.calls.push(CallSpec {
                role: component.role,
                function: declared.name.clone(),
                inputs: bound,
                outputs: outputs.clone(),
                stateful,
            });
        }
        Ok((calls, outputs))
    }

    /// What the outputs of the last component mean.
    fn head(
        &self,
        logits: &LogitsOutput,
        outputs: &[(String, BufferId)],
    ) -> Result<Head, RuntimeError> {
        let output = |name: &str| {
            let found = outputs.iter().find(|(output, _)| output == name);
            found
                .map(|(_, buffer)| *buffer)
                .ok_or_else(|| RuntimeError::Mismatch {
                    component: Role::LmHead.name(),
                    function: INFER.to_owned(),
                    what: format!("it has no output {name}"),
                })
        };
        let mut vocabulary = 0;
        let mut starts = Vec::with_capacity(logits.parts());
        for size in logits.sizes() {
            starts.push(vocabulary);
            vocabulary += size;
        }
        let sizes_differ = || RuntimeError::Mismatch {
            component: Role::LmHead.name(),
            function: INFER.to_owned(),
            what: "its parts have other sizes than the bundle says".to_owned(),
        };
        match logits {
            LogitsOutput::Parts(parts) => {
                let mut buffers = Vec::with_capacity(parts.len());
                for (part, start) in parts.iter().zip(starts) {
                    let buffer = output(&part.name)?;
                    if self.buffers[buffer.0].elements() != part.size {
                        return Err(sizes_differ());
                    }
                    buffers.push((buffer, start));
                }
                Ok(Head::Logits {
                    parts: buffers,
                    vocabulary,
                })
            }
            LogitsOutput::Argmax { index, value, .. } => {
                let (indices, values) = (output(index)?, output(value)?);
                let elements = |buffer: BufferId| self.buffers[buffer.0].elements();
                if elements(indices) != starts.len() || elements(values) != starts.len() {
                    return Err(sizes_differ());
                }
                Ok(Head::Best {
                    indices,
                    values,
                    starts,
                })
            }
        }
    }
}

/// What errors call the way of one token.
const INFER: &str = "infer";

/// The components on a way, in order: those for which `function` names one.
fn stations<'a>(
    components: &'a [ComponentSpec],
    layout: &'a Layout,
    function: impl Fn(&'a PartCalls) -> Option<&'a String>,
) -> Result<Vec<Station<'a>>, RuntimeError> {
    let named = layout
        .parts
        .iter()
        .filter_map(|part| Some((part.role, function(part)?)));
    named
        .map(|(role, name)| {
            let component = components.iter().find(|component| component.role == role);
            component
                .and_then(|component| Some((component, component.function(name)?)))
                .ok_or_else(|| RuntimeError::Mismatch {
                    component: role.name(),
                    function: name.clone(),
                    what: "the loaded component does not declare it".to_owned(),
                })
        })
        .collect()
}

fn mismatch((component, function): &Station<'_>, what: String) -> RuntimeError {
    RuntimeError::Mismatch {
        component: component.role.name(),
        function: function.name.clone(),
        what,
    }
}

/// The shape of the hidden states of `tokens` tokens that a component takes.
fn taken(station: Option<&Station<'_>>, tokens: usize) -> Option<Vec<usize>> {
    let is_hidden = |input: &&TensorSpec| input.name == HIDDEN;
    let (_, function) = station?;
    match &function.inputs.iter().find(is_hidden)?.shape {
        Shape::Fixed(shape) => Some(shape.clone()),
        Shape::Enumerated(shapes) => shapes
            .iter()
            .find(|shape| shape.get(1) == Some(&tokens))
            .cloned(),
        Shape::Dynamic => None,
    }
}

/// The input that takes what the component before gave.
const HIDDEN: &str = "hidden_states";

fn bind(
    declared: &FunctionSpec,
    inputs: &Inputs,
    hidden: Option<BufferId>,
) -> Result<Vec<(String, BufferId)>, String> {
    let bind = |input: &TensorSpec| {
        let buffer = match input.name.as_str() {
            "input_ids" => inputs.ids,
            HIDDEN => hidden.ok_or("it takes hidden states that nothing gives")?,
            "position_ids" => inputs.positions,
            "causal_mask" => inputs.mask,
            "current_pos" => inputs.current,
            other => return Err(format!("nothing is known to give its input {other}")),
        };
        Ok((input.name.clone(), buffer))
    };
    declared.inputs.iter().map(bind).collect()
}
