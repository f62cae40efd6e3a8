//! One process that holds the models, and the sessions that share it.

mod client;
mod fake;
mod leaving;
mod program;
mod real;
mod server;
mod shared;
mod speaker;
