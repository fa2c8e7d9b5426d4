//! Appending to the journal.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};
use std::time::Instant;

use bellwire::{RECORD_HEADER_LEN, RecordHeader};

use super::error::JournalError;
use super::housekeeper::Housekeeper;
use super::layout::*;
use super::read::{JournalReader, Shared};
use super::segment::{Blank, SegmentWriter, allocate};
use super::{JournalConfig, SyncPolicy};

/// What the broker knows about a record when it appends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Number in the user's stream, from 1.
    pub seq: u64,
    /// Offset of that stream's previous entry; 0: none.
    pub prev: u64,
    /// The stream's epoch.
    pub epoch: u32,
    /// Number of the stream in the broker's table.
    pub slot: u32,
    /// Key of the lane.
    pub lane: u64,
    /// Now, ns since the Unix epoch.
    pub journalled_at: i64,
}

/// The journal's next free bytes.
pub struct Room<'a> {
    /// Offset of the entry that [`Journal::append`] will make of them.
    pub offset: u64,
    /// Where the archive goes; holds anything.
    pub archive: &'a mut [u8],
}

/// The journal as its one appending thread has it.
pub struct Journal {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: SegmentWriter,
    pub(super) config: JournalConfig,
    pub(super) keeper: Housekeeper,
    pub(super) generation: u32,
    pub(super) boot_id: [u8; 16],
    /// Streams of entries before this offset are over; 0: none is.
    pub(super) fresh_from: u64,
    /// Length of the archive for which room was given.
    pub(super) room: Option<usize>,
    /// Behind the last entry: what the end becomes with the next publishing. Not the writer's place, which moves into the
    /// next segment before anybody knows whether an entry will stand there.
    pub(super) tip: u64,
    /// Length of all segments, in bytes.
    pub(super) retained_bytes: u64,
    /// When it was opened: by the wall clock, ns since the Unix epoch, and by one that nobody sets.
    pub(super) opened: (i64, Instant),
    /// How far the wall clock was set since then, in ns; see [`Journal::note_time`].
    pub(super) step: i64,
    /// Held as long as the journal is open.
    pub(super) _lock: File,
}

