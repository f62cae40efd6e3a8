//! The LSP server in memory, driven by a client of ours.

pub mod client;
pub mod editor;

mod actions;
mod ahead;
mod bad_input;
mod commit;
mod completion;
mod next_edit;
mod odd_text;
mod pace;
mod session;
mod settings;
mod sync;
mod typed_along;
