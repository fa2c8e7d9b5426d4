//! The end of a run: what was published against what was seen.

use std::collections::{BTreeMap, HashMap};

use crate::clients::wire::Stream;
use crate::log::Account;
use crate::plan::{Key, Record, lane_name, user_id};

use super::{Canon, Cursor, Fault, Oracle, Session};

/// What the canons as a whole say.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Totals {
    /// Records that are in a stream.
    pub(crate) published: u64,
    /// Of those that a killed producer may or may not have published: how many there were, and how many it had.
    pub(crate) uncertain: u64,
    pub(crate) uncertain_published: u64,
    /// Numbers that no session saw: all of them were spared them, or retention had passed.
    pub(crate) unseen: u64,
}

impl Oracle {
    /// Judges everything that can only be judged now. `accounts` are the producers' logs, by lane.
    pub(crate) fn conclude(&mut self, accounts: &[Account]) -> Totals {
        let mut totals = Totals::default();
        let mut seen: Vec<Vec<bool>> =
            accounts.iter().map(|account| vec![false; account.intended as usize]).collect();
        let canons = std::mem::take(&mut self.canons);
        let judged = canons.iter().enumerate();
        let mut unseen: Vec<u64> =
            judged.map(|(index, canon)| self.judge_canon(index, canon, &mut seen)).collect();
        totals.unseen = unseen.iter().sum();
        self.canons = canons;
        self.judge_producers(accounts, &seen, &mut unseen, &mut totals);
        for id in 0..self.sessions.len() {
            for stream in Stream::BOTH {
                self.judge_session(id as u32, stream);
            }
        }
        totals
    }

    /// Every record once, each lane's records of one priority in order, each order's events in order. Tells how many
    /// numbers nobody saw.
    fn judge_canon(&mut self, index: usize, canon: &Canon, seen: &mut [Vec<bool>]) -> u64 {
        let mut last: BTreeMap<(u8, usize), u64> = BTreeMap::new();
        let mut orders: HashMap<(u8, u64), u64> = HashMap::new();
        for (at, code) in canon.records.iter().enumerate() {
            let Some(record) = Record::from_code(*code) else { continue };
            let Record { lane, number } = record;
            let facts = self.plan.facts(record);
            let who = || format!("{} seq {}: {record:?}", stream_name(index, self.plan.users), at + 1);
            match seen.get_mut(usize::from(lane)).and_then(|seen| seen.get_mut(number as usize)) {
                None => {
                    let who = who();
                    self.fault(Fault::Corrupt, || format!("{who} was never published"));
                    continue;
                }
                Some(true) => {
                    let who = who();
                    let first = canon.records.iter().position(|other| other == code).map(|at| at + 1);
                    self.fault(Fault::Doubled, || format!("{who} is there already, as seq {first:?}"));
                    continue;
                }
                Some(seen) => *seen = true,
            }
            let of_ring = last.insert((lane, facts.priority().index()), number).filter(|last| *last > number);
            let of_order = facts.order.and_then(|order| orders.insert((lane, order), number));
            if let Some(before) = of_ring.or(of_order.filter(|last| *last > number)) {
                let who = who();
                self.fault(Fault::Reordered, || format!("{who} comes after {}#{before}", lane_name(lane)));
            }
        }
        (0..canon.head as usize).filter(|at| canon.records.get(*at).is_none_or(|code| *code == 0)).count()
            as u64
    }

    /// Everything that was published is in its stream.
    fn judge_producers(
        &mut self,
        accounts: &[Account],
        seen: &[Vec<bool>],
        unseen: &mut [u64],
        totals: &mut Totals,
    ) {
        for (lane, (account, seen)) in accounts.iter().zip(seen).enumerate() {
            totals.published += seen.iter().filter(|seen| **seen).count() as u64;
            for range in &account.abandoned {
                let seen = &seen[range.start as usize..range.end as usize];
                let published = seen.iter().filter(|seen| **seen).count();
                totals.uncertain += seen.len() as u64;
                totals.uncertain_published += published as u64;
                // A batch becomes visible in its order.
                if seen[..published].contains(&false) && !self.retention_passes {
                    self.fault(Fault::Lost, || {
                        format!("lane {lane}: of {range:?} not the first {published} came")
                    });
                }
            }
            let is_certain = |number: u64| !account.abandoned.iter().any(|range| range.contains(&number));
            for number in (0..account.confirmed).filter(|number| !seen[*number as usize]) {
                if !is_certain(number) {
                    continue;
                }
                let record = Record { lane: lane as u8, number };
                let facts = self.plan.facts(record);
                let index = facts.user.unwrap_or(self.plan.users) as usize;
                // A number that nobody saw is somebody's.
                if unseen[index] > 0 && (self.retention_passes || facts.key.is_some()) {
                    unseen[index] -= 1;
                    totals.published += 1;
                    continue;
                }
                let stream = stream_name(index, self.plan.users);
                let head = self.canons[index].head;
                self.fault(Fault::Lost, || {
                    format!("{record:?} of {stream} is not in it; its head is {head}")
                });
            }
        }
        for (index, unseen) in unseen.iter().enumerate().filter(|(_, unseen)| **unseen > 0) {
            // Retention may have passed what was uncertain, too.
            if !self.retention_passes {
                let stream = stream_name(index, self.plan.users);
                self.fault(Fault::Lost, || {
                    format!("{unseen} numbers of {stream} were never seen and belong to nothing")
                });
            }
        }
    }

