//! The atomics that processes share, and their fences.
//!
//! In the models (see `loom`) they are loom's, so that it sees every order in which the loads and stores of this very
//! code can take effect. Whatever lives in a segment takes its atomics from here.

#[cfg(not(bellwire_loom))]
pub(crate) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

#[cfg(bellwire_loom)]
pub(crate) use crate::loom::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
