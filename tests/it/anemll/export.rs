//! What ANEMLL's converter would declare for the tiny model, cut in any way, and the reference
//! algorithm over it, written without the pipeline under test.

use half::f16;
use tandem::backend::local::anemll::contract::{
    BufferId, BufferSpec, CallId, CallPlan, CallSpec, ComponentRuntime, ComponentSpec, Element,
    FunctionSpec, MAIN, Role, RuntimeError, Shape, StateId, StateSpec, TensorSpec,
};

pub const CACHE: &str = "model_model_kv_cache_0";

/// A way to cut the model into components.
#[derive(Debug, Clone)]
pub struct Export {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    pub context: usize,
    pub batch: usize,
    pub chunks: usize,
    /// Sizes of the logits parts.
    pub parts: Vec<usize>,
    pub argmax: bool,
    pub monolithic: bool,
}

impl Export {
    /// The bundle of the fixture.
    pub fn tiny() -> Self {
        Self {
            layers: 3,
            kv_heads: 2,
            head_dim: 32,
            hidden: 96,
            context: 512,
            batch: 64,
            chunks: 1,
            parts: vec![33; 16],
            argmax: false,
            monolithic: false,
        }
    }

    fn state(&self) -> StateSpec {
        StateSpec {
            name: CACHE.to_owned(),
            element: Element::Float16,
            shape: vec![2 * self.layers, self.kv_heads, self.context, self.head_dim],
        }
    }

    fn place(&self, tokens: usize) -> Vec<TensorSpec> {
        vec![
            tensor("position_ids", Element::Int32, &[tokens]),
            tensor(
                "causal_mask",
                Element::Float16,
                &[1, 1, tokens, self.context],
            ),
            tensor("current_pos", Element::Int32, &[1]),
        ]
    }

    fn head_outputs(&self) -> Vec<TensorSpec> {
        let count = self.parts.len();
        if self.argmax {
            return vec![
                tensor("argmax_idx", Element::Int32, &[count]),
                tensor("argmax_val", Element::Float16, &[count]),
            ];
        }
        let part = |(index, size): (usize, &usize)| {
            let name = format!("logits{}", index + 1);
            tensor(&name, Element::Float16, &[1, 1, *size])
        };
        let mut parts: Vec<TensorSpec> = self.parts.iter().enumerate().map(part).collect();
        // Declared order is not promised to be the numeric one.
        parts.reverse();
        parts
    }

    fn pass(&self, name: &str, tokens: usize, ids: bool, outputs: Vec<TensorSpec>) -> FunctionSpec {
        let mut inputs = vec![if ids {
            tensor("input_ids", Element::Int32, &[1, tokens])
        } else {
            tensor("hidden_states", Element::Float16, &[1, tokens, self.hidden])
        }];
        inputs.extend(self.place(tokens));
        FunctionSpec {
            name: name.to_owned(),
            inputs,
            outputs,
            states: vec![self.state()],
        }
    }

    fn hidden(&self, name: &str, tokens: usize) -> TensorSpec {
        tensor(name, Element::Float16, &[1, tokens, self.hidden])
    }

    /// All that the components declare.
    pub fn components(&self) -> Vec<ComponentSpec> {
        let out = |tokens| vec![self.hidden("output_hidden_states", tokens)];
        if self.monolithic {
            return vec![ComponentSpec {
                role: Role::Monolithic,
                functions: vec![
                    self.pass("infer", 1, true, self.head_outputs()),
                    self.pass("prefill", self.batch, true, out(1)),
                ],
            }];
        }
        let ids = Shape::Enumerated(vec![vec![1, 1], vec![1, self.batch]]);
        let mut components = vec![ComponentSpec {
            role: Role::Embeddings,
            functions: vec![FunctionSpec {
                name: MAIN.to_owned(),
                inputs: vec![TensorSpec {
                    name: "input_ids".to_owned(),
                    element: Element::Int32,
                    shape: ids,
                }],
                outputs: vec![TensorSpec {
                    name: "hidden_states".to_owned(),
                    element: Element::Float16,
                    shape: Shape::Dynamic,
                }],
                states: Vec::new(),
            }],
        }];
        for chunk in 1..=self.chunks {
            let last = chunk == self.chunks;
            components.push(ComponentSpec {
                role: Role::Ffn {
                    chunk,
                    of: self.chunks,
                },
                functions: vec![
                    self.pass("infer", 1, false, out(1)),
                    self.pass(
                        "prefill",
                        self.batch,
                        false,
                        out(if last { 1 } else { self.batch }),
                    ),
                ],
            });
        }
        components.push(ComponentSpec {
            role: Role::LmHead,
            functions: vec![FunctionSpec {
                name: MAIN.to_owned(),
                inputs: vec![self.hidden("hidden_states", 1)],
                outputs: self.head_outputs(),
                states: Vec::new(),
            }],
        });
        components
    }
}

