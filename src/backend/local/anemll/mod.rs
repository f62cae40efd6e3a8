//! Qwen in ANEMLL's form: Core ML components with a KV cache as their state, driven from here.

pub mod bundle;
#[cfg(target_os = "macos")]
pub mod candle_coreml;
pub mod choice;
pub mod contract;
#[cfg(target_os = "macos")]
pub mod coreml;
pub mod described;
pub mod instant;
pub mod layout;
pub mod loading;
pub mod mask;
pub mod model;
pub mod pipeline;
pub mod plan;
pub mod preflight;
pub mod reference;
pub mod runtimes;
pub mod trace;
pub mod verify;
