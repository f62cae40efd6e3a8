//! The LSP server in memory, driven by a client of ours.

pub mod client;

mod actions;
mod bad_input;
mod commit;
mod completion;
mod session;
mod settings;
mod sync;
mod typed_along;
