//! Ctrl-C and SIGTERM end `tail`, `publish` and `listen` in order; a second one ends them at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Tells whether somebody asked us to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes over the two signals.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up and kills.
            flag::register_conditional_default(signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    /// Leaves the signals to do what they do.
    pub(crate) fn never() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn asked(&self) -> bool {
        // Relaxed: the flag guards no other memory.
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps in parts, so that a signal ends it at once.
    pub(crate) fn sleep(&self, time: Duration) {
        const PART: Duration = Duration::from_millis(50);
        let until = Instant::now() + time;
        while !self.asked() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PART));
        }
    }
}
