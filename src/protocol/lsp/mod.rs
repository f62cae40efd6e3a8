//! LSP, on tower-lsp.
