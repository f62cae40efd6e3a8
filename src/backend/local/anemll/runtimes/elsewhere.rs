//! Where there is no Core ML.

use crate::backend::local::anemll::choice::RuntimeName;
use crate::backend::local::anemll::contract::{ComponentRuntime, RuntimeError};
use crate::backend::local::anemll::preflight::ComponentFile;

/// None of the runtimes that need Core ML is here.
pub(super) fn load(
    name: RuntimeName,
    _files: &[ComponentFile],
) -> Result<Box<dyn ComponentRuntime>, RuntimeError> {
    let what = format!("the runtime {name} exists on macOS alone");
    Err(RuntimeError::Resources { what })
}
