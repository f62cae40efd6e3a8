//! Everything that is tested through more than one module, in one binary.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops where it stands"
)]

mod allocations;
mod anemll;
mod claude;
mod cli;
mod completions;
mod config;
#[cfg(unix)]
mod daemon;
mod doctor;
mod engine;
mod lsp;
mod mcp;
mod model;
mod next_edit;
mod postprocess;
mod privacy;
mod router;
mod server;
mod stdio;
mod support;
mod tidy;
