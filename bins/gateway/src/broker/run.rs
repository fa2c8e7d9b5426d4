//! The broker's thread: rounds while there is something, else answers, retention, sleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bellwire::{LANES_MAX, ReaderOptions, Waker};

use super::counters::BrokerCounters;
use super::dedup::DEDUP_WINDOW_MAX;
use super::intake::Intake;
use super::queries::{self, Answers, StreamQueries};
use super::rebuild::{Highest, Rebuild};
use super::retention::Retention;
use super::rounds::{Lane, Rounds};
use super::source::Bus;
use super::{BrokerConfig, ShardSignal, StartError, StopError};
use crate::clock::wall_ns;
use bellwire_journal::{Journal, JournalError, JournalReader};

/// How often lanes that came or went are looked for, and the longest sleep.
const DISCOVERY: Duration = Duration::from_millis(100);
/// How often room is asked for while the disk is full.
const DISK_FULL_RETRY: Duration = Duration::from_millis(100);
/// How long questions wait at most while the disk is full.
const DISK_FULL_SLICE: Duration = Duration::from_millis(5);

/// Lanes that are gone and remembered in case they come back. At the bound further ones are not.
const HIGHEST_MAX: usize = 65_536;

/// A broker that runs.
pub struct BrokerRunning {
    reader: JournalReader,
    queries: StreamQueries,
    counters: Arc<BrokerCounters>,
    stop: Arc<Stop>,
    waker: Waker,
    ended: Receiver<()>,
    thread: JoinHandle<Result<(), StopError>>,
}

/// The wish that the broker stops.
#[derive(Debug, Default)]
struct Stop {
    is_wanted: AtomicBool,
    deadline: Mutex<Option<Instant>>,
}

impl Stop {
    /// Until when the lanes may be drained, if stopping is wanted.
    fn deadline(&self) -> Option<Instant> {
        if !self.is_wanted.load(Ordering::Acquire) {
            return None; // pairs with the Release in `BrokerRunning::stop`
        }
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the journal, rebuilds the tables from it, opens the bus, and starts the thread.
///
/// # Errors
/// [`StartError`]: another gateway has the journal or the consumer's name, a file is damaged or foreign, the disk is full.
pub fn start(config: BrokerConfig, shards: Vec<Arc<dyn ShardSignal>>) -> Result<BrokerRunning, StartError> {
    if config.dedup_window > DEDUP_WINDOW_MAX {
        return Err(StartError::DedupWindow { found: config.dedup_window });
    }
    let begun = Instant::now();
    let mut rebuild = Rebuild::new(config.dedup_window);
    let (mut journal, recovered) = Journal::open_with(config.journal, wall_ns(), &mut rebuild)?;
    let mut options = ReaderOptions::new().spin(config.spin);
    if let Some(group) = config.group {
        options = options.group(group);
    }
    let bus = Bus::new(options.open(&config.bus, &config.consumer)?);
    let is_short = recovered.entries > 0 && is_short_of(bus.mark(), &journal);
    if is_short {
        journal.begin_streams_anew(wall_ns())?;
    }
    let streams_are_over = recovered.streams_are_over || is_short;
    let (streams, dedup, highest) = rebuild.finish(journal.generation(), streams_are_over);
    tracing::info!(
        entries = recovered.entries,
        segments = recovered.segments,
        summarised = recovered.summarised,
        streams = streams.len(),
        took_ms = begun.elapsed().as_millis() as u64,
        "journal opened"
    );

    let waker = bus.waker();
    let (queries, answers) = queries::channel(waker.clone());
    let counters = Arc::new(BrokerCounters::default());
    let stop = Arc::new(Stop::default());
    let reader = journal.reader();
    let retention = Retention::new(journal.reader());
    let intake = Intake { journal, streams, dedup, now: 0 };
    let rounds = Rounds::new(bus, intake, Arc::clone(&counters), shards, wall_ns);
    let broker = Broker {
        rounds,
        highest,
        answers,
        retention,
        stop: Arc::clone(&stop),
        full: None,
        refused: Vec::new(),
    };
    let (tell_end, ended) = sync_channel(1);
    let core = config.core;
    let thread = std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
        bind_to(core);
        let counters = Arc::clone(&broker.rounds.counters);
        // Dropped on every way out, a panic included: then `stop` need not wait for the deadline.
        let _tell_end = tell_end;
        let mut watch = Watch { counters: &counters, has_ended: false };
        let result = broker.run();
        watch.has_ended = !matches!(result, Err(StopError::Failed(_) | StopError::Cursors(_)));
        result
    });
    let thread = thread.map_err(StartError::Thread)?;
    Ok(BrokerRunning { reader, queries, counters, stop, waker, ended, thread })
}

