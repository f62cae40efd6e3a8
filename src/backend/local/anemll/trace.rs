//! Records every call of a runtime: what went in, what came out, and what the state then held.
//!
//! The record is a check list, not a dump: of each tensor the sums and the first values, so that a
//! run can be held to another one's, made by another engine or another implementation.

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use serde::{Serialize, Serializer};

use super::contract::{
    BufferId, CallId, CallPlan, CallSpec, ComponentRuntime, ComponentSpec, Element, Observed,
    RuntimeError, StateId,
};

/// One prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallRecord {
    /// Its number, from 0.
    pub i: usize,
    /// The component, such as `ffn_chunk_01of01`.
    pub component: String,
    /// The function.
    pub function: String,
    /// Its inputs, in the plan's order.
    #[serde(serialize_with = "as_map")]
    pub inputs: Vec<(String, TensorRecord)>,
    /// Its outputs; empty when the prediction failed.
    #[serde(serialize_with = "as_map")]
    pub outputs: Vec<(String, TensorRecord)>,
    /// The states afterwards, where the runtime shows them.
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub state_after: Vec<(String, StateRecord)>,
    /// The token with the largest logit, after a call that gives logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argmax: Option<usize>,
    /// The five largest logits, the largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top5: Vec<TokenLogit>,
    /// Why the prediction failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A token and its logit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenLogit {
    /// The token.
    pub id: usize,
    /// Its logit.
    pub logit: f32,
}

/// What is kept of a tensor. Sums are taken in double precision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorRecord {
    /// Its shape.
    pub shape: Vec<usize>,
    /// `float16`, `float32` or `int32`.
    pub dtype: &'static str,
    /// Of a mask: how many elements are minus infinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neg_inf: Option<usize>,
    /// The sum; of a mask, of the elements that are not minus infinity.
    #[serde(serialize_with = "number")]
    pub sum: f64,
    /// The sum of absolute values, of tensors of hidden states and logits.
    #[serde(
        serialize_with = "optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub abs_sum: Option<f64>,
    /// The first four elements in row-major order.
    #[serde(serialize_with = "numbers")]
    pub first4: Vec<f64>,
}

/// What is kept of a state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateRecord {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: &'static str,
    /// The sum of absolute values of each row.
    #[serde(serialize_with = "numbers")]
    pub abs_sum_by_row: Vec<f64>,
}

/// The records of a [`Traced`] runtime, readable while the runtime is elsewhere.
#[derive(Debug, Clone, Default)]
pub struct TraceLog {
    calls: Arc<Mutex<Vec<CallRecord>>>,
}

impl TraceLog {
    /// Takes the records made since the last time. Their numbers go on.
    #[must_use]
    pub fn take(&self) -> Vec<CallRecord> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut calls)
    }

    fn push(&self, record: CallRecord) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(record);
    }
}

/// A runtime whose every prediction is recorded.
pub struct Traced {
    inner: Box<dyn ComponentRuntime>,
    plan: CallPlan,
    log: TraceLog,
    next: usize,
}

impl Traced {
    /// Wraps `inner`, which is not prepared yet.
    #[must_use]
    pub fn new(inner: Box<dyn ComponentRuntime>) -> (Self, TraceLog) {
        let log = TraceLog::default();
        let traced = Self {
            inner,
            plan: CallPlan::default(),
            log: log.clone(),
            next: 0,
        };
        (traced, log)
    }

    fn record(&self, bindings: &[(String, BufferId)]) -> Vec<(String, TensorRecord)> {
        let record = |(name, id): &(String, BufferId)| {
            let spec = &self.plan.buffers[id.0];
            let record = match spec.element {
                Element::Int32 => {
                    let mut values = vec![0; spec.elements()];
                    self.inner.read_i32(*id, &mut values);
                    let values: Vec<f64> = values.into_iter().map(f64::from).collect();
                    TensorRecord::integers(&spec.shape, &values)
                }
                Element::Float16 | Element::Float32 => {
                    let values = self.floats(*id);
                    TensorRecord::floats(name, &spec.shape, spec.element, &values)
                }
            };
            (name.clone(), record)
        };
        bindings.iter().map(record).collect()
    }

    fn floats(&self, id: BufferId) -> Vec<f32> {
        let mut values = vec![0.0; self.plan.buffers[id.0].elements()];
        self.inner.read_f32(id, &mut values);
        values
    }

    /// All logits of a call in the vocabulary's order, if it gives any.
    fn logits(&self, call: &CallSpec) -> Vec<f32> {
        let part = |(name, id): &(String, BufferId)| {
            let number = match name.strip_prefix("logits")? {
                "" => 1_usize,
                digits => digits.parse().ok()?,
            };
            Some((number, *id))
        };
        let mut parts: Vec<(usize, BufferId)> = call.outputs.iter().filter_map(part).collect();
        parts.sort_by_key(|(number, _)| *number);
        parts.iter().flat_map(|(_, id)| self.floats(*id)).collect()
    }

