//! The runtimes that need Core ML.

use std::time::Duration;

use crate::backend::local::anemll::candle_coreml::CandleCoreMl;
use crate::backend::local::anemll::choice::RuntimeName;
use crate::backend::local::anemll::contract::{ComponentRuntime, RuntimeError};
use crate::backend::local::anemll::coreml::CoreMl;
use crate::backend::local::anemll::preflight::ComponentFile;

/// How long each function's compute plan is waited for. The function is compiled by then, so its
/// plan is a matter of a second; a model does not wait long to serve for want of a figure.
const PLACEMENT_WAIT: Duration = Duration::from_secs(5);

/// Loads every component.
pub(super) fn load(
    name: RuntimeName,
    files: &[ComponentFile],
) -> Result<Box<dyn ComponentRuntime>, RuntimeError> {
    match name {
        RuntimeName::CoreMl => Ok(Box::new(CoreMl::load(files, PLACEMENT_WAIT)?)),
        RuntimeName::CandleCoreMl => Ok(Box::new(CandleCoreMl::load(files)?)),
        RuntimeName::Reference => Err(RuntimeError::Resources {
            what: "the reference runtime does not go through Core ML".to_owned(),
        }),
    }
}
