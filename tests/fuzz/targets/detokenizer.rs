//! Bytes of tokens in any pieces: the text is that of the whole, and never broken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::backend::local::detokenizer::Detokenizer;

fuzz_target!(|tokens: Vec<Vec<u8>>| {
    let mut detokenizer = Detokenizer::default();
    let text: String = tokens.iter().map(|token| detokenizer.push(token)).collect();
    let bytes = tokens.concat();
    let whole = String::from_utf8_lossy(&bytes);
    // What may still become a character waits: at most three bytes, which read as one U+FFFD here.
    let rest = whole
        .strip_prefix(text.as_str())
        .expect("pieces are the start of the whole");
    assert!(rest.is_empty() || rest == "\u{fffd}", "{rest:?}");
});
