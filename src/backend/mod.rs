//! The engines behind the router.

pub mod local;
pub mod scripted;
