//! A model file of any bytes: an error or a model, with no more memory than the file is large.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tandem::backend::local::gguf::Gguf;

fuzz_target!(|bytes: &[u8]| {
    match Gguf::open(Cursor::new(bytes), "fuzz.gguf") {
        Ok(file) => assert!(file.elements() <= bytes.len().saturating_mul(8)),
        Err(error) => assert!(error.to_string().ends_with('.'), "{error}"),
    }
});
