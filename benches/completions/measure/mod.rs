//! The pure half of the bench: where holes are cut, what is said about an answer, what a person at
//! the keyboard does. Tested with all else by `cargo test`, from tests/it/measure.rs.

pub mod controls;
pub mod edit;
pub mod holes;
pub mod person;
pub mod score;
pub mod syntax;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

/// Random numbers of their own for each purpose, so that more of one does not change another.
pub fn random(seed: u64, purpose: &str) -> StdRng {
    StdRng::from_seed(Sha256::digest(format!("{seed} {purpose}")).into())
}
