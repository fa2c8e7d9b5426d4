//! What the kernel can do for sleeping readers.

use crate::doorbell;

/// Features of the running kernel, as this process may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFeatures {
    /// `futex_waitv` (Linux 5.16): sleeping on all lanes at once. Without it a reader looks every millisecond.
    pub futex_waitv: bool,
    /// `membarrier` with its global expedited commands (Linux 4.16): sleeping readers need not be woken on suspicion. Without
    /// it a reader looks every millisecond.
    pub membarrier: bool,
}

/// Asks the kernel. It changes nothing.
pub fn kernel_features() -> KernelFeatures {
    KernelFeatures { futex_waitv: doorbell::has_waits_on_many(), membarrier: doorbell::has_barriers() }
}
