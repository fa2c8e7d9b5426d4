//! Who is measured, one file each.

mod array_queue;
mod bare;
mod ice;
mod ours;
mod pipe;
mod ring_buffer;
mod shared;
mod socket;

use crate::ForPeer;
use crate::peer::Peer;

/// What the others are compared with.
pub const BARE: &str = bare::Bare::NAME;

/// The same where receivers sleep.
pub const BARE_PARKED: &str = bare::BareWithFutex::NAME;

/// Those that must never fail.
pub const OURS: [&str; 2] = [ours::Ready::NAME, ours::Ours::NAME];

macro_rules! peers {
    ($($peer:ty),+ $(,)?) => {
        /// Everybody's name.
        pub const NAMES: &[&str] = &[$(<$peer>::NAME),+];

        /// Does something with the peer of that name.
        pub fn for_name(name: &str, what: &mut impl ForPeer) {
            match name {
                $(<$peer>::NAME => what.with::<$peer>(),)+
                other => panic!("no peer {other}"),
            }
        }
    };
}

peers! {
    bare::Bare,
    bare::BareWithFutex,
    ours::Ready,
    ours::Ours,
    ice::Ice,
    ring_buffer::RingBuffer,
    array_queue::Queue,
    socket::Socket,
    pipe::Pipe,
}
