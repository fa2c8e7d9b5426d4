//! What systemd is told, and what it hands over. Without systemd nothing of this does anything.
//!
//! The *watchdog* is fed by the broker's progress, not by a timer: a gateway whose broker hangs is one that delivers nothing,
//! and is to be killed and started anew, whatever its other threads still do.

mod sockets;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

pub use sockets::{InheritError, inherited_listener};

/// Set once the service manager was told that we serve: a reload before that must not say it for us.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// It serves.
pub fn ready(status: &str) {
    IS_READY.store(true, Ordering::Relaxed); // a flag on its own
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; until it is dropped.
#[must_use]
pub fn reloading() -> Reloading {
    if IS_READY.load(Ordering::Relaxed) {
        // The time is asked for by Type=notify-reload, which tells an old READY from a new one by it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
    }
    Reloading(())
}

/// See [`reloading`].
#[derive(Debug)]
pub struct Reloading(());

impl Drop for Reloading {
    fn drop(&mut self) {
        if IS_READY.load(Ordering::Relaxed) {
            notify(&[NotifyState::Ready]);
        }
    }
}

/// It is ending: in order, and in its own time.
pub fn stopping() {
    IS_READY.store(false, Ordering::Relaxed); // as above
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Feeds the watchdog as long as `progress` gives another number each time; tells `status` along with it. Never returns. Without a
/// watchdog it only waits.
pub async fn feed_watchdog(progress: impl Fn() -> u64, status: impl Fn() -> String) {
    let Some(time) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut interval = tokio::time::interval(interval_of(time));
    // After a pause of the machine one meal is enough.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut fed_at = None;
    loop {
        interval.tick().await;
        let now = progress();
        if fed_at == Some(now) {
            tracing::error!(
                watchdog_ms = time.as_millis() as u64,
                "the broker makes no progress: the watchdog is not fed"
            );
            continue;
        }
        fed_at = Some(now);
        notify(&[NotifyState::Watchdog, NotifyState::Status(&status())]);
    }
}

/// Three meals in the time that the watchdog bears without: one may come late, one may be missed.
fn interval_of(watchdog: Duration) -> Duration {
    (watchdog / 3).max(Duration::from_millis(1))
}

fn notify(state: &[NotifyState<'_>]) {
    // Without a manager it does nothing. One that is gone is no reason to stop serving.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told of our state");
    }
}
