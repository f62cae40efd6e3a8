//! Tests: claude.
