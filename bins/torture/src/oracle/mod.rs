//! The oracle: knows the plan, hears every frame of every session, and judges.
//!
//! # What is judged at once
//! Each session must keep the client's one rule (`epoch` and `prev` are the position), its numbers must grow, every item
//! must be of its own user and channels, of the plan, and right to the byte; and all sessions of a user must see the same
//! record under the same number.
//!
//! # What is judged at the end
//! The numbers and records that sessions saw make one *canon* for each stream. The end of a run fills what is left open in
//! it by sessions that read everything once more from the beginning. Then ([`verdict`]) the canon must hold every record
//! that was published exactly once and in order, and each session must have seen all of the canon that it should.
//!
//! A session keeps what it did *not* see, as ranges: of a session that got everything, nothing is kept.

pub(crate) mod verdict;

use std::collections::{BTreeMap, VecDeque};

use bellwire::Channel;

use crate::clients::wire::{Entry, Epoch, Event, Mover, Stream, Why, epoch_text};
use crate::plan::{Plan, Record, user_id};

/// Numbers that a frame steps over to be worth a note, and how many notes a session keeps.
const LEAP: u64 = 20;
const LEAPS_MAX: usize = 64;

/// As many problems are told in full.
const TOLD_MAX: usize = 12;

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    Lost,
    Doubled,
    Reordered,
    Foreign,
    /// Never published, or not what was published.
    Corrupt,
    /// A frame whose `prev` or `epoch` was not the position.
    Gap,
    /// A `resync` that was not due.
    Resync,
    /// A process did what it should not.
    Process,
    /// The second consumer of the bus.
    Storage,
}

/// What a session has of one stream.
#[derive(Default)]
struct Cursor {
    epoch: Epoch,
    /// It began behind this number.
    start: u64,
    position: u64,
    has_begun: bool,
    /// Number of the last item.
    last: u64,
    /// What frames stepped over, `from..=to`.
    skipped: Vec<(u64, u64)>,
    /// The same of the long ones, with what stepped over them: at the bound the oldest are forgotten.
    leaps: VecDeque<(u64, u64, Mover)>,
    /// What was announced as lost, `from..=to`.
    gone: Vec<(u64, u64)>,
    /// Positions at which connections began.
    joined_at: Vec<u64>,
    /// Items that stand for older ones: number, and how many.
    conflated: Vec<(u64, u64)>,
    /// A position whose resume was refused as too old: it must turn out to be.
    refused_at: Option<u64>,
}

/// One session of a client process, over all its connections.
pub(crate) struct Session {
    user: u32,
    channels: Vec<Channel>,
    cursors: [Cursor; 2],
    is_connected: bool,
    /// Items of a frame whose move has not come yet.
    held: Vec<(Stream, u64, u64)>,
}

/// A stream, as all its sessions together saw it.
#[derive(Default)]
struct Canon {
    epoch: Option<Epoch>,
    /// Codes of the records, from number 1 on; 0: not seen yet.
    records: Vec<u64>,
    /// The furthest that anybody was told.
    head: u64,
}

/// What happened to sessions.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) connections: u64,
    /// Resumes of a session that had been there.
    pub(crate) resumes: u64,
    pub(crate) recovered: u64,
    pub(crate) resyncs: BTreeMap<&'static str, u64>,
    /// Connections that the gateway ended, by close code; 0: without one.
    pub(crate) closes: BTreeMap<u64, u64>,
    /// Updates that newer ones stood for.
    pub(crate) conflated: u64,
}

/// What a sabotaged run does to one delivery, to show that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// A client drops a record.
    Lose,
    /// A client gets a record twice.
    Double,
    /// A client gets two records in the wrong order.
    Reorder,
    /// A client gets another user's record.
    Foreign,
}

