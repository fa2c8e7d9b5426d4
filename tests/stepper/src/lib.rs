//! Stops a process at every instruction of what it does, so that it can be killed or disturbed there.
//!
//! A *victim* is a forked child that comes to the first instruction of a *region* and stops. The *survey* steps one
//! victim through the region, instruction by instruction, and notes the way. Then, for each instruction, a new victim is
//! brought to the same beginning, run up to that instruction, and handed to the scenario, which kills it (SIGKILL, what
//! `kill -9` does) and looks at what it left behind.
//!
//! # How a victim comes to its instruction
//!
//! Single steps alone would cost the square of the region's length. So it runs freely to an instruction at or before that
//! one, where a hardware breakpoint stops it each time that it comes by, and is stepped from there: whatever takes fewest
//! stops. In straight code that is one stop; in a loop, one for each turn.
//!
//! Where it stopped is compared with the survey. The way can differ (the heap is in another state, a clock is read
//! while the kernel updates it), and then the victim is struck at another instruction than was meant: that is counted as
//! *drifted*, and only a part of the points may be.
//!
//! - [`board`]: what victim and stepper tell each other.
//! - [`victim`]: the traced process.
//! - [`walk`]: the survey, the points, the count.

#![deny(unsafe_code)]

pub mod board;
pub mod victim;
pub mod walk;

pub use board::Board;
pub use victim::{Stopped, Victim};
pub use walk::{Floor, Pace, Scenario, Walk};
