//! Opening a journal: what is there, what of it is whole, and where to go on.
//!
//! Each entry that is kept is handed to the caller, in order, its crc checked: he rebuilds his tables from them, and what
//! he checks on the way (sequences without gaps, back-links that meet) counts as well. In place of the entries of a full
//! segment he may get its [`summary`].
//!
//! # Torn or damaged
//!
//! A process that is killed leaves at most one entry that is not whole, and nothing behind it. So a bad entry at the very
//! end is *torn*: it is cut off, logged, and the journal goes on there. A bad entry that whole ones follow is *damage* and
//! an error, unless the machine was started anew since: then the kernel may have lost any page that was not synced, and
//! everything from the first bad entry on is cut off.
//!
//! # After a loss of power
//!
//! The end of the journal may be gone without a trace, and with it numbers that clients have seen. If those were given
//! out again, a client could resume behind records that it never got. The same holds for a last segment that somebody
//! truncated among its entries, whatever the policy, and for a journal that ends before what the lanes' cursors say
//! ([`Journal::begin_streams_anew`]). So, unless every published record was synced
//! (`sync = every`) or the gateway had come to an orderly end ([`Journal::close`]), the streams of what is left are over:
//! what comes goes into a new segment, whose header says from where on streams are *fresh*, under a new generation. The
//! old entries still serve to recognise what is sent again.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::append::{Journal, Words, activate, segment_name};
use super::error::JournalError;
use super::housekeeper::Housekeeper;
use super::layout::*;
use super::read::{Entry, Shared};
use super::segment::{Segment, SegmentWriter, allocate};
use super::summary::{self, EntryByEntry, Purpose, SummaryFacts, Tables, Task};
use super::{JournalConfig, SyncPolicy};

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Entries that are kept.
    pub entries: u64,
    /// Segment files that are kept.
    pub segments: usize,
    /// Of how many of them the summary was taken.
    pub summarised: usize,
    /// What was cut off, if anything.
    pub cut: Option<Cut>,
    /// Records that were published may have been lost, by a restart of the machine or a truncation: all streams begin anew.
    pub streams_are_over: bool,
    /// The last segment was truncated, and entries ran up to its new end.
    pub was_truncated: bool,
    /// The last segment was begun before the machine's last start.
    is_of_earlier_start: bool,
}

/// What was cut off the end of a journal, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub path: PathBuf,
    /// Place in the file.
    pub at: u64,
    /// Later segment files that were deleted with it.
    pub later_segments: usize,
    pub why: String,
}

/// A segment file whose header was checked.
struct Found {
    file: File,
    path: PathBuf,
    /// Length of the file as it was found.
    file_len: u64,
    header: SegmentHeader,
    generation: u32,
    used: u64,
    durable: bool,
    fresh_from: u64,
}

