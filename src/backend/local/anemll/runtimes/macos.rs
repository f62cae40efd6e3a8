//! The runtimes that need Core ML.

use std::time::Duration;

use crate::backend::local::anemll::choice::RuntimeName;
use crate::backend::local::anemll::contract::{ComponentRuntime, RuntimeError};
use crate::backend::local::anemll::coreml::CoreMl;
use crate::backend::local::anemll::described::ComponentFile;

/// Loads every component.
pub(super) fn load(
    name: RuntimeName,
    files: &[ComponentFile],
) -> Result<Box<dyn ComponentRuntime>, RuntimeError> {
    match name {
        RuntimeName::CoreMl => Ok(Box::new(CoreMl::load(files, Duration::ZERO)?)),
        RuntimeName::CandleCoreMl | RuntimeName::Reference => {
            let what = format!("the runtime {name} is not part of this build");
            Err(RuntimeError::Resources { what })
        }
    }
}
