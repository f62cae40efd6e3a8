//! What Tandem speaks over stdio.

pub mod detect;
pub mod lsp;
pub mod mcp;
