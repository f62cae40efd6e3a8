//! Everything that is tested through more than one module, in one binary.

mod claude;
mod cli;
mod config;
mod engine;
mod lsp;
mod mcp;
mod privacy;
mod router;
mod stdio;
mod support;
mod tidy;