pub(crate) struct Oracle {
    plan: Plan,
    sessions: Vec<Session>,
    /// One for each user, and that of all at the end.
    canons: Vec<Canon>,
    pub(crate) counts: Counts,
    faults: BTreeMap<Fault, u64>,
    told: Vec<String>,
    /// Whether retention may pass clients that are away.
    retention_passes: bool,
    sabotage: Option<Sabotage>,
    sabotaged: bool,
}

impl Oracle {
    pub(crate) fn new(plan: Plan, retention_passes: bool, sabotage: Option<Sabotage>) -> Self {
        Self {
            plan,
            sessions: Vec::new(),
            canons: (0..=plan.users).map(|_| Canon::default()).collect(),
            counts: Counts::default(),
            faults: BTreeMap::new(),
            told: Vec::new(),
            retention_passes,
            sabotage,
            sabotaged: false,
        }
    }

    /// Makes a session known; its number is the next.
    pub(crate) fn add_session(&mut self, user: u32, channels: Vec<Channel>) -> u32 {
        self.sessions.push(Session {
            user,
            channels,
            cursors: Default::default(),
            is_connected: false,
            held: Vec::new(),
        });
        self.sessions.len() as u32 - 1
    }

    /// Epoch and number from which a session is to resume.
    pub(crate) fn positions(&self, session: u32) -> [Option<(String, u64)>; 2] {
        self.sessions[session as usize]
            .cursors
            .each_ref()
            .map(|cursor| cursor.has_begun.then(|| (epoch_text(&cursor.epoch).to_owned(), cursor.position)))
    }

    /// The process of these sessions is dead: frames that it did not tell as a whole were not handled.
    pub(crate) fn process_died(&mut self, sessions: &[u32]) {
        for session in sessions {
            let session = &mut self.sessions[*session as usize];
            session.held.clear();
            session.is_connected = false;
        }
    }

