//! What is run, and what must hold.
//!
//! Each model runs both sides in threads of their own: on the main thread, which waits for the others, loom finds next to
//! nothing to interleave. Each has a floor on the schedules that it explores.

mod bus;
mod gated;
mod handshake;
mod harness;
mod mutants;
mod tap;
mod waiting;
mod waking;
