//! Qwen's arithmetic on processors: weights of few bits in the layout that products want, a KV cache in
//! pages, and threads for steps of milliseconds.
//!
//! [`model::Model`] is what the rest is for. It knows no file, no tokenizer and no request; it panics
//! where it is used against its word (a token beyond the vocabulary, another model's cache), so its
//! caller checks.
//!
//! Each kernel exists in plain Rust, which defines its result, and for instruction sets, which give the
//! same bits; [`kernels::Kernels::best`] chooses what proves that on the machine it runs on. All that is
//! unsafe is in `pool`, `memory` (a call of the system), the files of the instruction sets, and `x86` with
//! what several of them share.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
pub mod cache;
pub mod format;
pub mod kernels;
pub mod lanes;
pub mod matrix;
pub mod memory;
pub mod model;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod pool;
mod portable;
mod step;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;