    /// A session has come to its stream's end, and what it did not see it need not.
    fn judge_session(&mut self, id: u32, stream: Stream) {
        let session = &self.sessions[id as usize];
        let canon = &self.canons[self.canon_index(session.user, stream)];
        let cursor = &session.cursors[stream as usize];
        let mut problems = Vec::new();
        if cursor.position != canon.head {
            problems.push((
                canon.head.saturating_sub(cursor.position).max(1),
                format!("ended before {}", canon.head),
            ));
        }
        let (spared, unknown) = self.missed(session, cursor, canon, &mut problems);
        self.check_counts(cursor, canon, &spared, unknown, &mut problems);
        for (times, words) in problems {
            let who = self.name(id, stream);
            self.fault_times(Fault::Lost, times, || format!("{who}: {words}"));
        }
    }

    /// The updates that newer ones stood for, oldest first, and how many of those that are missing nobody else saw either
    /// before retention took them. Whatever else is missing is a problem.
    fn missed(
        &self,
        session: &Session,
        cursor: &Cursor,
        canon: &Canon,
        problems: &mut Vec<(u64, String)>,
    ) -> (Vec<(u64, Key)>, u64) {
        // From the newest backwards: an update may be missing if the next one of its key was seen or is gone, or may
        // be missing itself.
        let mut replaced: BTreeMap<Key, bool> = BTreeMap::new();
        let mut spared = Vec::new();
        let mut unknown = 0;
        let (mut skips, mut gone) = (Ranges(&cursor.skipped), Ranges(&cursor.gone));
        for seq in (cursor.start + 1..=cursor.position).rev() {
            let (is_skipped, is_gone) = (skips.contain(seq), gone.contain(seq));
            let code = canon.records.get(seq as usize - 1).copied().unwrap_or_default();
            let Some(record) = Record::from_code(code) else {
                unknown += u64::from(is_skipped);
                continue;
            };
            let facts = self.plan.facts(record);
            match facts.key {
                Some(key) if !is_skipped => {
                    replaced.insert(key, true);
                }
                _ if !is_skipped || is_gone => {}
                _ if !session.channels.contains(&facts.message_type.channel()) => {}
                Some(key) if replaced.contains_key(&key) => spared.push((seq, key)),
                _ => {
                    let leap = cursor.leaps.iter().find(|leap| (leap.0..=leap.1).contains(&seq));
                    let kind = facts.message_type.name();
                    problems.push((1, format!("seq {seq}, {record:?} ({kind}), never came; leap {leap:?}")));
                }
            }
        }
        spared.reverse();
        (spared, unknown)
    }

    /// Every update that was left out was announced by the one that stood for it, unless the connection ended in between:
    /// then the newer one came by resuming, and says nothing.
    fn check_counts(
        &self,
        cursor: &Cursor,
        canon: &Canon,
        spared: &[(u64, Key)],
        unknown: u64,
        problems: &mut Vec<(u64, String)>,
    ) {
        let connection = |seq: u64| cursor.joined_at.partition_point(|joined| *joined < seq);
        let mut waiting: BTreeMap<Key, Vec<u64>> = BTreeMap::new();
        let mut spared = spared.iter().copied().peekable();
        let mut announced = cursor.conflated.iter().copied().peekable();
        if spared.peek().is_none() && announced.peek().is_none() {
            return;
        }
        for seq in cursor.start + 1..=cursor.position {
            if let Some((_, key)) = spared.next_if(|spared| spared.0 == seq) {
                waiting.entry(key).or_default().push(seq);
                continue;
            }
            let count = announced.next_if(|announced| announced.0 == seq).map_or(0, |announced| announced.1);
            let code = canon.records.get(seq as usize - 1).copied().unwrap_or_default();
            let key = Record::from_code(code).and_then(|record| self.plan.facts(record).key);
            let Some(key) = key else { continue };
            let older = waiting.remove(&key).unwrap_or_default();
            let of_this = older.iter().filter(|older| connection(**older) == connection(seq)).count() as u64;
            if count > older.len() as u64 + unknown || count < of_this {
                problems
                    .push((1, format!("seq {seq} stands for {count} older ones; {older:?} were left out")));
            }
        }
    }
}

/// Ascending ranges, asked from the highest number downwards.
struct Ranges<'a>(&'a [(u64, u64)]);

impl Ranges<'_> {
    fn contain(&mut self, seq: u64) -> bool {
        while let Some((last, rest)) = self.0.split_last() {
            if seq >= last.0 {
                return seq <= last.1;
            }
            self.0 = rest;
        }
        false
    }
}