fn tensor(name: &str, element: Element, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        element,
        shape: Shape::Fixed(shape.to_vec()),
    }
}

/// The calls for some tokens at once, in order, and the buffers that they are fed through.
#[derive(Debug, Clone, Default)]
struct Lane {
    ids: Option<BufferId>,
    positions: Option<BufferId>,
    mask: Option<BufferId>,
    current: Option<BufferId>,
    calls: Vec<CallId>,
    outputs: Vec<(String, BufferId)>,
}

/// The reference algorithm: `infer` and `prefill` by hand.
pub struct Driver<R> {
    pub runtime: R,
    export: Export,
    plan: CallPlan,
    infer: Lane,
    prefill: Lane,
}

impl<R: ComponentRuntime> Driver<R> {
    pub fn new(mut runtime: R, export: &Export) -> Self {
        let (plan, infer, prefill) = plan(export);
        runtime.prepare(&plan).unwrap();
        Self {
            runtime,
            export: export.clone(),
            plan,
            infer,
            prefill,
        }
    }

    /// One batch that starts at `start`; ids are padded with 0.
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        start: usize,
        state: StateId,
    ) -> Result<(), RuntimeError> {
        self.run(
            &self.prefill.clone(),
            self.export.batch,
            tokens,
            start,
            state,
        )
    }

    /// One token at `position`; the outputs by name.
    pub fn infer(
        &mut self,
        token: u32,
        position: usize,
        state: StateId,
    ) -> Result<(), RuntimeError> {
        self.run(&self.infer.clone(), 1, &[token], position, state)
    }

    fn run(
        &mut self,
        lane: &Lane,
        count: usize,
        tokens: &[u32],
        start: usize,
        state: StateId,
    ) -> Result<(), RuntimeError> {
        let mut ids: Vec<i32> = tokens.iter().map(|id| *id as i32).collect();
        ids.resize(count, 0);
        let positions: Vec<i32> = (start as i32..).take(count).collect();
        let context = self.export.context;
        let mask: Vec<f16> = (start..start + count)
            .flat_map(|row| (0..context).map(move |slot| (slot <= row, row)))
            .map(|(allowed, _)| {
                if allowed {
                    f16::ZERO
                } else {
                    f16::NEG_INFINITY
                }
            })
            .collect();
        let runtime = &mut self.runtime;
        runtime.write_i32(lane.ids.unwrap(), 0, &ids);
        runtime.write_i32(lane.positions.unwrap(), 0, &positions);
        runtime.write_f16(lane.mask.unwrap(), 0, &mask);
        runtime.write_i32(lane.current.unwrap(), 0, &[start as i32]);
        for call in &lane.calls {
            let stateful = self.plan.calls[call.0].stateful;
            runtime.predict(*call, stateful.then_some(state))?;
        }
        Ok(())
    }

    /// Every prompt token in batches where they fit, the rest and the last one through `infer`.
    pub fn prompt(&mut self, tokens: &[u32], state: StateId) {
        let batch = self.export.batch;
        for (index, block) in tokens.chunks(batch).enumerate() {
            if (index + 1) * batch <= self.export.context {
                self.prefill(block, index * batch, state).unwrap();
            } else {
                for (position, token) in (index * batch..).zip(block) {
                    self.infer(*token, position, state).unwrap();
                }
            }
        }
        let last = tokens.len() - 1;
        self.infer(tokens[last], last, state).unwrap();
    }

    /// All logits, in the vocabulary's order.
    pub fn logits(&self) -> Vec<f32> {
        let part = |number: usize| self.floats(&format!("logits{number}"));
        (1..=self.export.parts.len()).flat_map(part).collect()
    }

    pub fn floats(&self, output: &str) -> Vec<f32> {
        let id = self.output(output);
        let mut values = vec![0.0; self.plan.buffers[id.0].elements()];
        self.runtime.read_f32(id, &mut values);
        values
    }

    pub fn integers(&self, output: &str) -> Vec<i32> {
        let id = self.output(output);
        let mut values = vec![0; self.plan.buffers[id.0].elements()];
        self.runtime.read_i32(id, &mut values);
        values
    }

    fn output(&self, name: &str) -> BufferId {
        let found = self.infer.outputs.iter().rev().find(|(it, _)| it == name);
        found.unwrap().1
    }

    /// The best token.
    pub fn token(&self) -> u32 {
        if self.export.argmax {
            let (indices, values) = (self.integers("argmax_idx"), self.floats("argmax_val"));
            let best = best(&values);
            let before: usize = self.export.parts[..best].iter().sum();
            return before as u32 + indices[best] as u32;
        }
        best(&self.logits()) as u32
    }

    /// Greedy tokens behind a prompt, as long as everything fits the context.
    pub fn greedy(&mut self, prompt: &[u32], steps: usize, state: StateId) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        self.prompt(prompt, state);
        for _ in 1..steps {
            tokens.push(self.token());
            let last = tokens.len() - 1;
            self.infer(tokens[last], last, state).unwrap();
        }
        tokens.push(self.token());
        tokens.split_off(prompt.len())
    }
}

fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// Every component once for one token and once for a batch.
pub fn plan_of(export: &Export) -> CallPlan {
    plan(export).0
}

fn plan(export: &Export) -> (CallPlan, Lane, Lane) {
    let mut plan = CallPlan::default();
    let infer = lane(export, &mut plan, 1);
    let prefill = lane(export, &mut plan, export.batch);
    (plan, infer, prefill)
}

fn lane(export: &Export, plan: &mut CallPlan, tokens: usize) -> Lane {
    let mut lane = Lane::default();
    let mut hidden = None;
    let function = if tokens == 1 { "infer" } else { "prefill" };
    for component in export.components() {
        if component.role == Role::LmHead && tokens > 1 {
            continue;
        }
        let spec = component.function(function).or(component.function(MAIN));
        let spec = spec.unwrap();
        let mut buffer = |tensor: &TensorSpec| {
            let shape = match &tensor.shape {
                Shape::Fixed(shape) => shape.clone(),
                Shape::Enumerated(_) => vec![1, tokens],
                Shape::Dynamic => vec![1, tokens, export.hidden],
            };
            plan.buffers.push(BufferSpec {
                element: tensor.element,
                shape,
            });
            BufferId(plan.buffers.len() - 1)
        };
        let inputs: Vec<(String, BufferId)> = spec
            .inputs
            .iter()
            .map(|tensor| {
                let known = match tensor.name.as_str() {
                    "hidden_states" => &mut hidden,
                    "input_ids" => &mut lane.ids,
                    "position_ids" => &mut lane.positions,
                    "causal_mask" => &mut lane.mask,
                    _ => &mut lane.current,
                };
                let id = *known.get_or_insert_with(|| buffer(tensor));
                (tensor.name.clone(), id)
            })
            .collect();
        let outputs = spec.outputs.iter();
        let outputs: Vec<(String, BufferId)> = outputs
            .map(|tensor| (tensor.name.clone(), buffer(tensor)))
            .collect();
        hidden = Some(outputs[0].1);
        lane.calls.push(CallId(plan.calls.len()));
        lane.outputs.extend(outputs.iter().cloned());
        plan.calls.push(CallSpec {
            role: component.role,
            function: spec.name.clone(),
            inputs,
            outputs,
            stateful: !spec.states.is_empty(),
        });
    }
    lane
}
