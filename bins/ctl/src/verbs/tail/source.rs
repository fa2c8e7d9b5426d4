//! One lane under a tap, its four rings read as the one sequence in which they were published.
//!
//! # Why the order is the producer's
//! A head is taken from each ring, and the one with the least lane sequence goes first. A ring that was empty when it
//! was looked at may have got a record meanwhile that is older than a head of another ring. So rings that were empty
//! are looked at once more after the heads were taken: whatever was published before a head is visible to whoever has
//! seen that head, since the producer publishes in sequence.

use bellwire::inspect::Place;
use bellwire::{OpenError, Priority, RecordHeader, RingFault, Tap, TapPoll, TapStart};

use crate::failure::words;
use crate::filter::Filter;
use crate::output::human;
use crate::output::render::Render;

/// A record that waits for its turn, already in the form in which it will be printed: the tap's copy is overwritten by
/// its next.
pub(super) struct Head {
    pub(super) lane_sequence: u64,
    pub(super) timestamp: i64,
    /// When it was published, if that is known.
    pub(super) published_at: Option<i64>,
    pub(super) header: RecordHeader,
    pub(super) text: Vec<u8>,
}

/// A lane under a tap.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) inode: u64,
    tap: Tap,
    heads: [Option<Head>; 4],
    /// A ring that broke a rule would break it again.
    broken: [bool; 4],
    lost_told: u64,
    pub(super) unsound: u64,
}

impl Source {
    pub(super) fn open(
        bus: &str,
        name: &str,
        inode: u64,
        start: TapStart,
        place: Place<'_>,
    ) -> Result<Self, OpenError> {
        let tap = Tap::open_in(bus, name, start, place)?;
        let heads = [const { None }; 4];
        Ok(Self { name: name.to_owned(), inode, tap, heads, broken: [false; 4], lost_told: 0, unsound: 0 })
    }

    /// Takes what is next from each ring that has no head, and finds the head whose turn it is.
    pub(super) fn look(&mut self, filter: &Filter, render: &mut Render) -> Option<&Head> {
        for _ in 0..2 {
            for priority in Priority::ALL {
                if self.heads[priority.index()].is_none() && filter.wants_priority(priority) {
                    self.heads[priority.index()] = self.next(priority, filter, render);
                }
            }
        }
        self.heads.iter().flatten().min_by_key(|head| head.lane_sequence)
    }

    /// Takes the head whose turn it is.
    pub(super) fn take(&mut self) -> Option<Head> {
        let first = self.heads.iter_mut().filter(|head| head.is_some());
        first.min_by_key(|head| head.as_ref().map(|head| head.lane_sequence))?.take()
    }

    /// The next record of a ring that is wanted. What is not wanted or was lost is gone over.
    fn next(&mut self, priority: Priority, filter: &Filter, render: &mut Render) -> Option<Head> {
        if self.broken[priority.index()] {
            return None;
        }
        loop {
            match self.tap.poll(priority) {
                Ok(TapPoll::Empty) => return None,
                Ok(TapPoll::Lost { .. }) => {}
                Ok(TapPoll::Record(record)) => {
                    if !filter.wants_header(&record.header) {
                        continue;
                    }
                    match record.view() {
                        Ok(view) if !filter.wants(&view) => {}
                        Ok(view) => {
                            return Some(Head {
                                lane_sequence: record.header.lane_sequence,
                                timestamp: record.header.timestamp,
                                published_at: record.header.published_at(),
                                header: record.header,
                                text: render.of(&self.name, &view),
                            });
                        }
                        Err(error) => {
                            self.unsound += 1;
                            words(format_args!("lane {} {priority}: {error}", self.name));
                        }
                    }
                }
                Err(fault) => {
                    self.break_off(priority, &fault);
                    return None;
                }
            }
        }
    }

    fn break_off(&mut self, priority: Priority, fault: &RingFault) {
        self.broken[priority.index()] = true;
        self.unsound += 1;
        words(format_args!(
            "lane {} {priority}: {fault}; this ring cannot be read any further. `bellwirectl inspect {}` shows it",
            self.name, self.name
        ));
    }

    /// Says how many records were overwritten unseen since it was last said.
    pub(super) fn tell_losses(&mut self) {
        let lost: u64 = self.tap.lost().iter().sum();
        if lost > self.lost_told {
            let of = self.tap.lost();
            words(format_args!(
                "lane {}: {} overwritten before we read them (in all P0 {}, P1 {}, P2 {}, P3 {})",
                self.name,
                human::count(lost - self.lost_told, "record"),
                of[0],
                of[1],
                of[2],
                of[3]
            ));
            self.lost_told = lost;
        }
    }
}