impl Journal {
    /// Opens the journal in `config.dir`, or begins a new one, and hands every entry to `replay`.
    ///
    /// It is also told whether the entry's stream goes on; see the module's head.
    ///
    /// If `replay` finds that an entry does not fit to those before it, it says what is wrong, and the entry counts as bad.
    ///
    /// # Errors
    /// [`JournalError`]: another process has it, a file is foreign, truncated or damaged, the disk is full.
    pub fn open(
        config: JournalConfig,
        now: i64,
        replay: &mut dyn FnMut(&Entry<'_>, bool) -> Result<(), String>,
    ) -> Result<(Self, Recovered), JournalError> {
        Self::open_with(config, now, &mut EntryByEntry(replay))
    }

    /// The same, for tables that can be rebuilt from summaries as well.
    ///
    /// # Errors
    /// As with [`open`](Self::open).
    pub fn open_with(
        config: JournalConfig,
        now: i64,
        tables: &mut dyn Tables,
    ) -> Result<(Self, Recovered), JournalError> {
        config.check()?;
        make_dir(&config.dir)?;
        let lock = lock_dir(&config.dir)?;
        let boot_id = boot_id();
        let found = find_segments(&config.dir)?;
        let mut recovered = Recovered::default();
        let mut fresh_from = found.iter().map(|found| found.fresh_from).max().unwrap_or_default();
        let mut taken = Taken::default();
        let (mut sealed, mut last, journal_id, mut generation) = if found.is_empty() {
            (VecDeque::new(), None, random(&config.dir)?.max(1), (random(&config.dir)? as u32 >> 1).max(1))
        } else {
            let generation = found.iter().map(|found| found.generation).max().unwrap_or(1);
            let journal_id = found[0].header.journal_id;
            taken = take_summaries(&found, boot_id, fresh_from, tables);
            let replay: &mut dyn FnMut(&Entry<'_>) -> Result<(), String> =
                &mut |entry| tables.entry(entry, entry.offset >= fresh_from);
            let (sealed, last) = walk_all(found, &taken, boot_id, &mut recovered, replay)?;
            (sealed, last, journal_id, generation)
        };
        if let Some(cut) = &recovered.cut {
            tracing::warn!(path = %cut.path.display(), at = cut.at, later_segments = cut.later_segments, why = %cut.why,
                "cut the end off the journal");
        }
        recovered.streams_are_over &= config.sync != SyncPolicy::Every;
        recovered.streams_are_over |= recovered.was_truncated;
        if recovered.streams_are_over || recovered.is_of_earlier_start {
            // A segment belongs to one start of the machine, so that the next recovery can tell what it must doubt.
            if let Some(writer) = last.take() {
                writer.seal();
                sealed.push_back(Arc::clone(writer.segment()));
            }
        }
        if recovered.streams_are_over {
            generation = generation.wrapping_add(1).max(1);
            fresh_from = sealed.back().map_or(0, |segment| segment.end());
            let cause =
                if recovered.was_truncated { "it was truncated" } else { "the machine was started anew" };
            tracing::warn!(cause, "the journal's end may be lost: all streams begin anew");
        }
        let writer = match last {
            Some(writer) => writer,
            None => {
                // A new journal begins at an offset that no other one has: what somebody remembers of a journal that was
                // lost is then known to be foreign.
                let base = match sealed.back() {
                    Some(segment) => segment.end(),
                    None => (random(&config.dir)? >> 40).max(1) << 36,
                };
                let blank = allocate(&config.dir.join("roll.prep"), config.segment_bytes)?;
                activate(blank, &config, journal_id, base, Words { generation, fresh_from, boot_id }, now)?
            }
        };
        if writer.segment().newest_at() == i64::MIN {
            writer.segment().set_newest_at(now);
        }
        let tasks: VecDeque<_> = sealed.iter().filter_map(|segment| taken.task(segment)).collect();
        sealed.push_back(Arc::clone(writer.segment()));
        recovered.segments = sealed.len();
        let retained_bytes = sealed.iter().map(|segment| segment.len()).sum();
        let tip = writer.offset();
        let shared = Arc::new(Shared::new(journal_id, sealed, tip));
        let is_durable = config.sync != SyncPolicy::None;
        let summaries = tables
            .summariser()
            .map(|summariser| summary::Keeper::new(Arc::clone(&shared), summariser, tasks, is_durable));
        let keeper = Housekeeper::start(&config, &shared, summaries)?;
        let journal = Self {
            shared,
            writer,
            config,
            keeper,
            generation,
            boot_id,
            fresh_from,
            room: None,
            tip,
            retained_bytes,
            opened: (now, Instant::now()),
            step: 0,
            _lock: lock,
        };
        // What is appended from now on is not on disk, whatever an orderly end had noted; and this must be, before.
        let was_closed = journal.writer.segment().clear_word(DURABLE_AT);
        if was_closed || (recovered.cut.is_some() && journal.config.sync != SyncPolicy::None) {
            journal.writer.segment().sync()?;
        }
        Ok((journal, recovered))
    }
}

fn make_dir(dir: &Path) -> Result<(), JournalError> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(JournalError::io(dir, "create the journal's directory")(error));
        }
        _ => {}
    }
    let mode = std::fs::metadata(dir).map_err(JournalError::io(dir, "look at"))?.mode() & 0o7777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(JournalError::Writable { path: dir.to_owned(), mode }) }
}