impl Journal {
    /// A reader; clone it for each thread.
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.shared))
    }

    /// Everything before this offset is published.
    pub fn end(&self) -> u64 {
        self.shared.end()
    }

    /// Offset of the oldest entry that is kept.
    pub fn start(&self) -> u64 {
        self.shared.start()
    }

    /// Length of all segments, in bytes.
    pub fn retained_bytes(&self) -> u64 {
        self.retained_bytes
    }

    /// Whether the next segment could not be allocated ahead: the disk will be full soon.
    pub fn is_tight(&self) -> bool {
        self.shared.tight.load(Ordering::Relaxed) // a hint for people
    }

    /// Room for an archive of that length. Whatever is done to it, nothing is appended before [`append`](Self::append) is
    /// called.
    ///
    /// # Errors
    /// When a new segment is needed and cannot be had; see [`JournalError::is_no_room`]. Nothing has changed then: what
    /// was appended can be published, and asking again later is right.
    ///
    /// # Panics
    /// If `archive_len` is beyond what a record can hold: check the header first.
    #[inline]
    pub fn room(&mut self, archive_len: usize, now: i64) -> Result<Room<'_>, JournalError> {
        let len = entry_len(archive_len);
        assert!(len <= ENTRY_LEN_MAX, "an archive of {archive_len} bytes is not a record's");
        if len > self.writer.room() {
            self.roll(now)?;
        }
        self.room = Some(archive_len);
        let offset = self.writer.offset();
        let free = self.writer.free(len).unwrap_or_default(); // never the default: a segment holds the longest entry
        Ok(Room { offset, archive: &mut free[ENTRY_HEADER_LEN + RECORD_HEADER_LEN..][..archive_len] })
    }

    /// Makes an entry of the record whose archive stands in the room that was given last. Not visible yet.
    ///
    /// # Panics
    /// If no room was given, or for an archive of another length.
    #[inline]
    pub fn append(&mut self, header: &RecordHeader, facts: &Facts) -> u64 {
        let offset = self.writer.offset();
        let archive_len = self.room.take().unwrap_or(usize::MAX);
        assert!(archive_len == header.archive_len as usize, "append without room for this record");
        let len = entry_len(archive_len);
        let journal_id = self.shared.journal_id;
        if let Some(behind) = self.writer.free(len + ENTRY_ALIGN) {
            // A scan after a crash must end here, not in what was copied here before and then refused.
            behind[len..].fill(0);
        }
        let Some(entry) = self.writer.free(len) else { unreachable!("the room was there when it was given") };
        entry[ENTRY_HEADER_LEN..][..RECORD_HEADER_LEN].copy_from_slice(&header.to_bytes());
        entry[ENTRY_HEADER_LEN + RECORD_HEADER_LEN + archive_len..].fill(0);
        let mut entry_header = EntryHeader {
            len: len as u32,
            crc: 0,
            seq: facts.seq,
            prev: facts.prev,
            lane: facts.lane,
            journalled_at: facts.journalled_at,
            epoch: facts.epoch,
            slot: facts.slot,
        };
        entry[8..ENTRY_HEADER_LEN].copy_from_slice(&entry_header.to_bytes()[8..]);
        entry_header.crc = entry_crc(journal_id, offset, entry_header.len, &entry[8..]);
        // A process can be killed between any two stores, and they happen in this order.
        compiler_fence(Ordering::Release);
        entry[..8].copy_from_slice(&entry_header.to_bytes()[..8]);
        self.writer.advance(len);
        self.tip = self.writer.offset();
        self.writer.segment().set_newest_at(facts.journalled_at.wrapping_sub(self.step));
        offset
    }

    /// Makes all that was appended visible, after syncing it if that is the policy, and tells the new end.
    ///
    /// The end moves for entries alone. A segment that was begun for a record that then turned out to be a duplicate does
    /// not move it: readers wait for the end to pass them, and would wait at a place where nothing stands.
    ///
    /// # Errors
    /// The disk failed while syncing, or the segment's memory is gone: nothing was published, and nobody knows what is on
    /// disk.
    #[inline]
    pub fn publish(&mut self) -> Result<u64, JournalError> {
        let end = self.tip;
        if end != self.shared.end() {
            // What was appended to memory that is gone must not be shown, and not be committed in the lanes.
            self.writer.segment().fault()?;
            if self.config.sync == SyncPolicy::Every {
                self.writer.segment().sync()?;
            }
            self.writer.publish();
            self.shared.publish(end);
        }
        Ok(end)
    }

    /// Writes to disk what was appended, unless the policy is not to.
    ///
    /// # Errors
    /// The disk failed, or the segment's memory is gone.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let segment = self.writer.segment();
        segment.fault()?;
        if self.config.sync == SyncPolicy::None { Ok(()) } else { segment.sync() }
    }

    /// Writes everything to disk, whatever the policy, and notes that this was done: after an orderly end the next start
    /// of the machine need not doubt the journal.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(&mut self) -> Result<(), JournalError> {
        let segment = self.writer.segment();
        segment.sync()?;
        segment.fault()?;
        segment.store_word(DURABLE_AT, 1);
        segment.sync()
    }

    /// An error if the memory of a segment is gone: somebody truncated the file, or the disk failed. The segments that were
    /// touched since are known; the one that is written is looked at. And if the housekeeper found an entry damaged that a
    /// start had not read; that is said once.
    ///
    /// # Errors
    /// [`JournalError::Gone`]: the journal can neither be read nor written any more; what the next start finds is left.
    /// [`JournalError::Damaged`]: the next start says the same, if it is the entry that is damaged, and not its summary.
    pub fn verify(&self) -> Result<(), JournalError> {
        if let Some(damage) = self.shared.take_damage() {
            return Err(damage);
        }
        self.writer.segment().look()?;
        self.shared.segments().iter().try_for_each(|segment| segment.fault())
    }

    /// The number that new streams get as their epoch.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Moves on to the next generation, durably against the death of this process.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.writer.segment().store_word(GENERATION_AT, generation_word(self.generation));
        self.generation
    }

    /// Compares the wall clock, of which `now` is the time, with one that nobody sets: a wall clock that jumps makes no
    /// segment older or younger.
    pub fn note_time(&mut self, now: i64) {
        let (opened_at, opened) = self.opened;
        let elapsed = i64::try_from(opened.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.step = now.saturating_sub(opened_at.saturating_add(elapsed));
    }

    /// Ends all streams: what comes goes into a new segment, under a new generation. For when records that were published
    /// turn out to be lost.
    ///
    /// # Errors
    /// The new segment cannot be had.
    pub fn begin_streams_anew(&mut self, now: i64) -> Result<(), JournalError> {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.fresh_from = self.writer.segment().end();
        self.roll(now)
    }

    /// The offsets of the oldest segment, first entry and end, if it is to go.
    pub fn expired(&self, now: i64) -> Option<(u64, u64)> {
        let segments = self.shared.segments();
        let oldest = segments.front().filter(|_| segments.len() > 1)?;
        let too_many = self.retained_bytes > self.config.retain_bytes;
        let too_old = self.config.retain_age.is_some_and(|age| {
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            now.wrapping_sub(self.step).saturating_sub(oldest.newest_at()) > age
        });
        (too_many || too_old).then(|| (oldest.first_entry(), oldest.end()))
    }

    /// Lets the oldest segment go. A reader that is in it may finish its entry; it finds no further one there.
    pub fn retire_oldest(&mut self) {
        let retired = {
            let mut segments = self.shared.segments();
            if segments.len() < 2 {
                return;
            }
            let retired = segments.pop_front();
            if let Some(oldest) = segments.front() {
                self.shared.retire_before(oldest.first_entry());
            }
            retired
        };
        if let Some(segment) = retired {
            self.retained_bytes -= segment.len();
            self.keeper.remove(segment);
        }
    }

    /// Closes the last segment and opens the next.
    #[cold]
    fn roll(&mut self, now: i64) -> Result<(), JournalError> {
        let full = Arc::clone(self.writer.segment());
        full.fault()?;
        if self.config.sync == SyncPolicy::Every {
            full.sync()?;
        }
        let blank = match self.keeper.take_blank(self.config.segment_bytes) {
            Some(blank) => blank,
            None => allocate(&self.config.dir.join("roll.prep"), self.config.segment_bytes)?,
        };
        let next = activate(
            blank,
            &self.config,
            self.shared.journal_id,
            full.end(),
            Words { generation: self.generation, fresh_from: self.fresh_from, boot_id: self.boot_id },
            now,
        )?;
        // A crash here leaves a segment that has a successor and no seal: recovery scans it to its end.
        self.writer.seal();
        next.segment().set_newest_at(now.wrapping_sub(self.step));
        self.retained_bytes += next.segment().len();
        self.shared.segments().push_back(Arc::clone(next.segment()));
        self.writer = next;
        self.shared.tight.store(false, Ordering::Relaxed); // a hint for people
        self.keeper.rolled(full);
        Ok(())
    }
}