fn stream_name(index: usize, users: u32) -> String {
    if index == users as usize { "all".to_owned() } else { user_id(index as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::wire::{Entry, Event, Mover, epoch};
    use crate::plan::Plan;
    use bellwire::Channel;

    const PLAN: Plan = Plan { seed: 1, users: 2 };
    const NUMBERS: u64 = 400;

    /// The user's records of one lane, in the order in which they were published.
    fn records(user: Option<u32>) -> Vec<Record> {
        let all = (0..NUMBERS).map(|number| Record { lane: 0, number });
        all.filter(|record| PLAN.facts(*record).user == user).collect()
    }

    /// Sessions of both users that get everything one by one; the first one's stream as it is given.
    fn judge(first: &[Record], conflated: &BTreeMap<u64, u64>, skip: &[u64]) -> Oracle {
        let mut oracle = Oracle::new(PLAN, false, None);
        for user in 0..2 {
            let session = oracle.add_session(user, Channel::ALL.to_vec());
            let streams = [(Stream::User, Some(user)), (Stream::All, None)];
            for (stream, user) in streams {
                let records = if user == Some(0) { first.to_vec() } else { records(user) };
                let epoch = epoch("e").unwrap();
                let mut take = |event| oracle.take(Entry { session, stream, event });
                take(Event::Door { head: 0, oldest: 1, epoch });
                take(Event::Joined { seq: 0, recovered: true, epoch });
                let mut prev = 0;
                for (seq, record) in (1..).zip(records) {
                    if user == Some(0) && skip.contains(&seq) {
                        continue;
                    }
                    let conflated = conflated.get(&seq).copied().unwrap_or_default();
                    take(Event::Item { seq, code: record.code(), conflated, sound: true });
                    take(Event::Move { prev, seq, epoch, by: Mover::Notification });
                    prev = seq;
                }
            }
        }
        // Another session of the first user that got everything, so that the canon is known.
        let session = oracle.add_session(0, Channel::ALL.to_vec());
        let broadcasts = records(None);
        for (stream, records) in [(Stream::User, first), (Stream::All, &broadcasts[..])] {
            let epoch = epoch("e").unwrap();
            let mut take = |event| oracle.take(Entry { session, stream, event });
            take(Event::Joined { seq: 0, recovered: true, epoch });
            for (seq, record) in (1..).zip(records) {
                take(Event::Item { seq, code: record.code(), conflated: 0, sound: true });
            }
            take(Event::Move { prev: 0, seq: records.len() as u64, epoch, by: Mover::Batch });
        }
        let account = Account { confirmed: NUMBERS, intended: NUMBERS, ..Account::default() };
        oracle.conclude(&[account]);
        oracle
    }

    fn faults(oracle: &Oracle) -> Vec<(Fault, u64)> {
        oracle.faults().iter().map(|(fault, count)| (*fault, *count)).collect()
    }

    #[test]
    fn everything_once_and_in_order_is_clean() {
        let oracle = judge(&records(Some(0)), &BTreeMap::new(), &[]);
        assert!(oracle.is_clean(), "{:?}", oracle.told());
    }

    #[test]
    fn what_the_gateway_itself_loses_doubles_or_reorders_is_found_in_the_canon() {
        let all = records(Some(0));
        let lost = [&all[..9], &all[10..]].concat();
        assert_eq!(faults(&judge(&lost, &BTreeMap::new(), &[])), [(Fault::Lost, 1)]);
        let doubled = [&all[..9], &all[3..]].concat();
        let found = faults(&judge(&doubled, &BTreeMap::new(), &[]));
        assert_eq!(found, [(Fault::Doubled, 6)]);
        let mut reordered = all.clone();
        let same_ring = |at: usize| PLAN.facts(all[at]).priority() == PLAN.facts(all[at + 1]).priority();
        let at = (0..all.len() - 1).find(|at| same_ring(*at)).unwrap();
        reordered.swap(at, at + 1);
        assert_eq!(faults(&judge(&reordered, &BTreeMap::new(), &[])), [(Fault::Reordered, 1)]);
    }

    #[test]
    fn an_update_may_be_left_out_for_a_newer_one_that_says_so_and_nothing_else_may() {
        let all = records(Some(0));
        let accounts: Vec<u64> = (1..)
            .zip(&all)
            .filter(|(_, record)| PLAN.facts(**record).key == Some(Key::Account))
            .map(|(seq, _)| seq)
            .collect();
        let announced = BTreeMap::from([(accounts[2], 2)]);
        let oracle = judge(&all, &announced, &accounts[..2]);
        assert!(oracle.is_clean(), "{:?}", oracle.told());
        assert_eq!(faults(&judge(&all, &BTreeMap::new(), &accounts[..2])), [(Fault::Lost, 1)]);
        let trade = (1..).zip(&all).find(|(_, record)| PLAN.facts(**record).order.is_some()).unwrap().0;
        assert_eq!(faults(&judge(&all, &BTreeMap::new(), &[trade])), [(Fault::Lost, 1)]);
    }
}
