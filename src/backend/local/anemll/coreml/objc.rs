//! The border to Objective-C: exceptions and errors become text, numbers and names become ours, and
//! what a call leaves behind is freed when it returns.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use objc2::rc::{Retained, autoreleasepool};
use objc2_foundation::{
    NSArray, NSError, NSNumber, NSOperatingSystemVersion, NSProcessInfo, NSString, NSURL,
};

use super::super::contract::RuntimeError;

/// The first macOS whose Core ML has states and functions.
const NEEDED: NSOperatingSystemVersion = NSOperatingSystemVersion {
    majorVersion: 15,
    minorVersion: 0,
    patchVersion: 0,
};

/// Runs `call` in an autorelease pool of its own, and turns an Objective-C exception into text.
///
/// Core ML throws where an argument is wrong beyond what it reports as an error. An exception on a
/// thread of Core ML's own ends the process all the same; nothing here can prevent that.
pub fn guarded<R>(call: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    // What `call` borrows may be half changed after an exception. The callers give up the
    // prediction or the load then, and every buffer is rewritten before it is read again.
    let caught = objc2::exception::catch(AssertUnwindSafe(|| autoreleasepool(|_| call())));
    caught.unwrap_or_else(|exception| {
        let what = exception.map_or_else(
            || "an exception without an object".to_owned(),
            |exception| format!("{exception:?}"),
        );
        Err(format!("Core ML threw {what}"))
    })
}

/// An error of Core ML with its domain and code, by which it is found elsewhere, and its cause.
pub fn text(error: &NSError) -> String {
    let mut text = format!(
        "{} ({} {})",
        error.localizedDescription(),
        error.domain(),
        error.code()
    );
    if let Some(reason) = error.localizedFailureReason() {
        text.push_str(": ");
        text.push_str(&reason.to_string());
    }
    text
}

/// Refuses a macOS without states and functions.
pub fn supported() -> Result<(), RuntimeError> {
    let process = NSProcessInfo::processInfo();
    if process.isOperatingSystemAtLeastVersion(NEEDED) {
        return Ok(());
    }
    let found = process.operatingSystemVersion();
    Err(RuntimeError::Resources {
        what: format!(
            "ANEMLL's models need macOS 15, and this is macOS {}.{}. Update macOS, or configure a \
             GGUF model.",
            found.majorVersion, found.minorVersion
        ),
    })
}

/// The address of a model's folder.
pub fn url(folder: &Path) -> Result<Retained<NSURL>, String> {
    NSURL::from_directory_path(folder)
        .ok_or_else(|| format!("{} is no path for Core ML", folder.display()))
}

/// A shape for Core ML.
pub fn numbers(shape: &[usize]) -> Retained<NSArray<NSNumber>> {
    let numbers: Vec<_> = shape.iter().map(|&n| NSNumber::new_usize(n)).collect();
    NSArray::from_retained_slice(&numbers)
}

/// A shape or strides from Core ML. A negative number, which no shape has, becomes one that fits
/// nowhere.
pub fn shape(numbers: &NSArray<NSNumber>) -> Vec<usize> {
    let number =
        |number: Retained<NSNumber>| usize::try_from(number.as_isize()).unwrap_or(usize::MAX);
    numbers.iter().map(number).collect()
}

/// A name for Core ML.
pub fn name(text: &str) -> Retained<NSString> {
    NSString::from_str(text)
}
