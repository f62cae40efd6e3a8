//! The pure half of the bench: what of a commit is typed when, and what a proposal is worth. Tested
//! with all else by `cargo test`, from tests/it/next_edit.rs.

pub mod fit;
pub mod judge;
pub mod occurrence;
pub mod steps;
