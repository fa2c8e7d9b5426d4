//! What can be seen of the gateway from here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::broker::BrokerCounters;
use crate::counts::Count;
use crate::shard::counters::Counters;

/// The broker's beat is looked at that often.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks without a beat after which the broker counts as stuck: it beats about ten times a second.
const LOOKS_WITHOUT_BEAT_MAX: u64 = 6;

/// The parts of a gateway as the admin listener sees them: what they count.
#[derive(Debug)]
pub struct Watched {
    pub(super) bus: String,
    /// Lanes of this group are trusted, besides our own.
    pub(super) group: Option<String>,
    /// The gateway's name as a consumer.
    pub(super) consumer: String,
    pub(super) gateway: String,
    pub(super) broker: Arc<BrokerCounters>,
    pub(super) shards: Vec<Arc<Counters>>,
    pub(super) started: Instant,
    pub(super) started_at: SystemTime,
    /// The journal's end when the gateway started: offsets do not begin at 0.
    journal_began: u64,
    is_draining: AtomicBool,
    beats: Count,
    looks_without_beat: Count,
}

impl Watched {
    /// A gateway with these parts.
    pub fn new(
        config: &crate::config::Config,
        broker: Arc<BrokerCounters>,
        shards: Vec<Arc<Counters>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bus: config.bus.name.clone(),
            group: config.bus.group.clone(),
            consumer: config.bus.consumer.clone(),
            gateway: config.listen.name.clone(),
            journal_began: broker.journal_end.get(),
            broker,
            shards,
            started: Instant::now(),
            started_at: SystemTime::now(),
            is_draining: AtomicBool::new(false),
            beats: Count::default(),
            looks_without_beat: Count::default(),
        })
    }

    /// Takes note that the gateway takes no new sessions any more.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed); // a hint for load balancers; nothing else hangs on it
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed) // as above
    }

    /// Looks whether the broker's thread goes on. The admin thread alone does this, every [`LOOK_EVERY`].
    pub(super) fn look(&self) {
        let beats = self.broker.beats.get();
        if beats == self.beats.get() {
            self.looks_without_beat.add(1);
        } else {
            self.beats.set(beats);
            self.looks_without_beat.set(0);
        }
    }

    /// Another number each time as long as the broker goes on, if it is asked for less than ten times a second.
    pub(crate) fn progress(&self) -> u64 {
        self.broker.beats.get()
    }

    pub(super) fn is_broker_stuck(&self) -> bool {
        self.looks_without_beat.get() >= LOOKS_WITHOUT_BEAT_MAX
    }

    /// Bytes that were published to the journal since the start.
    pub(super) fn journal_written(&self) -> u64 {
        self.broker.journal_end.get().saturating_sub(self.journal_began)
    }

    /// Bytes between the oldest entry that is kept and the published end.
    pub(super) fn journal_retained(&self) -> u64 {
        self.broker.journal_end.get().saturating_sub(self.broker.journal_start.get())
    }

    /// Health, the process, and the sums over everything.
    pub(crate) fn overview(&self) -> serde_json::Value {
        super::api::overview(self)
    }

    /// Sessions now.
    pub(crate) fn sessions(&self) -> u64 {
        self.sum(|shard| &shard.sessions)
    }

    /// The sum of a count over all shards.
    pub(super) fn sum(&self, count: impl Fn(&Counters) -> &Count) -> u64 {
        self.shards.iter().map(|shard| count(shard).get()).sum()
    }
}
