//! ANEMLL's Core ML pipeline, everywhere but on the chip itself: held to Hugging Face and to ANEMLL's
//! own model on a tiny random bundle (`tests/fixtures/anemll-tiny/README.md`).

mod bundle;
mod export;
mod pipeline;
mod reference;

use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}
