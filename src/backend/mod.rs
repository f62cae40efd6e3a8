//! The engines behind the router.

pub mod claude;
mod http;
pub mod local;
pub mod scripted;
pub mod server;