/// The kernel releases the lock when the process dies.
fn lock_dir(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(JournalError::io(&path, "open"))?;
    match lock.try_lock() {
        Ok(()) => {
            // For the one who finds it locked. It may fail: nothing depends on it.
            let _ = lock.write_all_at(format!("{:>10}\n", std::process::id()).as_bytes(), 0);
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            Err(JournalError::Owned { path: dir.to_owned(), pid: owner_pid(&path) })
        }
        Err(TryLockError::Error(error)) => Err(JournalError::io(&path, "lock")(error)),
    }
}

/// The pid in a lock file that another process has locked; 0 if it cannot be told. For a moment after locking, what stands
/// there is that of an owner before.
fn owner_pid(path: &Path) -> u32 {
    const MOMENT: Duration = Duration::from_secs(1);
    let until = Instant::now() + MOMENT;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let pid = text.trim().parse().unwrap_or_default();
        if Path::new(&format!("/proc/{pid}")).exists() || Instant::now() >= until {
            return pid;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Which start of the machine this is; zeros if the system does not say.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().parse::<bellwire::MessageId>().map_or([0; 16], bellwire::MessageId::to_bytes)
}

fn random(dir: &Path) -> Result<u64, JournalError> {
    getrandom::u64().map_err(|error| JournalError::io(dir, "draw a random number for")(error.into()))
}

/// The directory's segments by base, with their headers checked, each against its file and its neighbours.
fn find_segments(dir: &Path) -> Result<Vec<Found>, JournalError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(JournalError::io(dir, "list"))? {
        let path = entry.map_err(JournalError::io(dir, "list"))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            // Allocated ahead by a process that was killed.
            Some("prep") => std::fs::remove_file(&path).map_err(JournalError::io(&path, "delete"))?,
            Some("journal") => paths.push(path),
            // Left by a process that was killed while it deleted both.
            Some("summary") if !path.with_extension("journal").exists() => {
                summary::remove(&path).map_err(JournalError::io(&path, "delete"))?;
            }
            _ => {}
        }
    }
    paths.sort();
    let last = paths.len().saturating_sub(1);
    let mut all: Vec<Found> = Vec::with_capacity(paths.len());
    for (index, path) in paths.into_iter().enumerate() {
        let found = read_header(path, index == last)?;
        let mismatch = |what, found_number, expected| JournalError::Mismatch {
            path: found.path.clone(),
            what,
            found: found_number,
            expected,
        };
        let header = &found.header;
        if let Some(before) = all.last() {
            let base = before.header.base + before.header.len;
            if header.base != base {
                return Err(mismatch("base (is a segment missing before it?)", header.base, base));
            }
            if header.journal_id != before.header.journal_id {
                return Err(mismatch("journal id", header.journal_id, before.header.journal_id));
            }
        }
        all.push(found);
    }
    Ok(all)
}