/// What one segment's header takes over from the one before.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) generation: u32,
    pub(super) fresh_from: u64,
    pub(super) boot_id: [u8; 16],
}

/// Makes the segment that begins at `base` out of allocated space.
pub(super) fn activate(
    blank: Blank,
    config: &JournalConfig,
    journal_id: u64,
    base: u64,
    words: Words,
    now: i64,
) -> Result<SegmentWriter, JournalError> {
    let header = SegmentHeader {
        base,
        len: blank.len(),
        journal_id,
        fingerprint: bellwire::abi_fingerprint(),
        created_at: now,
        boot_id: words.boot_id,
    };
    let name = config.dir.join(segment_name(base));
    let writer = blank.activate(header, words.generation, words.fresh_from, &name)?;
    if config.sync == SyncPolicy::Every {
        // With an interval the housekeeper does it: it can take many milliseconds.
        sync_dir(&config.dir)?;
    }
    Ok(writer)
}

/// Makes new and renamed files durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(JournalError::io(dir, "sync"))
}

/// File name of the segment that begins at `base`.
pub(super) fn segment_name(base: u64) -> String {
    format!("{base:016x}.journal")
}

/// Length of the entry for an archive of that length.
#[inline]
pub(super) fn entry_len(archive_len: usize) -> usize {
    ENTRY_HEADER_LEN + (RECORD_HEADER_LEN + archive_len).next_multiple_of(ENTRY_ALIGN)
}
