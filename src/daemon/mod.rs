//! One process a user that holds the models, and the backend that reaches it.
//!
//! [`server`] hosts backends and [`client`] is one: neither knows what a model is. The folder with the
//! socket and the locks is a [`Place`], what is said over the socket is in [`wire`].

mod build;
pub mod client;
mod frame;
// On other systems for its tests alone.
#[cfg(any(windows, test))]
mod pipe;
mod place;
mod readiness;
pub mod server;
mod spec;
mod start;
pub mod wire;

pub use build::Build;
pub use frame::{Frame, FrameError, HELLO_LIMIT, LIMIT, read};
#[cfg(windows)]
pub use pipe::leave_standard_handles;
pub use place::{Place, PlaceError};
pub use readiness::Readiness;
pub use spec::{ModelSpec, SpecSource};
pub use start::StartCommand;
