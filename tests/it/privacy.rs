//! Tests: privacy.
