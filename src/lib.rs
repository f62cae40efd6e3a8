//! Tandem: code completions and tools over LSP and MCP, from an on-device Qwen model, with Claude
//! behind it. `ARCHITECTURE.md` beside this file tells how the parts fit.

pub mod app;
pub mod backend;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod inference;
pub mod model;
pub mod next_edit;
pub mod postprocess;
pub mod prompt;
pub mod protocol;
pub mod router;
pub mod telemetry;
