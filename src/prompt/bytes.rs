//! A vocabulary for tests: a token for each byte, and Qwen's special tokens.

use super::Vocabulary;
use crate::inference::GenerateError;

const SPECIAL: [&str; 9] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|file_sep|>",
    "<think>",
    "</think>",
    "<|repo_name|>",
];

/// See the module.
pub struct Bytes;

impl Vocabulary for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn special(&self, text: &str) -> Option<u32> {
        let index = SPECIAL.iter().position(|special| *special == text)?;
        Some(256 + index as u32)
    }
}

/// The text of tokens; special ones in double brackets, so that they differ from text that looks
/// like them.
pub fn text_of(tokens: &[u32]) -> String {
    let mut bytes = Vec::new();
    for token in tokens {
        match u8::try_from(*token) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(format!("[{}]", SPECIAL[*token as usize - 256]).bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
