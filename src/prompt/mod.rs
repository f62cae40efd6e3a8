//! Prompts: a task, a model's template and a token budget become text. Pure.

pub mod chat;
pub mod context;
mod extract;

pub use extract::Extractor;
