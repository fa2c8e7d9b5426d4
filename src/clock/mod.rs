//! The clocks: wall time for what people and other machines see, monotonic time for how long something took.

mod wall;

#[cfg(bellwire_loom)]
pub(crate) use crate::loom::clock::Instant;
/// For how long something took.
#[cfg(not(bellwire_loom))]
pub(crate) use std::time::Instant;

pub(crate) use wall::WallClock;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the Unix epoch. One vDSO call, no system call. 0 if the system has no such clock.
#[inline]
pub(crate) fn wall_ns() -> i64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Nanoseconds of the monotonic clock; differs between time namespaces.
#[inline]
pub(crate) fn monotonic_ns() -> i64 {
    read(ClockId::CLOCK_MONOTONIC)
}

#[inline]
fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
