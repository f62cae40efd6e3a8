//! The engines behind the router.

pub mod claude;
pub mod local;
pub mod scripted;
