//! The local engine: held to Hugging Face, fed with damaged files, driven as a backend.

pub mod backend;
mod bad_input;
mod golden;
mod grammar;
mod guide;
mod health;
mod lookup;
mod odd_schemas;
mod packed;
mod quantized;
mod worker;

use std::path::{Path, PathBuf};

use tandem::backend::local::ModelSource;
use tandem::backend::local::loader::{Loaded, load};
use tandem::config::{BundleRuntime, ComputeDevice};

/// Room for every golden prompt and answer.
const CONTEXT: usize = 512;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn load_fixture(name: &str) -> Loaded {
    load(
        &ModelSource::at(&fixture(name), BundleRuntime::Auto),
        CONTEXT,
        ComputeDevice::Cpu,
    )
    .unwrap()
}
