//! Tests: MCP over an in-memory pipe, line by line, with scripted backends behind the real router.

mod bad_input;
mod client;
mod lifecycle;
mod manifest;
mod program;
mod running;
mod tools;
