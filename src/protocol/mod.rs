//! What Tandem speaks over stdio.

pub mod lsp;
pub mod mcp;
