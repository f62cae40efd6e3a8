//! Which model files there are and where they come from.
