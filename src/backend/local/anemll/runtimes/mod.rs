//! Opens a bundle's components with the runtime that was chosen by name.

#[cfg_attr(target_os = "macos", path = "macos.rs")]
#[cfg_attr(not(target_os = "macos"), path = "elsewhere.rs")]
mod system;

use std::path::Path;

use super::bundle::AnemllBundle;
use super::choice::{RuntimeName, System, to_try};
use super::contract::{ComponentRuntime, ComponentSpec};
use super::preflight::ComponentFile;
use super::reference::{ReferenceRuntime, weights_beside};
use crate::inference::{ErrorKind, GenerateError};

/// The components of `bundle`, loaded by the runtime `name`, on the thread that is to use them. The
/// reference runtime takes the model's weights from `weights`, or from the folder `hf` beside the
/// bundle's.
///
/// # Errors
/// [`ErrorKind::Unavailable`] where this system does not have the runtime or the weights are
/// missing, [`ErrorKind::Backend`] where the components cannot be loaded.
pub fn open(
    name: RuntimeName,
    bundle: &AnemllBundle,
    weights: Option<&Path>,
) -> Result<Box<dyn ComponentRuntime>, GenerateError> {
    if let Err(what) = to_try(Some(name), System::here()) {
        let (what, next_step) = what.split_once(". ").unwrap_or((&what, ""));
        return Err(GenerateError::new(ErrorKind::Unavailable, what, next_step));
    }
    if name == RuntimeName::Reference {
        let components: Vec<ComponentSpec> = bundle
            .components
            .iter()
            .map(|component| component.spec.clone())
            .collect();
        let beside = || weights_beside(&bundle.folder);
        let weights = weights.map_or_else(beside, Path::to_owned);
        return Ok(Box::new(ReferenceRuntime::load(&components, &weights)?));
    }
    let files: Vec<ComponentFile> = bundle.components.iter().map(Into::into).collect();
    Ok(system::load(name, &files)?)
}