fn read_header(path: PathBuf, is_last: bool) -> Result<Found, JournalError> {
    let file =
        OpenOptions::new().read(true).write(true).open(&path).map_err(JournalError::io(&path, "open"))?;
    let file_len = file.metadata().map_err(JournalError::io(&path, "look at"))?.len();
    let mismatch =
        |what, found, expected| JournalError::Mismatch { path: path.clone(), what, found, expected };
    if file_len < SEGMENT_HEADER_LEN as u64 {
        return Err(mismatch("file length", file_len, SEGMENT_HEADER_LEN as u64));
    }
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    file.read_exact_at(&mut bytes, 0).map_err(JournalError::io(&path, "read"))?;
    let header = SegmentHeader::from_bytes(&bytes)
        .map_err(|source| JournalError::Header { path: path.clone(), source })?;
    let is_possible = |what, number, min, max, aligned| {
        if (min..=max).contains(&number) && number % aligned == 0 {
            Ok(())
        } else {
            Err(mismatch(what, number, min))
        }
    };
    is_possible("segment length", header.len, super::SEGMENT_BYTES_MIN, super::SEGMENT_BYTES_MAX, 4096)?;
    is_possible("base", header.base, 16, u64::MAX >> 1, 16)?;
    if path.file_name().and_then(|name| name.to_str()) != Some(&segment_name(header.base)) {
        return Err(mismatch("base (the file's name says another)", header.base, 0));
    }
    if file_len > header.len || (file_len < header.len && !is_last) {
        return Err(mismatch("file length", file_len, header.len));
    }
    // Longer was refused above.
    if file_len != header.len {
        tracing::warn!(path = %path.display(), file_len, expected = header.len, "the last journal segment was truncated");
        Segment::restore_length(&file, &path, header.len)?;
    }
    let used = u64_at(&bytes, USED_AT);
    if used != 0 {
        is_possible("used length", used, SEGMENT_HEADER_LEN as u64, header.len, ENTRY_ALIGN as u64)?;
    }
    let word = u64_at(&bytes, GENERATION_AT);
    let generation =
        generation_of(word).ok_or_else(|| mismatch("generation", word, generation_word(word as u32)))?;
    let durable = u64_at(&bytes, DURABLE_AT) == 1;
    let fresh_from = u64_at(&bytes, FRESH_AT);
    is_possible("offset from which streams are fresh", fresh_from, 0, header.base, 1)?;
    Ok(Found { file, path, file_len, header, generation, used, durable, fresh_from })
}

impl Found {
    /// Pages of this segment may have been lost without any process being to blame.
    fn power_was_lost(&self, boot_id: [u8; 16]) -> bool {
        !self.durable && (self.header.boot_id != boot_id || boot_id == [0; 16])
    }

    /// What its summary says of itself, if it has one that can be used by these tables.
    fn summary(&self, boot_id: [u8; 16], content_version: u32) -> Option<SummaryFacts> {
        let header = &self.header;
        let (entries, newest_at) = (0, 0);
        let (journal_id, base, created_at) = (header.journal_id, header.base, header.created_at);
        let used = self.used;
        let this = SummaryFacts { content_version, journal_id, base, created_at, used, entries, newest_at };
        let is_final = used != 0 && !self.power_was_lost(boot_id);
        is_final.then(|| summary::read_facts(&self.path))?.filter(|facts| facts.is_of_same(&this))
    }
}

/// The summaries that stand for the oldest segments.
#[derive(Default)]
struct Taken {
    /// Of each segment in turn, with the crc of the content.
    summaries: Vec<(SummaryFacts, u32)>,
    /// Bases of later segments that have a summary, and are read all the same.
    others: Vec<u64>,
}

impl Taken {
    /// What is to be done behind the start about the summary of that segment, which is full.
    fn task(&self, segment: &Arc<Segment>) -> Option<Task> {
        let base = segment.base();
        let taken = self.summaries.iter().find(|(facts, _)| facts.base == base);
        let purpose = match taken {
            Some((_, crc)) => Purpose::Check { crc: *crc },
            None if self.others.contains(&base) => return None,
            None => Purpose::Make,
        };
        Some(Task { segment: Arc::clone(segment), purpose })
    }
}

