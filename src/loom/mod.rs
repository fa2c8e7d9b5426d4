//! Models: the code of this crate run by loom in every order that the memory model allows.
//!
//! Compiled only with `--cfg bellwire_loom`; `scripts/proofs/loom` runs them. There is no copy of anything in here: rings,
//! landmarks, cursors, acks and the doorbell are the code that production runs, with another ground under it.
//!
//! - [`atomic`]: loom's atomics in place of the processor's, and a way to weaken any single ordering.
//! - [`bytes`]: a ring's bytes as words that loom can see.
//! - [`kernel`]: membarrier and futex.
//! - [`segments`]: files in /dev/shm, and who finds them there.
//! - [`clock`]: time, which stands.
//! - [`models`]: what is run, and what must hold.
//!
//! A lane has fewer landmarks and a bus fewer lanes and consumers than in production, and its rings hold four or five
//! records: loom's state space grows exponentially with every load and store.
//!
//! What loom does not see: a load that takes effect after a later store of the same thread (it runs each thread in
//! program order; only what a load returns may be old). For the bytes of gated records [`bytes`] makes up for it by
//! checking that every read happens before the next write of the same bytes.

pub(crate) mod atomic;
pub(crate) mod bytes;
pub(crate) mod clock;
pub(crate) mod kernel;
#[cfg(test)]
mod models;
pub(crate) mod segments;
