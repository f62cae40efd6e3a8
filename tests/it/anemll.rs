//! ANEMLL's Core ML pipeline, everywhere but on the chip itself: held to Hugging Face and to ANEMLL's
//! own model on a tiny random bundle (`tests/fixtures/anemll-tiny/README.md`).

mod bundle;
mod export;
mod generate;
mod odd;
mod pipeline;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

fn tokens(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}
