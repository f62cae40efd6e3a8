//! One call of the plan, bound to its buffers: takes its inputs, refuses values that Core ML would
//! refuse, computes, and writes its outputs.

use std::ops::Range;

use candle_core::{Device, Tensor};
use half::slice::HalfFloatSliceExt;

use super::Buffer;
use super::arithmetic::{Cache, Model, Place};
use super::program::{ARGMAX, Mode, Pass, Program, Sink, Source, part_of};
use crate::backend::local::anemll::contract::{BufferId, BufferSpec, CallSpec, RuntimeError};
use crate::backend::local::error::first_line;

/// A call that is ready to run.
pub(super) struct BoundCall {
    component: String,
    function: String,
    /// Whether it takes a state.
    pub stateful: bool,
    tokens: usize,
    source: (Source, BufferId),
    pass: Option<BoundPass>,
    sink: BoundSink,
}

struct BoundPass {
    pass: Pass,
    position_ids: BufferId,
    causal_mask: BufferId,
    current_pos: BufferId,
}

enum BoundSink {
    Hidden(BufferId),
    Logits(Vec<(BufferId, Range<usize>)>),
    Argmax {
        index: BufferId,
        value: BufferId,
        parts: Vec<Range<usize>>,
    },
}

impl BoundCall {
    /// Binds a call whose names and element types are those that the program's function declares.
    ///
    /// # Errors
    /// What does not fit, where the declared shapes leave a choice.
    pub fn bind(
        program: &Program,
        call: &CallSpec,
        buffers: &[BufferSpec],
        model: &Model,
    ) -> Result<Self, String> {
        let shape_of = |id: BufferId| &buffers[id.0].shape[..];
        let config = model.config();
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let name = match program.source {
            Source::Ids => "input_ids",
            Source::Hidden => "hidden_states",
        };
        let source = bound(&call.inputs, name)?;
        let tokens = shape_of(source).get(1).copied().unwrap_or_default();
        let holds = |name: &str, id: BufferId, shape: &[usize]| {
            if shape_of(id) == shape {
                return Ok(id);
            }
            Err(format!(
                "{name} has the shape {:?}, for {tokens} tokens it must be {shape:?}",
                shape_of(id)
            ))
        };
        let pass = program.pass.clone().map(|pass| {
            let mask = bound(&call.inputs, "causal_mask")?;
            let context = shape_of(mask).last().copied().unwrap_or_default();
            let positions = bound(&call.inputs, "position_ids")?;
            Ok(BoundPass {
                pass,
                position_ids: holds("position_ids", positions, &[tokens])?,
                causal_mask: holds("causal_mask", mask, &[1, 1, tokens, context])?,
                current_pos: bound(&call.inputs, "current_pos")?,
            })
        });
        let pass: Option<BoundPass> = pass.transpose().map_err(|what: String| what)?;
        let sink = match &program.sink {
            Sink::Hidden(name) => {
                let last = pass.as_ref().is_some_and(|it| it.pass.last);
                let rows = if last { 1 } else { tokens };
                let out = bound(&call.outputs, name)?;
                BoundSink::Hidden(holds(name, out, &[1, rows, hidden])?)
            }
            Sink::Logits(parts) => {
                let part = |(name, rows): &(String, Range<usize>)| {
                    let out = bound(&call.outputs, name)?;
                    Ok((holds(name, out, &[1, 1, rows.len()])?, rows.clone()))
                };
                BoundSink::Logits(parts.iter().map(part).collect::<Result<_, String>>()?)
            }
            Sink::Argmax => {
                let [index, value] = ARGMAX;
                let (index, value) = (bound(&call.outputs, index)?, bound(&call.outputs, value)?);
                let count = buffers[index.0].elements();
                if buffers[value.0].elements() != count || count == 0 || count > vocabulary {
                    return Err("argmax_idx and argmax_val have not one element a part".to_owned());
                }
                let parts = (0..count).map(|part| part_of(part, count, vocabulary));
                BoundSink::Argmax {
                    index,
                    value,
                    parts: parts.collect(),
                }
            }
        };
        Ok(Self {
            component: call.role.name(),
            function: call.function.clone(),
            stateful: call.stateful,
            tokens,
            source: (program.source, source),
            pass,
            sink,
        })
    }

    /// Says that the call does not fit what is declared.
    pub fn mismatch(&self, what: &str) -> RuntimeError {
        RuntimeError::Mismatch {
            component: self.component.clone(),
            function: self.function.clone(),
            what: what.to_owned(),
        }
    }

    /// Computes. `cache` is there exactly when the call is stateful.
    ///
    /// # Errors
    /// [`RuntimeError::Predict`] for a token that the model does not have, a position outside the
    /// cache, or a failure of the arithmetic.
    pub fn run(
        &self,
        model: &Model,
        buffers: &mut [Buffer],
        cache: Option<&mut Cache>,
    ) -> Result<(), RuntimeError> {
        self.compute(model, buffers, cache)
            .map_err(|what| RuntimeError::Predict {
                component: self.component.clone(),
                function: self.function.clone(),
                what,
            })
    }

