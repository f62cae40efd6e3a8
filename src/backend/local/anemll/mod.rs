//! Qwen in ANEMLL's form: Core ML components with a KV cache as their state, driven from here.

pub mod bundle;
pub mod choice;
pub mod contract;
#[cfg(target_os = "macos")]
pub mod coreml;
pub mod described;
pub mod layout;
pub mod reference;
pub mod trace;
pub mod verify;