/// Says that the broker failed, unless it came to its end; also when it panics.
struct Watch<'a> {
    counters: &'a BrokerCounters,
    has_ended: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.counters.failed.store(!self.has_ended, Ordering::Relaxed); // for a look now and then
    }
}

impl BrokerRunning {
    /// A reader of the journal; clone it for each shard.
    pub fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    /// Asks for the state of streams.
    pub fn queries(&self) -> StreamQueries {
        self.queries.clone()
    }

    /// What the broker counts.
    pub fn counters(&self) -> Arc<BrokerCounters> {
        Arc::clone(&self.counters)
    }

    /// Whether the thread still runs. If it does not and nobody stopped it, [`stop`](Self::stop) tells why.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Reads what is in the lanes now, publishes and syncs it, commits the cursors, and ends the thread.
    ///
    /// # Errors
    /// [`StopError`]: it could not do all of that by the deadline. Nothing is lost: what is not committed is still in the
    /// lanes.
    pub fn stop(self, deadline: Duration) -> Result<(), StopError> {
        let begun = Instant::now();
        *self.stop.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun + deadline);
        self.stop.is_wanted.store(true, Ordering::Release); // pairs with the Acquire in `Stop::deadline`
        self.waker.wake();
        // A little longer than the deadline that the thread keeps by itself: it still has to commit and sync.
        match self.ended.recv_timeout(deadline + Duration::from_millis(500)) {
            Err(RecvTimeoutError::Timeout) => return Err(StopError::Deadline { waited: begun.elapsed() }),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
        }
        self.thread.join().map_err(|_| StopError::Panicked)?
    }
}

/// The thread's own.
struct Broker {
    rounds: Rounds<Bus>,
    highest: Highest,
    answers: Answers,
    retention: Retention,
    stop: Arc<Stop>,
    /// Since when the disk has been full.
    full: Option<Instant>,
    /// Lanes that were refused at the last look, and why, so that each is reported once.
    refused: Vec<(String, String)>,
}

impl Broker {
    fn run(mut self) -> Result<(), StopError> {
        let mut looked_at: Option<Instant> = None;
        loop {
            if let Some(deadline) = self.stop.deadline() {
                return self.drain(deadline);
            }
            if looked_at.is_none_or(|at| at.elapsed() >= DISCOVERY) {
                looked_at = Some(Instant::now());
                self.verify()?;
                self.look_for_lanes();
            }
            let read = self.round().map_err(StopError::Failed)?;
            self.answer();
            let is_busy = self.retention.step(&mut self.rounds.intake);
            if self.full.is_some() {
                self.wait_for_room();
            } else if read == 0 && !is_busy {
                self.rounds.count_journal();
                self.rounds.source.wait(DISCOVERY);
                self.know_lanes();
            }
        }
    }

    /// Whether what the broker writes is still there: the journal and its own cursors.
    fn verify(&self) -> Result<(), StopError> {
        let journal = self.rounds.intake.journal.verify().map_err(StopError::Failed);
        let cursors = self.rounds.source.verify().map_err(StopError::Cursors);
        let verified = journal.and(cursors);
        if let Err(error) = &verified {
            tracing::error!(%error, "the broker stops");
        }
        verified
    }

    /// One round, or none while the disk is full; fails only for good.
    fn round(&mut self) -> Result<usize, JournalError> {
        match self.rounds.round() {
            Ok(read) => {
                self.has_room();
                Ok(read)
            }
            Err(error) if error.is_no_room() => {
                self.has_no_room(&error);
                Ok(0)
            }
            Err(error) => {
                tracing::error!(%error, "the journal failed; the broker stops");
                Err(error)
            }
        }
    }

    fn answer(&mut self) {
        let Intake { journal, streams, .. } = &mut self.rounds.intake;
        let count = self.answers.answer(streams, journal.start(), journal.end());
        self.rounds.counters.queries.add(count);
    }

    fn has_no_room(&mut self, error: &JournalError) {
        if self.full.is_none() {
            self.full = Some(Instant::now());
            self.rounds.counters.disk_full.store(true, Ordering::Relaxed); // for people
            self.rounds.counters.disk_full_total.add(1);
            tracing::error!(%error, "there is no room for the journal: nothing is read until there is, and \
                producers will see full rings; nothing is lost");
        }
    }

    fn has_room(&mut self) {
        if let Some(since) = self.full.take() {
            self.rounds.counters.disk_full.store(false, Ordering::Relaxed); // for people
            tracing::info!(after_ms = since.elapsed().as_millis() as u64, "the journal has room again");
        }
    }

