//! Qwen in ANEMLL's form: Core ML components with a KV cache as their state, driven from here.

pub mod bundle;
pub mod choice;
pub mod contract;
pub mod described;
pub mod layout;
pub mod reference;
pub mod trace;
pub mod verify;
