//! The on-device engine.
