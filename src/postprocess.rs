//! From what a model said to what a person would keep. Pure.

use crate::inference::{CompleteTask, EmptyReason};

/// Cuts a finished completion to what may be inserted at the cursor of `task`.
///
/// # Errors
/// The reason why nothing is left.
pub fn completion(task: &CompleteTask, text: &str) -> Result<String, EmptyReason> {
    let _ = task;
    if text.is_empty() {
        return Err(EmptyReason::ModelSilent);
    }
    if text.trim().is_empty() {
        return Err(EmptyReason::OnlyWhitespace);
    }
    Ok(text.to_owned())
}
