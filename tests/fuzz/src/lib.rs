//! What the targets share: notifications made of the fuzzer's bytes, edits to files, and where those files stand.

#![forbid(unsafe_code)]

pub mod edits;
pub mod fields;
pub mod place;
pub mod tokens;

pub use libfuzzer_sys::{arbitrary, fuzz_target};