    /// Sleeps until room is asked for again, or stopping is wanted. Questions are answered meanwhile.
    fn wait_for_room(&mut self) {
        let until = Instant::now() + DISK_FULL_RETRY;
        while Instant::now() < until && self.stop.deadline().is_none() {
            // The bus's wait would end at once: there are records.
            std::thread::sleep(DISK_FULL_SLICE);
            self.answer();
            self.rounds.tell_time();
        }
    }

    fn look_for_lanes(&mut self) {
        self.rounds.counters.beats.add(1);
        let refresh = self.rounds.source.refresh();
        for name in refresh.detached {
            tracing::info!(lane = %name, "lane is gone");
        }
        // They are tried every second; in between there is nothing to tell.
        if !refresh.refused.is_empty() {
            let refused: Vec<_> =
                refresh.refused.into_iter().map(|(name, error)| (name, error.to_string())).collect();
            for (name, error) in refused.iter().filter(|lane| !self.refused.contains(lane)) {
                self.rounds.counters.refused.add(1);
                tracing::warn!(lane = %name, %error, "lane cannot be read");
            }
            self.refused = refused;
        }
        self.know_lanes();
    }

    /// Makes the rounds know the lanes that are attached now.
    fn know_lanes(&mut self) {
        for number in 0..LANES_MAX {
            let key = self.rounds.source.lane(number).map(|info| info.key());
            let known = self.rounds.lane(number).map(|lane| lane.key);
            if known.is_some()
                && known != key
                && let Some(lane) = self.rounds.set_lane(number, None)
            {
                self.rounds.counters.detach(&lane.counters);
                if self.highest.len() < HIGHEST_MAX {
                    self.highest.insert(lane.key, lane.highest);
                }
            }
            if known != key {
                self.begin_lane(number);
            }
            let Rounds { source, .. } = &self.rounds;
            let (Some(info), Some(lane)) = (source.lane(number), self.rounds.lane(number)) else { continue };
            for (count, lost) in lane.counters.lost.iter().zip(info.lost()) {
                if count.get() != lost {
                    tracing::error!(lane = %info.name(), lost, "records were overwritten before they were read");
                    count.set(lost);
                }
            }
        }
    }

    /// Reads the lane with that number from now on, if there is one.
    fn begin_lane(&mut self, number: usize) {
        let Some(info) = self.rounds.source.lane(number) else { return };
        tracing::info!(lane = %info.name(), key = info.key(), missed = ?info.missed(), "lane is read");
        let highest = self.highest.get(&info.key()).copied().unwrap_or_default();
        let counters = self.rounds.counters.attach(info.name(), info.key());
        for (count, missed) in counters.missed.iter().zip(info.missed()) {
            count.set(missed);
        }
        let lane = Lane::new(info.key(), counters, highest);
        self.rounds.set_lane(number, Some(lane));
    }

    /// Reads what is there now, and ends.
    fn drain(mut self, deadline: Instant) -> Result<(), StopError> {
        self.look_for_lanes();
        let ends = self.rounds.ends();
        loop {
            let read = self.round().map_err(StopError::Failed)?;
            self.answer();
            if self.full.is_some()
                || (read > 0 && !self.rounds.has_passed(&ends) && Instant::now() >= deadline)
            {
                self.rounds.intake.journal.sync().map_err(StopError::Failed)?;
                return Err(StopError::Undrained { disk_full: self.full.is_some() });
            }
            if read == 0 || self.rounds.has_passed(&ends) {
                break;
            }
        }
        self.rounds.intake.journal.close().map_err(StopError::Failed)
    }
}

/// The cursors say how far the journal was when they were committed: whether it ends before that, so that records which
/// clients may have seen are lost. (A mark before the journal's start is of a journal that was begun anew or passed by
/// retention; its numbers are known to be others.)
fn is_short_of(mark: u64, journal: &Journal) -> bool {
    if mark == 0 || (journal.start()..=journal.end()).contains(&mark) {
        return false;
    }
    let is_short = mark > journal.end();
    tracing::warn!(
        mark,
        start = journal.start(),
        end = journal.end(),
        all_streams_begin_anew = is_short,
        "the lanes' cursors belong to another state of the journal: what was read into a journal that is gone is lost"
    );
    is_short
}

fn bind_to(core: Option<usize>) {
    let Some(core) = core else { return };
    let mut cores = nix::sched::CpuSet::new();
    let bound =
        cores.set(core).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores));
    if let Err(error) = bound {
        tracing::warn!(core, %error, "the broker's thread cannot be bound to its core");
    }
}
