//! The composition root: which backends there are, and what is built from the settings.