    pub(crate) fn connected(&self) -> usize {
        self.sessions.iter().filter(|session| session.is_connected).count()
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How far sessions are behind the heads of their streams, in numbers, and how many are.
    pub(crate) fn behind(&self) -> (u64, usize) {
        let (mut numbers, mut sessions) = (0, 0);
        for session in &self.sessions {
            let behind: u64 = Stream::BOTH
                .iter()
                .map(|stream| {
                    let head = self.canons[self.canon_index(session.user, *stream)].head;
                    head.saturating_sub(session.cursors[*stream as usize].position)
                })
                .sum();
            numbers += behind;
            sessions += usize::from(behind > 0);
        }
        (numbers, sessions)
    }

    /// The first of those that are behind, in words.
    pub(crate) fn behind_names(&self) -> String {
        let mut names = Vec::new();
        for (id, session) in self.sessions.iter().enumerate() {
            for stream in Stream::BOTH {
                let head = self.canons[self.canon_index(session.user, stream)].head;
                if session.cursors[stream as usize].position < head && names.len() < 3 {
                    names.push(format!("{} of {head}", self.name(id as u32, stream)));
                }
            }
        }
        names.join(", ")
    }

    /// Reports a problem that somebody else found.
    pub(crate) fn fault(&mut self, fault: Fault, words: impl FnOnce() -> String) {
        self.fault_times(fault, 1, words);
    }

    fn fault_times(&mut self, fault: Fault, times: u64, words: impl FnOnce() -> String) {
        let count = self.faults.entry(fault).or_default();
        // Of each kind the first are told: the second is often the first's consequence.
        if *count < 3 && self.told.len() < TOLD_MAX {
            self.told.push(format!("{fault:?}: {}", words()));
        }
        *count += times;
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    pub(crate) fn faults(&self) -> &BTreeMap<Fault, u64> {
        &self.faults
    }

    /// The first problems, in words.
    pub(crate) fn told(&self) -> &[String] {
        &self.told
    }

    /// Whether the sabotage that was wished for has taken place.
    pub(crate) fn was_sabotaged(&self) -> bool {
        self.sabotaged
    }

    fn canon_index(&self, user: u32, stream: Stream) -> usize {
        match stream {
            Stream::User => user as usize,
            Stream::All => self.plan.users as usize,
        }
    }

    /// Takes in what a client process says.
    pub(crate) fn take(&mut self, entry: Entry) {
        match self.sabotage {
            Some(sabotage) if !self.sabotaged => self.take_sabotaged(entry, sabotage),
            _ => self.take_as_it_is(entry),
        }
    }

    fn take_as_it_is(&mut self, entry: Entry) {
        let Entry { session, stream, event } = entry;
        if session as usize >= self.sessions.len() {
            return self.fault(Fault::Process, || format!("a client speaks of session {session}"));
        }
        match event {
            Event::Item { seq, code, conflated, sound } => {
                self.item(session, stream, seq, code, conflated, sound)
            }
            Event::Move { prev, seq, epoch, by } => self.step(session, stream, (prev, seq), epoch, by),
            Event::Door { head, oldest, epoch } => self.door(session, stream, head, oldest, epoch),
            Event::Joined { seq, recovered, epoch } => self.joined(session, stream, seq, recovered, epoch),
            Event::Resync { head, why, epoch } => self.resync(session, stream, head, why, epoch),
            Event::Closed { code, ours } => {
                let session = &mut self.sessions[session as usize];
                session.held.clear();
                if !ours && (session.is_connected || code != 0) {
                    *self.counts.closes.entry(code).or_default() += 1;
                }
                session.is_connected = false;
                if code >= 4500 || matches!(code, 1002 | 1003 | 1007 | 1009 | 1011) {
                    self.fault(Fault::Process, || format!("a session was closed with {code}"));
                }
            }
            Event::Wrong { code } => {
                let who = self.name(session, stream);
                self.fault(Fault::Process, || format!("{who}: a wrong frame or error {code}; see its log"));
            }
        }
    }

    fn name(&self, session: u32, stream: Stream) -> String {
        let known = &self.sessions[session as usize];
        let position = known.cursors[stream as usize].position;
        format!("session {session} of {} at {} {position}", user_id(known.user), stream.name())
    }

    fn item(&mut self, id: u32, stream: Stream, seq: u64, code: u64, conflated: u64, sound: bool) {
        let index = self.canon_index(self.sessions[id as usize].user, stream);
        let Some(record) = Record::from_code(code) else {
            let who = self.name(id, stream);
            return self.fault(Fault::Corrupt, || format!("{who}: seq {seq} is none of ours; see its log"));
        };
        let facts = self.plan.facts(record);
        let session = &self.sessions[id as usize];
        let expected = match stream {
            Stream::User => Some(session.user),
            Stream::All => None,
        };
        if facts.user != expected || !session.channels.contains(&facts.message_type.channel()) {
            let who = self.name(id, stream);
            let whose = facts.user.map_or_else(|| "*".to_owned(), user_id);
            let kind = facts.message_type.name();
            return self
                .fault(Fault::Foreign, || format!("{who}: seq {seq} is {record:?}, {kind} of {whose}"));
        }
        if !sound {
            let who = self.name(id, stream);
            self.fault(Fault::Corrupt, || {
                format!("{who}: seq {seq}, {record:?}, has other bytes; see its log")
            });
        }
        self.same_as_others(id, stream, index, seq, code);
        let cursor = &mut self.sessions[id as usize].cursors[stream as usize];
        if conflated > 0 {
            cursor.conflated.push((seq, conflated));
            self.counts.conflated += conflated;
        }
        self.sessions[id as usize].held.push((stream, seq, code));
    }

    /// Every session of a user sees the same record under the same number.
    fn same_as_others(&mut self, id: u32, stream: Stream, index: usize, seq: u64, code: u64) {
        let records = &mut self.canons[index].records;
        // A number that is absurd must not take all memory; the move that follows is no better.
        let Some(at) = seq.checked_sub(1).filter(|at| *at < 1 << 32) else { return };
        let at = at as usize;
        if records.len() <= at {
            records.resize(at + 1, 0);
        }
        if records[at] == 0 {
            records[at] = code;
        } else if records[at] != code {
            let (found, known) = (Record::from_code(code), Record::from_code(records[at]));
            let who = self.name(id, stream);
            self.fault(Fault::Reordered, || {
                format!("{who}: seq {seq} is {found:?}, but another session got {known:?}")
            });
        }
    }

    /// The whole frame has come: its items count, and the position moves.
    fn step(&mut self, id: u32, stream: Stream, (prev, seq): (u64, u64), epoch: Epoch, by: Mover) {
        let held = std::mem::take(&mut self.sessions[id as usize].held);
        let cursor = &self.sessions[id as usize].cursors[stream as usize];
        if prev != cursor.position || epoch != cursor.epoch || seq < prev {
            let who = self.name(id, stream);
            let epochs = (epoch_text(&cursor.epoch).to_owned(), epoch_text(&epoch).to_owned());
            self.fault(Fault::Gap, || format!("{who}: a frame goes from {prev} to {seq}, epochs {epochs:?}"));
        }
        let mut expected = prev;
        for (of, item, code) in held {
            let cursor = &self.sessions[id as usize].cursors[stream as usize];
            if of != stream || item <= cursor.last || item > seq {
                let fault =
                    if was_skipped(cursor, item) || item > seq { Fault::Reordered } else { Fault::Doubled };
                let (last, record) = (cursor.last, Record::from_code(code));
                let who = self.name(id, stream);
                self.fault(fault, || {
                    format!("{who}: seq {item}, {record:?}, after {last} in a frame up to {seq}")
                });
                continue;
            }
            self.counts.delivered += 1;
            let cursor = &mut self.sessions[id as usize].cursors[stream as usize];
            if item > expected + 1 {
                cursor.skip(expected + 1, item - 1, by);
            }
            cursor.last = item;
            expected = item;
        }
        let cursor = &mut self.sessions[id as usize].cursors[stream as usize];
        if seq > expected {
            cursor.skip(expected + 1, seq, by);
        }
        cursor.last = cursor.last.max(seq);
        cursor.position = seq;
        let index = self.canon_index(self.sessions[id as usize].user, stream);
        self.canons[index].head = self.canons[index].head.max(seq);
    }

    fn door(&mut self, id: u32, stream: Stream, head: u64, oldest: u64, epoch: Epoch) {
        let index = self.canon_index(self.sessions[id as usize].user, stream);
        let canon = &mut self.canons[index];
        canon.head = canon.head.max(head);
        let known = *canon.epoch.get_or_insert(epoch);
        if known != epoch {
            let (who, epoch) = (self.name(id, stream), epoch_text(&epoch).to_owned());
            self.fault(Fault::Resync, || format!("{who}: the epoch was {}, is {epoch}", epoch_text(&known)));
        }
        let cursor = &mut self.sessions[id as usize].cursors[stream as usize];
        if let Some(position) = cursor.refused_at.take()
            && oldest <= position + 1
        {
            let who = self.name(id, stream);
            self.fault(Fault::Resync, || {
                format!("{who}: {position} was called too old, but {oldest} is there")
            });
        }
    }

    fn joined(&mut self, id: u32, stream: Stream, seq: u64, recovered: bool, epoch: Epoch) {
        let session = &mut self.sessions[id as usize];
        session.held.clear();
        if stream == Stream::User {
            self.counts.connections += 1;
            self.counts.resumes += u64::from(session.cursors[0].has_begun);
            session.is_connected = true;
        }
        let cursor = &mut session.cursors[stream as usize];
        if !cursor.has_begun {
            *cursor =
                Cursor { epoch, start: seq, position: seq, last: seq, has_begun: true, ..Cursor::default() };
        }
        cursor.joined_at.push(cursor.position);
        self.counts.recovered += u64::from(recovered && stream == Stream::User);
        // A resume that failed is followed by a `resync`, which says why.
        if recovered && (seq != cursor.position || epoch != cursor.epoch) {
            let who = self.name(id, stream);
            self.fault(Fault::Gap, || format!("{who}: resumed at {seq}, {}", epoch_text(&epoch)));
        }
    }

    fn resync(&mut self, id: u32, stream: Stream, head: u64, why: Why, epoch: Epoch) {
        let word = match why {
            Why::TooOld => "too_old",
            Why::EpochChanged => "epoch_changed",
            Why::Unknown => "unknown",
        };
        *self.counts.resyncs.entry(word).or_default() += 1;
        let cursor = &self.sessions[id as usize].cursors[stream as usize];
        if !self.retention_passes || why != Why::TooOld || epoch != cursor.epoch || head < cursor.position {
            let who = self.name(id, stream);
            self.fault(Fault::Resync, || format!("{who}: resync to {head}, {word}"));
        }
        let session = &mut self.sessions[id as usize];
        session.held.clear();
        let cursor = &mut session.cursors[stream as usize];
        cursor.refused_at = Some(cursor.position);
        if head > cursor.position {
            cursor.gone.push((cursor.position + 1, head));
        }
        (cursor.position, cursor.last, cursor.epoch) = (head, head, epoch);
    }

    /// Waits for a frame that suits, spoils it, and never does so again. A whole frame, since what comes of a client that
    /// is killed within one does not count.
    fn take_sabotaged(&mut self, entry: Entry, sabotage: Sabotage) {
        // Not the first ones: a run that has just begun is not what is to be spoilt.
        let is_time = entry.stream == Stream::User && self.counts.delivered > 2_000;
        match entry.event {
            Event::Item { seq, code, conflated, sound }
                if is_time && sabotage == Sabotage::Foreign && self.is_trade(code) =>
            {
                let user = self.sessions[entry.session as usize].user;
                let of_another = (0..)
                    .map(|number| Record { lane: 0, number })
                    .find(|record| self.plan.facts(*record).user.is_some_and(|whose| whose != user));
                let code = of_another.map_or(code, Record::code);
                self.sabotaged = true;
                self.take_as_it_is(Entry { event: Event::Item { seq, code, conflated, sound }, ..entry });
            }
            Event::Move { .. } if is_time => {
                self.spoil_frame(entry.session, sabotage);
                self.take_as_it_is(entry);
            }
            _ => self.take_as_it_is(entry),
        }
    }

    /// Spoils the frame of which all items are held, if a trade is among them.
    fn spoil_frame(&mut self, session: u32, sabotage: Sabotage) {
        let held = &self.sessions[session as usize].held;
        let Some(trade) = held.iter().position(|(_, _, code)| self.is_trade(*code)) else { return };
        let held = &mut self.sessions[session as usize].held;
        match sabotage {
            Sabotage::Lose => drop(held.remove(trade)),
            Sabotage::Double => held.insert(trade, held[trade]),
            Sabotage::Reorder if trade + 1 < held.len() => held.swap(trade, trade + 1),
            Sabotage::Reorder | Sabotage::Foreign => return,
        }
        self.sabotaged = true;
    }

    /// Whether the code is that of a record that no other may stand for.
    fn is_trade(&self, code: u64) -> bool {
        Record::from_code(code).is_some_and(|record| self.plan.facts(record).key.is_none())
    }
}

impl Cursor {
    fn skip(&mut self, from: u64, to: u64, by: Mover) {
        if to - from >= LEAP {
            if self.leaps.len() == LEAPS_MAX {
                self.leaps.pop_front();
            }
            self.leaps.push_back((from, to, by));
        }
        match self.skipped.last_mut() {
            Some(last) if last.1 + 1 == from => last.1 = to,
            _ => self.skipped.push((from, to)),
        }
    }
}

fn was_skipped(cursor: &Cursor, seq: u64) -> bool {
    let after = cursor.skipped.partition_point(|range| range.0 <= seq);
    after > 0 && cursor.skipped[after - 1].1 >= seq
}