    fn states(&self, call: &CallSpec, state: Option<StateId>) -> Vec<(String, StateRecord)> {
        let rows = state.and_then(|state| self.inner.state_rows(state));
        let declared = super::verify::function_of(self.inner.components(), call);
        let record = |(name, abs_sum_by_row): (String, Vec<f64>)| {
            let spec = declared?.states.iter().find(|spec| spec.name == name)?;
            let record = StateRecord {
                shape: spec.shape.clone(),
                dtype: dtype(spec.element),
                abs_sum_by_row,
            };
            Some((name, record))
        };
        rows.into_iter().flatten().filter_map(record).collect()
    }
}

/// The `count` largest of `logits`, the largest first, the lower token first where they are equal.
#[must_use]
pub fn largest(logits: &[f32], count: usize) -> Vec<TokenLogit> {
    let mut best: Vec<TokenLogit> = Vec::with_capacity(count + 1);
    for (id, logit) in logits.iter().copied().enumerate() {
        let at = best.partition_point(|other| other.logit.total_cmp(&logit).is_ge());
        if at < count {
            best.insert(at, TokenLogit { id, logit });
            best.truncate(count);
        }
    }
    best
}

fn dtype(element: Element) -> &'static str {
    match element {
        Element::Float16 => "float16",
        Element::Float32 => "float32",
        Element::Int32 => "int32",
    }
}

impl TensorRecord {
    fn integers(shape: &[usize], values: &[f64]) -> Self {
        Self {
            shape: shape.to_vec(),
            dtype: dtype(Element::Int32),
            neg_inf: None,
            sum: values.iter().sum(),
            abs_sum: None,
            first4: values.iter().take(4).copied().collect(),
        }
    }

    fn floats(name: &str, shape: &[usize], element: Element, values: &[f32]) -> Self {
        let wide = || values.iter().copied().map(f64::from);
        let masked = |value: &f64| *value == f64::NEG_INFINITY;
        let mask = name.ends_with("mask");
        Self {
            shape: shape.to_vec(),
            dtype: dtype(element),
            neg_inf: mask.then(|| wide().filter(masked).count()),
            sum: wide().filter(|value| !mask || !masked(value)).sum(),
            abs_sum: (!mask).then(|| wide().map(f64::abs).sum()),
            first4: wide().take(4).collect(),
        }
    }
}

impl ComponentRuntime for Traced {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn components(&self) -> &[ComponentSpec] {
        self.inner.components()
    }

    fn prepare(&mut self, plan: &CallPlan) -> Result<(), RuntimeError> {
        self.inner.prepare(plan)?;
        self.plan = plan.clone();
        Ok(())
    }

    fn make_state(&mut self) -> Result<StateId, RuntimeError> {
        self.inner.make_state()
    }

    fn drop_state(&mut self, state: StateId) {
        self.inner.drop_state(state);
    }

    fn state_bytes(&self) -> usize {
        self.inner.state_bytes()
    }

    fn write_i32(&mut self, buffer: BufferId, at: usize, values: &[i32]) {
        self.inner.write_i32(buffer, at, values);
    }

    fn write_f16(&mut self, buffer: BufferId, at: usize, values: &[f16]) {
        self.inner.write_f16(buffer, at, values);
    }

    fn predict(&mut self, call: CallId, state: Option<StateId>) -> Result<(), RuntimeError> {
        let Some(spec) = self.plan.calls.get(call.0).cloned() else {
            return self.inner.predict(call, state);
        };
        let mut record = CallRecord {
            i: self.next,
            component: spec.role.name(),
            function: spec.function.clone(),
            inputs: self.record(&spec.inputs),
            outputs: Vec::new(),
            state_after: Vec::new(),
            argmax: None,
            top5: Vec::new(),
            error: None,
        };
        self.next += 1;
        let predicted = self.inner.predict(call, state);
        match &predicted {
            Ok(()) => {
                record.outputs = self.record(&spec.outputs);
                record.state_after = self.states(&spec, state);
                record.top5 = largest(&self.logits(&spec), 5);
                record.argmax = record.top5.first().map(|best| best.id);
            }
            Err(error) => record.error = Some(error.to_string()),
        }
        self.log.push(record);
        predicted
    }

    fn read_f32(&self, buffer: BufferId, into: &mut [f32]) {
        self.inner.read_f32(buffer, into);
    }

    fn read_i32(&self, buffer: BufferId, into: &mut [i32]) {
        self.inner.read_i32(buffer, into);
    }

    fn state_rows(&self, state: StateId) -> Option<Vec<(String, Vec<f64>)>> {
        self.inner.state_rows(state)
    }

    fn observed(&self) -> Observed {
        self.inner.observed()
    }
}

/// Pairs as an object in their own order.
fn as_map<T: Serialize, S: Serializer>(
    pairs: &[(String, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// A number as JSON has it: whole ones without a fraction, and those that JSON lacks as text.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Up to here every whole number is one of double precision's.
        const WHOLE: f64 = 9_007_199_254_740_992.0;
        let Self(value) = *self;
        if value.is_nan() {
            serializer.serialize_str("nan")
        } else if value.is_infinite() {
            serializer.serialize_str(if value > 0.0 { "inf" } else { "-inf" })
        } else if value.fract() == 0.0 && value.abs() < WHOLE {
            serializer.serialize_i64(value as i64)
        } else {
            serializer.serialize_f64(value)
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Number(*value).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn optional_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(Number).serialize(serializer)
}

fn numbers<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().copied().map(Number))
}
