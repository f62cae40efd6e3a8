//! What the portable engine computes on: the processor, unless the user chose a GPU by hand.
//!
//! Nothing is chosen silently, and nothing falls back: a GPU that is not there is an error, and the
//! router asks someone else.

use std::panic::catch_unwind;

use candle_core::{Device, DeviceLocation};

use super::error::{LoadError, LoadErrorKind, first_line};
use super::threads;
use crate::config::ComputeDevice;
use crate::inference::Placement;

/// The device, ready to compute on.
///
/// # Errors
/// When this build cannot compute on it, or the machine does not have it.
pub fn open(device: ComputeDevice) -> Result<Device, LoadError> {
    let first: fn() -> candle_core::Result<Device> = match device {
        ComputeDevice::Cpu => return Ok(Device::Cpu),
        ComputeDevice::Metal => || Device::new_metal(0),
        ComputeDevice::Cuda => || Device::new_cuda(0),
    };
    let name = device.as_str();
    guarded(first).map_err(|reason| {
        let (fact, next_step) = if is_built_in(device) {
            (
                format!("the device cannot be opened ({reason})"),
                "Check the driver, or set `local.device` to cpu.".to_owned(),
            )
        } else {
            (
                "this build does not compute on it".to_owned(),
                format!(
                    "Build with `cargo install --path . --locked --features {name}`, or set \
                     `local.device` to cpu."
                ),
            )
        };
        LoadError {
            kind: LoadErrorKind::Unsupported,
            file: format!("local.device {name}"),
            fact,
            next_step,
        }
    })
}

/// What `open` gives, or why it gives nothing. candle 0.11 takes Metal's first device out of the list
/// of all without looking whether there is one, and panics on a Mac without a GPU, as virtual ones are.
fn guarded(open: fn() -> candle_core::Result<Device>) -> Result<Device, String> {
    match catch_unwind(open) {
        Ok(opened) => opened.map_err(|error| first_line(&error)),
        Err(_) => Err("there is none, or its driver failed".to_owned()),
    }
}

/// Whether this build can compute on it at all.
#[must_use]
pub fn is_built_in(device: ComputeDevice) -> bool {
    match device {
        ComputeDevice::Cpu => true,
        ComputeDevice::Metal => cfg!(feature = "metal"),
        ComputeDevice::Cuda => cfg!(feature = "cuda"),
    }
}

/// What was asked for, before anything is loaded.
#[must_use]
pub fn requested(device: ComputeDevice) -> Placement {
    match device {
        ComputeDevice::Cpu => threads::requested(),
        ComputeDevice::Metal | ComputeDevice::Cuda => Placement {
            requested: device.as_str().to_owned(),
            observed: None,
        },
    }
}

/// What a model runs on whose tensors are on `opened`.
#[must_use]
pub fn observed(opened: &Device) -> Placement {
    let (device, gpu) = match opened.location() {
        DeviceLocation::Cpu => return threads::observed(),
        DeviceLocation::Cuda { gpu_id } => (ComputeDevice::Cuda, gpu_id),
        DeviceLocation::Metal { gpu_id } => (ComputeDevice::Metal, gpu_id),
    };
    Placement {
        requested: device.as_str().to_owned(),
        observed: Some(format!("{}, gpu {gpu}", device.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_a_gpu_that_is_not_built_in_says_what_to_do() {
        assert!(matches!(open(ComputeDevice::Cpu), Ok(Device::Cpu)));
        for device in [ComputeDevice::Metal, ComputeDevice::Cuda] {
            if is_built_in(device) {
                continue;
            }
            let error = open(device).unwrap_err();
            assert_eq!(error.kind, LoadErrorKind::Unsupported);
            let feature = format!("--features {}", device.as_str());
            assert!(error.next_step.contains(&feature), "{error}");
        }
    }

    #[test]
    fn a_list_without_devices_is_an_error_and_no_panic() {
        let error = guarded(|| Ok(Vec::new().swap_remove(0))).unwrap_err();
        assert!(error.contains("there is none"), "{error}");
        assert!(matches!(guarded(|| Ok(Device::Cpu)), Ok(Device::Cpu)));
    }
}
