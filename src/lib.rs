//! Bellwire: a shared-memory notification bus for exchanges.
#![deny(unsafe_code)]

mod codec;
#[cfg(feature = "json")]
pub mod json;
pub mod notification;
mod record;

pub use codec::EncodeError;
pub use notification::*;
pub use record::{RECORD_ALIGN, RECORD_HEADER_LEN, RECORD_LEN_MAX, RecordError, RecordHeader, to_record};
