//! The model inside the binary.

/// Its name, wherever an answer comes from it.
pub const NAME: &str = "tandem-mini";

/// Its GGUF file.
pub const TANDEM_MINI: &[u8] = include_bytes!("../../../models/tandem-mini/tandem-mini.gguf");
