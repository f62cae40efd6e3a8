//! Models by name: the catalogue, the hub they come from, and the store they are kept in.
//!
//! A model is pulled once for all sessions of a user. Its commit is fixed, every file is held to its
//! size and hash before it counts, and the manifest, written last, is what makes a folder a model.

mod cache;
mod catalogue;
mod digest;
mod error;
mod hub;
mod library;
mod names;
mod pull;
mod store;
mod transfer;

pub use catalogue::{Catalogue, Entry, File, Fitness, Golden, Kind, Template, catalogue_schema};
pub use digest::sha256;
pub use error::{ModelError, ModelErrorKind};
pub use hub::{Hub, HubEnvironment, Limits, Token};
pub use library::Models;
pub use pull::{Observer, State, Step, pull, state};
pub use store::{Installed, KeptFile, Manifest, Store};
