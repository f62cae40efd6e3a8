//! One function of one compiled model, loaded for the Neural Engine, and what it says of itself.

use objc2::rc::Retained;
use objc2_core_ml::{
    MLComputeUnits, MLFeatureDescription, MLModel, MLModelConfiguration, MLModelDescription,
};
use objc2_foundation::{NSDictionary, NSString};

use super::super::contract::{FunctionSpec, MAIN};
use super::super::described::{self, Described, DescribedState, DescribedTensor, ENUMERATED};
use super::super::preflight::ComponentFile;
use super::objc;

/// How a function is to be loaded: on CPU and Neural Engine, by its name where it has one.
///
/// The GPU stays out of it: with all units allowed Core ML may choose it, and then neither the speed
/// nor the numbers are those that were asked for.
pub fn configuration(function: &str) -> Retained<MLModelConfiguration> {
    // SAFETY: plain setters on an object made here.
    unsafe {
        let configuration = MLModelConfiguration::new();
        configuration.setComputeUnits(MLComputeUnits::CPUAndNeuralEngine);
        if function != MAIN {
            // A component without functions is loaded without a name: that is its only one.
            configuration.setFunctionName(Some(&objc::name(function)));
        }
        configuration
    }
}

/// Loads a function, and on the first time compiles it for the Neural Engine, which takes from
/// seconds to minutes.
pub fn load(file: &ComponentFile, function: &str) -> Result<Retained<MLModel>, String> {
    let url = objc::url(&file.path)?;
    let configuration = configuration(function);
    // SAFETY: both arguments are valid objects, and the call keeps what it needs.
    let model =
        unsafe { MLModel::modelWithContentsOfURL_configuration_error(&url, &configuration) };
    model.map_err(|error| objc::text(&error))
}

/// What a loaded function declares, in the order of `declared`.
pub fn spec(
    model: &MLModel,
    name: &str,
    declared: Option<&FunctionSpec>,
) -> Result<FunctionSpec, String> {
    // SAFETY: a property without side effects.
    let description = unsafe { model.modelDescription() };
    described::function(name, &describe(&description), declared)
}

fn describe(description: &MLModelDescription) -> Described {
    // SAFETY: properties without side effects.
    let (inputs, outputs, states) = unsafe {
        (
            description.inputDescriptionsByName(),
            description.outputDescriptionsByName(),
            description.stateDescriptionsByName(),
        )
    };
    Described {
        inputs: each(&inputs, tensor),
        outputs: each(&outputs, tensor),
        states: each(&states, state),
    }
}

fn each<T>(
    features: &NSDictionary<NSString, MLFeatureDescription>,
    of: fn(String, &MLFeatureDescription) -> T,
) -> Vec<T> {
    let (names, features) = features.to_vecs();
    names
        .iter()
        .zip(&features)
        .map(|(name, feature)| of(name.to_string(), feature))
        .collect()
}

fn tensor(name: String, feature: &MLFeatureDescription) -> DescribedTensor {
    // SAFETY: properties without side effects, here and below.
    let Some(array) = (unsafe { feature.multiArrayConstraint() }) else {
        return DescribedTensor {
            name,
            data_type: None,
            shape: Vec::new(),
            constraint: 0,
            enumerated: Vec::new(),
        };
    };
    let (data_type, shape, shapes) =
        unsafe { (array.dataType(), array.shape(), array.shapeConstraint()) };
    let constraint = unsafe { shapes.r#type() }.0;
    let enumerated = if constraint == ENUMERATED {
        let several = unsafe { shapes.enumeratedShapes() };
        several.iter().map(|shape| objc::shape(&shape)).collect()
    } else {
        Vec::new()
    };
    DescribedTensor {
        name,
        data_type: Some(data_type.0),
        shape: objc::shape(&shape),
        constraint,
        enumerated,
    }
}

fn state(name: String, feature: &MLFeatureDescription) -> DescribedState {
    // SAFETY: properties without side effects.
    let constraint = unsafe { feature.stateConstraint() };
    let found = constraint.map(|state| unsafe { (state.dataType(), state.bufferShape()) });
    DescribedState {
        name,
        data_type: found.as_ref().map(|(data_type, _)| data_type.0),
        shape: found.map_or_else(Vec::new, |(_, shape)| objc::shape(&shape)),
    }
}
