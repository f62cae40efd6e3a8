//! What a backend has done so far and holds now, in numbers.

use serde::{Deserialize, Serialize};

/// Counts since the backend was made, and sizes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// How often the model was loaded, or a load was tried.
    pub loads: u64,
    /// Requests that have not been begun.
    pub waiting: usize,
    /// Requests that are being answered.
    pub active: usize,
    /// Requests that were answered to the end.
    pub answered: u64,
    /// Requests that ended by a failure.
    pub failed: u64,
    /// Requests whose reader went away before the end.
    pub cancelled: u64,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Those of them that were found in the KV cache.
    pub cached_tokens: u64,
    /// Tokens of all answers.
    pub completion_tokens: u64,
    /// Tokens that were looked up and computed ahead.
    pub drafted_tokens: u64,
    /// Those of them that came.
    pub accepted_tokens: u64,
    /// Tokens a second of the last answer, after its first token; 0 before there was one.
    pub tokens_per_second: f64,
    /// Sequences in the KV cache, at rest.
    pub kv_sequences: usize,
    /// Bytes that they occupy.
    pub kv_bytes: usize,
}
