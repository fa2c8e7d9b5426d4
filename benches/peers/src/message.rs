//! The message: a stamp, a sequence number, and bytes that depend on it. 208 bytes in all.

/// Payload behind stamp and sequence, in bytes. It is ASCII, since one of the peers carries text.
pub const BODY_LEN: usize = 192;

/// Length in all.
pub const LEN: usize = 16 + BODY_LEN;

/// What peers that move bytes move.
pub type Bytes = [u8; LEN];

#[derive(Clone, Copy)]
pub struct Message {
    /// When it was sent, in nanoseconds of the monotonic clock; 0 if nobody asks.
    pub stamp: u64,
    pub sequence: u64,
    pub body: [u8; BODY_LEN],
}

impl Message {
    #[inline]
    pub fn new(sequence: u64, stamp: u64) -> Self {
        let mut body = [0; BODY_LEN];
        for (index, byte) in body.iter_mut().enumerate() {
            *byte = b'A' + ((sequence as u8).wrapping_add(index as u8) & 15);
        }
        Self { stamp, sequence, body }
    }

    #[inline]
    pub fn to_bytes(self) -> Bytes {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.stamp.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.body);
        bytes
    }
}

/// What the receiver does with each message: reads all of it, and checks it.
#[derive(Default)]
pub struct Check {
    pub received: u64,
    pub wrong: u64,
    expected: u64,
}

impl Check {
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let (head, body) = bytes.split_at(16);
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| head[at + index]));
        self.parts(number(8), body);
        number(0)
    }

    #[inline]
    pub fn parts(&mut self, sequence: u64, body: &[u8]) {
        let mut is_right = sequence == self.expected && body.len() == BODY_LEN;
        let mut differences = 0;
        for (index, byte) in body.iter().enumerate() {
            differences |= byte ^ (b'A' + ((sequence as u8).wrapping_add(index as u8) & 15));
        }
        is_right &= differences == 0;
        self.wrong += u64::from(!is_right);
        self.received += 1;
        self.expected = sequence + 1;
    }
}

/// Nanoseconds of the clock that all processes of the machine share.
#[inline]
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