/// Hands as many summaries as there are in a row to the tables, from the oldest segment on, but for the segments of which
/// the tables want each entry, and the last one, to which more may have been appended than anybody knows.
fn take_summaries(found: &[Found], boot_id: [u8; 16], fresh_from: u64, tables: &mut dyn Tables) -> Taken {
    let mut taken = Taken::default();
    let Some(version) = tables.summariser().map(|summariser| summariser.version()) else { return taken };
    let known: Vec<_> = found.iter().map(|found| found.summary(boot_id, version)).collect();
    let mut newer = 0u64;
    let is_wanted_by_entries = |facts: &Option<SummaryFacts>| {
        let is_wanted = newer < tables.newest();
        newer = newer.saturating_add(facts.map_or(0, |facts| facts.entries));
        is_wanted
    };
    // The last segment has no summary and counts as empty.
    let read = known.iter().rev().map(is_wanted_by_entries).take_while(|is_wanted| *is_wanted).count().max(1);
    let row = known[..found.len() - read].iter().map_while(|facts| *facts);
    for (found, facts) in found.iter().zip(row) {
        let first = facts.base + SEGMENT_HEADER_LEN as u64;
        let content = summary::read_content(&found.path).ok_or_else(|| "its content is damaged".to_owned());
        let merged = content.and_then(|(content, crc)| {
            tables.summary(&content, first, facts.base >= fresh_from).map(|()| crc)
        });
        match merged {
            Ok(crc) => taken.summaries.push((facts, crc)),
            Err(why) => {
                tracing::warn!(path = %found.path.display(), why,
                    "the summary of a journal segment is of no use: the journal is read from its beginning");
                tables.clear();
                // Each is made anew.
                return Taken::default();
            }
        }
    }
    let others = known[taken.summaries.len()..].iter().flatten();
    taken.others = others.map(|facts| facts.base).collect();
    taken
}

/// Length of what tells whether there is another entry.
const LEAD_LEN: u64 = 8;

type Walked = (VecDeque<Arc<Segment>>, Option<SegmentWriter>);

/// Hands every entry to `replay`, but for those of segments of which the summary was taken; gives the segments that are
/// closed, and the one to go on with, if the last is not.
fn walk_all(
    found: Vec<Found>,
    taken: &Taken,
    boot_id: [u8; 16],
    recovered: &mut Recovered,
    replay: &mut dyn FnMut(&Entry<'_>) -> Result<(), String>,
) -> Result<Walked, JournalError> {
    let mut sealed = VecDeque::with_capacity(found.len() + 1);
    let last_index = found.len() - 1;
    let mut found = found.into_iter().enumerate();
    while let Some((index, next)) = found.next() {
        let is_last = index == last_index;
        let power_was_lost = next.power_was_lost(boot_id);
        let Found { file, path, file_len, header, used, .. } = next;
        if let Some((facts, _)) = taken.summaries.get(index) {
            let segment = Segment::open(file, &path, header.base, header.len)?;
            segment.set_newest_at(facts.newest_at);
            sealed.push_back(segment.into_sealed(used as usize));
            recovered.entries += facts.entries;
            recovered.summarised += 1;
            continue;
        }
        recovered.streams_are_over |= is_last && power_was_lost;
        recovered.is_of_earlier_start = header.boot_id != boot_id;
        let mut segment = Segment::open(file, &path, header.base, header.len)?;
        segment.will_be_read();
        let limit = if used == 0 { header.len } else { used };
        let segment_bytes = segment.contents();
        let walk = Walk {
            bytes: &segment_bytes[..limit as usize],
            base: header.base,
            journal_id: header.journal_id,
            must_reach_limit: used != 0,
        };
        // Behind the last entry stands a zero, also in a segment that was closed.
        let behind = header.len.min(limit + LEAD_LEN) as usize;
        let goes_on = segment_bytes[limit as usize..behind].iter().any(|byte| *byte != 0);
        let stop = walk.run(replay);
        recovered.entries += stop.entries;
        let damaged = |what| Err(JournalError::Damaged { path: path.clone(), at: stop.at as u64, what });
        let torn = match stop.bad {
            Some(why) if power_was_lost => Some(why),
            Some(why) if !is_last || used != 0 => return damaged(why),
            None if used != 0 && goes_on => {
                return damaged("an entry, where the header says that they end".into());
            }
            why => {
                if !power_was_lost && let Some(at) = walk.whole_entry_behind(stop.at) {
                    let why = why.unwrap_or_else(|| "no entry".to_owned());
                    return damaged(format!("{why}, but a whole entry follows at byte {at}"));
                }
                why
            }
        };
        // Where the entries end there is a zero (see `layout`): if that was still in the file, no entry is missing.
        let shows_its_end = torn.is_none() && file_len >= header.len.min(stop.at as u64 + LEAD_LEN);
        recovered.was_truncated = file_len < header.len && !shows_its_end;
        segment.set_newest_at(stop.newest_at.unwrap_or(header.created_at));
        if let Some(why) = torn {
            let mut later_segments = 0;
            summary::remove(&path).map_err(JournalError::io(&path, "delete the summary of"))?;
            for (_, later) in found.by_ref() {
                summary::remove(&later.path)
                    .map_err(JournalError::io(&later.path, "delete the summary of"))?;
                std::fs::remove_file(&later.path).map_err(JournalError::io(&later.path, "delete"))?;
                later_segments += 1;
            }
            let mut writer = segment.into_writer(stop.at);
            writer.segment().store_word(USED_AT, 0);
            writer.clear_rest();
            recovered.streams_are_over |= power_was_lost;
            recovered.cut = Some(Cut { path, at: stop.at as u64, later_segments, why });
            return Ok((sealed, Some(writer)));
        }
        if is_last && used == 0 {
            return Ok((sealed, Some(segment.into_writer(stop.at))));
        }
        sealed.push_back(segment.into_sealed(stop.at));
    }
    Ok((sealed, None))
}

/// One pass over a segment.
struct Walk<'a> {
    /// The file up to where entries can stand.
    bytes: &'a [u8],
    base: u64,
    journal_id: u64,
    /// The segment was closed: its entries end where `bytes` does.
    must_reach_limit: bool,
}

