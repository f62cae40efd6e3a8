//! What Tandem speaks over stdio.

mod commit;
pub mod detect;
pub mod lsp;
pub mod mcp;