    fn compute(
        &self,
        model: &Model,
        buffers: &mut [Buffer],
        cache: Option<&mut Cache>,
    ) -> Result<(), String> {
        let failed = |error: candle_core::Error| first_line(&error);
        let (source, id) = self.source;
        let mut x = match source {
            Source::Ids => {
                let ids = token_ids(buffers[id.0].integers(), model.config().vocabulary)?;
                model.embed(&ids)
            }
            Source::Hidden => buffers[id.0].tensor((self.tokens, model.config().hidden)),
        }
        .map_err(failed)?;
        if let (Some(bound), Some(cache)) = (&self.pass, cache) {
            let place = bound.place(self.tokens, buffers, cache.context())?;
            let Pass { layers, mode, last } = bound.pass.clone();
            x = model.run(layers, x, &place, cache).map_err(failed)?;
            if last {
                x = match mode {
                    Mode::Infer => model.final_norm(&x),
                    Mode::Prefill => x.narrow(0, 0, 1),
                }
                .map_err(failed)?;
            }
        }
        match &self.sink {
            BoundSink::Hidden(id) => {
                let values = x.flatten_all().and_then(|x| x.to_vec1::<f32>());
                buffers[id.0].set(&values.map_err(failed)?);
            }
            BoundSink::Logits(parts) => {
                let logits = model.logits(&x).map_err(failed)?;
                for (id, rows) in parts {
                    buffers[id.0].set(&logits[rows.clone()]);
                }
            }
            BoundSink::Argmax {
                index,
                value,
                parts,
            } => {
                let logits = model.logits(&x).map_err(failed)?;
                let best = parts.iter().map(|rows| best_of(&logits[rows.clone()]));
                let (indices, values): (Vec<i32>, Vec<f32>) = best.unzip();
                if let Buffer::Int32(all) = &mut buffers[index.0] {
                    all.copy_from_slice(&indices);
                }
                buffers[value.0].set(&values);
            }
        }
        Ok(())
    }
}

impl BoundPass {
    fn place(&self, tokens: usize, buffers: &[Buffer], context: usize) -> Result<Place, String> {
        let current = buffers[self.current_pos.0].integers().first().copied();
        let current = current.unwrap_or_default();
        let slot = usize::try_from(current)
            .ok()
            .filter(|slot| slot + tokens <= context)
            .ok_or_else(|| {
                format!("current_pos {current} and {tokens} tokens leave the cache of {context}")
            })?;
        let positions = match self.pass.mode {
            Mode::Infer => vec![current],
            Mode::Prefill => buffers[self.position_ids.0].integers().to_vec(),
        };
        // ANEMLL's rotary table has twice as many positions as the context.
        let known = 0..2 * context as i32;
        if let Some(position) = positions.iter().find(|position| !known.contains(position)) {
            return Err(format!(
                "the position {position} is not in 0..{}",
                known.end
            ));
        }
        let mask = buffers[self.causal_mask.0].tensor((tokens, context));
        Ok(Place {
            positions,
            slot,
            mask: mask.map_err(|error| first_line(&error))?,
        })
    }
}

impl Buffer {
    fn integers(&self) -> &[i32] {
        match self {
            Self::Int32(all) => all,
            Self::Float16(_) | Self::Float32(_) => &[],
        }
    }

    fn tensor(&self, shape: (usize, usize)) -> candle_core::Result<Tensor> {
        let values = match self {
            Self::Float16(all) => all.to_f32_vec(),
            Self::Float32(all) => all.clone(),
            Self::Int32(all) => all.iter().map(|value| *value as f32).collect(),
        };
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    /// Replaces all of it, rounded to what it holds.
    fn set(&mut self, values: &[f32]) {
        match self {
            Self::Float16(all) => all.convert_from_f32_slice(values),
            Self::Float32(all) => all.copy_from_slice(values),
            Self::Int32(_) => {}
        }
    }
}

fn bound(bindings: &[(String, BufferId)], name: &str) -> Result<BufferId, String> {
    let found = bindings.iter().find(|(bound, _)| bound == name);
    found
        .map(|(_, id)| *id)
        .ok_or_else(|| format!("{name} is missing"))
}

fn token_ids(ids: &[i32], vocabulary: usize) -> Result<Vec<u32>, String> {
    let known = |id: &i32| {
        let row = u32::try_from(*id)
            .ok()
            .filter(|row| (*row as usize) < vocabulary);
        row.ok_or_else(|| format!("the token {id} is not in 0..{vocabulary}"))
    };
    ids.iter().map(known).collect()
}

/// The first of the largest values, compared in half precision as the program's output is.
fn best_of(values: &[f32]) -> (i32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in (0..).zip(values) {
        let value = half::f16::from_f32(*value).to_f32();
        if value > best.1 {
            best = (index, value);
        }
    }
    best
}