/// Where a pass ended.
struct Stop {
    entries: u64,
    /// Place in the file behind the last whole entry.
    at: usize,
    newest_at: Option<i64>,
    /// What is wrong there; `None`: nothing, the entries end there.
    bad: Option<String>,
}

impl Walk<'_> {
    fn run(&self, replay: &mut dyn FnMut(&Entry<'_>) -> Result<(), String>) -> Stop {
        let mut stop = Stop { entries: 0, at: SEGMENT_HEADER_LEN, newest_at: None, bad: None };
        while stop.at < self.bytes.len() {
            let rest = &self.bytes[stop.at..];
            let lead =
                rest.first_chunk::<{ LEAD_LEN as usize }>().map_or(0, |lead| u64::from_le_bytes(*lead));
            if lead == 0 {
                if self.must_reach_limit {
                    stop.bad = Some(format!("no entry, and the entries end at byte {}", self.bytes.len()));
                }
                break;
            }
            let entry = self.entry(stop.at).and_then(|entry| replay(&entry).map(|()| entry));
            match entry {
                Ok(entry) => {
                    stop.entries += 1;
                    stop.at += entry.len();
                    stop.newest_at = Some(entry.journalled_at);
                }
                Err(why) => {
                    stop.bad = Some(why);
                    break;
                }
            }
        }
        stop
    }

    /// The entry at that place, or what is wrong with it.
    fn entry(&self, at: usize) -> Result<Entry<'_>, String> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let offset = self.base + at as u64;
        Entry::checked(rest, offset, self.journal_id)
    }

    /// Whether a whole entry stands not far behind a place where none does.
    fn whole_entry_behind(&self, at: usize) -> Option<usize> {
        let end = self.bytes.len().min(at.saturating_add(2 * ENTRY_LEN_MAX));
        (at + ENTRY_ALIGN..end).step_by(ENTRY_ALIGN).find(|at| self.entry(*at).is_ok())
    }
}
