//! A call of the plan as Core ML takes it: inputs and output backings bound once, a prediction, and
//! a look at where its outputs landed.

use objc2::AnyThread;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2_core_ml::{
    MLDictionaryFeatureProvider, MLFeatureProvider, MLFeatureValue, MLModel, MLPredictionOptions,
    MLState,
};
use objc2_foundation::{NSDictionary, NSString};

use super::super::contract::{BufferId, CallSpec};
use super::buffer::Buffer;
use super::objc;

/// A call, ready to be made any number of times.
pub struct Call {
    /// For errors.
    pub component: String,
    /// For errors.
    pub function: String,
    model: Retained<MLModel>,
    inputs: Retained<MLDictionaryFeatureProvider>,
    /// Names the buffers that outputs are to land in; without them Core ML allocates its own.
    backed: Retained<MLPredictionOptions>,
    plain: Retained<MLPredictionOptions>,
    outputs: Vec<(Retained<NSString>, BufferId)>,
    backings: Backings,
}

/// Whether a call's output backings work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backings {
    /// No prediction yet.
    Untried,
    /// A prediction went through with them.
    Accepted,
    /// Predictions fail with them and go through without them.
    Refused,
}

impl Call {
    /// Binds the buffers of `spec` to its names.
    pub fn new(
        spec: &CallSpec,
        model: &Retained<MLModel>,
        buffers: &[Buffer],
    ) -> Result<Self, String> {
        let buffer = |id: BufferId| {
            buffers
                .get(id.0)
                .ok_or_else(|| format!("there is no buffer {}", id.0))
        };
        let mut values = Vec::with_capacity(spec.inputs.len());
        for (_, id) in &spec.inputs {
            // SAFETY: the value keeps the array, and both live as long as the call.
            values
                .push(unsafe { MLFeatureValue::featureValueWithMultiArray(buffer(*id)?.array()) });
        }
        let names: Vec<_> = spec
            .inputs
            .iter()
            .map(|(name, _)| objc::name(name))
            .collect();
        let values: Vec<&AnyObject> = values.iter().map(AsRef::as_ref).collect();
        let inputs = dictionary(&names, &values);
        // SAFETY: the dictionary holds feature values by names, which is what the provider takes.
        let inputs = unsafe {
            MLDictionaryFeatureProvider::initWithDictionary_error(
                MLDictionaryFeatureProvider::alloc(),
                &inputs,
            )
        }
        .map_err(|error| objc::text(&error))?;

        let mut arrays: Vec<&AnyObject> = Vec::with_capacity(spec.outputs.len());
        for (_, id) in &spec.outputs {
            arrays.push(buffer(*id)?.array());
        }
        let names: Vec<_> = spec
            .outputs
            .iter()
            .map(|(name, _)| objc::name(name))
            .collect();
        let outputs = dictionary(&names, &arrays);
        // SAFETY: the dictionary holds arrays by names, which is what backings are.
        let (backed, plain) = unsafe {
            let backed = MLPredictionOptions::new();
            backed.setOutputBackings(&outputs);
            (backed, MLPredictionOptions::new())
        };
        let ids = spec.outputs.iter().map(|(_, id)| *id);
        Ok(Self {
            component: spec.role.name(),
            function: spec.function.clone(),
            model: model.clone(),
            inputs,
            backed,
            plain,
            outputs: names.into_iter().zip(ids).collect(),
            backings: Backings::Untried,
        })
    }

    /// Predicts, and puts the outputs into their buffers. Returns how many had to be copied there.
    pub fn predict(
        &mut self,
        state: Option<&MLState>,
        buffers: &mut [Buffer],
    ) -> Result<u64, String> {
        match self.backings {
            Backings::Accepted => objc::guarded(|| self.run(&self.backed, state, buffers)),
            Backings::Refused => objc::guarded(|| self.run(&self.plain, state, buffers)),
            Backings::Untried => {
                let tried = objc::guarded(|| self.run(&self.backed, state, buffers));
                if tried.is_ok() {
                    self.backings = Backings::Accepted;
                    return tried;
                }
                // The same inputs write the same rows of the cache, so doing it again is harmless.
                let again = objc::guarded(|| self.run(&self.plain, state, buffers));
                if again.is_ok() {
                    self.backings = Backings::Refused;
                    return again;
                }
                // The first error is the one about what was asked for.
                tried
            }
        }
    }

    /// Whether predictions go through only without output backings.
    pub fn refuses_backings(&self) -> bool {
        self.backings == Backings::Refused
    }

    fn run(
        &self,
        options: &MLPredictionOptions,
        state: Option<&MLState>,
        buffers: &mut [Buffer],
    ) -> Result<u64, String> {
        let inputs = ProtocolObject::from_ref(&*self.inputs);
        // SAFETY: model, inputs, options and state are valid and used by this thread alone. No
        // pixel buffer is locked: every access to one ends before it returns.
        let outputs = unsafe {
            match state {
                Some(state) => self
                    .model
                    .predictionFromFeatures_usingState_options_error(inputs, state, options),
                None => self
                    .model
                    .predictionFromFeatures_options_error(inputs, options),
            }
        }
        .map_err(|error| objc::text(&error))?;
        let mut copied = 0;
        for (name, id) in &self.outputs {
            let buffer = buffers
                .get_mut(id.0)
                .ok_or_else(|| format!("there is no buffer {}", id.0))?;
            // SAFETY: properties without side effects.
            let landed = unsafe {
                outputs
                    .featureValueForName(name)
                    .and_then(|value| value.multiArrayValue())
            };
            let landed = landed.ok_or_else(|| format!("the output {name} did not come"))?;
            // Core ML may leave a backing aside; identity says so (MLPredictionOptions's
            // documentation of outputBackings).
            if !std::ptr::eq(&raw const *landed, buffer.array()) {
                buffer
                    .copy_from(&landed)
                    .map_err(|what| format!("the output {name}: {what}"))?;
                copied += 1;
            }
        }
        Ok(copied)
    }
}

fn dictionary(
    names: &[Retained<NSString>],
    values: &[&AnyObject],
) -> Retained<NSDictionary<NSString, AnyObject>> {
    let names: Vec<&NSString> = names.iter().map(|name| &**name).collect();
    NSDictionary::from_slices(&names, values)
}
