//! The risk desk: watches accounts and positions and speaks up when one gets worse. Each level is announced once; to be
//! announced again, the account must first have come down from it clearly.

use bellwire::Severity;

use super::User;
use super::ledger::position_limit;
use super::market::INSTRUMENTS;

/// Risk ratios at which an account is warned, called, and about to be liquidated.
const LEVELS: [f64; 3] = [0.80, 1.00, 1.25];

/// So far below a level the ratio must fall before the level is armed again.
const HYSTERESIS: f64 = 0.08;

/// An account got worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Alarm {
    /// Close to the margin.
    Alert(Severity),
    /// Not covered: a margin call, and an alert.
    Call(Severity),
}

/// A position came close to its limit, or reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitAlarm {
    Near { lots: u64, limit: u64 },
    Reached { lots: u64, limit: u64 },
}

#[derive(Clone, Copy, Default)]
struct Watched {
    level: usize,
    /// 0 fine, 1 near, 2 reached, for each instrument.
    limits: [u8; INSTRUMENTS.len()],
}

pub(crate) struct Desk {
    watched: Vec<Watched>,
}

impl Desk {
    pub(crate) fn new(users: User) -> Self {
        Self { watched: vec![Watched::default(); users as usize] }
    }

    /// An account's ratio changed.
    pub(crate) fn account(&mut self, user: User, risk_ratio: f64) -> Option<Alarm> {
        let watched = self.watched.get_mut(user as usize)?;
        let level = LEVELS.iter().filter(|&&level| risk_ratio >= level).count();
        if level > watched.level {
            watched.level = level;
            return Some(match level {
                1 => Alarm::Alert(Severity::Warning),
                2 => Alarm::Call(Severity::Critical),
                _ => Alarm::Call(Severity::Emergency),
            });
        }
        while watched.level > 0 && risk_ratio < LEVELS[watched.level - 1] - HYSTERESIS {
            watched.level -= 1;
        }
        None
    }

    /// A position changed.
    pub(crate) fn position(&mut self, user: User, instrument: usize, lots: u64) -> Option<LimitAlarm> {
        let state = self.watched.get_mut(user as usize)?.limits.get_mut(instrument)?;
        let limit = position_limit(user, instrument);
        let before = *state;
        match (before, lots) {
            (0 | 1, lots) if lots >= limit => *state = 2,
            (0, lots) if lots * 10 >= limit * 9 => *state = 1,
            (_, lots) if lots * 10 < limit * 8 => *state = 0,
            _ => {}
        }
        match *state {
            2 if before < 2 => Some(LimitAlarm::Reached { lots, limit }),
            1 if before < 1 => Some(LimitAlarm::Near { lots, limit }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::Flow;
    use super::super::ledger::{Execution, Ledger};
    use super::super::matching::{Event, Matching, Trade, What};
    use super::*;

    #[test]
    fn each_level_is_announced_once_until_the_account_has_recovered() {
        let mut desk = Desk::new(1);
        assert_eq!(desk.account(0, 0.5), None);
        assert_eq!(desk.account(0, 0.81), Some(Alarm::Alert(Severity::Warning)));
        assert_eq!(desk.account(0, 0.79), None);
        assert_eq!(desk.account(0, 0.81), None, "did not come down clearly");
        assert_eq!(desk.account(0, 1.3), Some(Alarm::Call(Severity::Emergency)));
        assert_eq!(desk.account(0, 0.2), None);
        assert_eq!(desk.account(0, 1.0), Some(Alarm::Call(Severity::Critical)));
        assert_eq!(desk.account(9, 1.0), None, "somebody else's user");
    }

    #[test]
    fn a_position_limit_is_announced_near_and_at_the_limit() {
        let (mut desk, limit) = (Desk::new(1), position_limit(0, 3));
        let near = (limit * 9).div_ceil(10);
        assert_eq!(desk.position(0, 3, near), Some(LimitAlarm::Near { lots: near, limit }));
        assert_eq!(desk.position(0, 3, limit), Some(LimitAlarm::Reached { lots: limit, limit }));
        assert_eq!(desk.position(0, 3, limit + 1), None);
        assert_eq!(desk.position(0, 3, 0), None);
        assert_eq!(desk.position(0, 3, limit), Some(LimitAlarm::Reached { lots: limit, limit }));
    }

    #[test]
    fn on_this_exchange_margin_calls_and_limits_really_occur() {
        const USERS: User = 200;
        let (mut matching, mut flow, mut ledger) =
            (Matching::new(USERS), Flow::new(1, USERS), Ledger::new(USERS));
        let (mut desk, mut events, mut notices) = (Desk::new(USERS), Vec::new(), Vec::new());
        let (mut alerts, mut calls, mut near, mut reached) = (0, 0, 0, 0);
        for _ in 0..14_000 {
            matching.tick(&mut events, &mut notices).unwrap();
            let command = flow.next(&matching);
            matching.execute(command, &mut events, &mut notices).unwrap();
            for event in events.drain(..) {
                let What::Traded(trade) = event.what else { continue };
                let Event { user, order, instrument, .. } = event;
                let Trade { direction, offset, ticks, lots, commission_cents, .. } = trade;
                ledger.execute(&Execution {
                    user,
                    order,
                    instrument,
                    direction,
                    offset,
                    ticks,
                    lots,
                    commission_cents,
                });
                match desk.account(user, ledger.statement(user).risk_ratio) {
                    Some(Alarm::Alert(_)) => alerts += 1,
                    Some(Alarm::Call(_)) => calls += 1,
                    None => {}
                }
                let position = ledger.position(user, instrument);
                match desk.position(user, instrument, position.long.lots.max(position.short.lots)) {
                    Some(LimitAlarm::Near { .. }) => near += 1,
                    Some(LimitAlarm::Reached { .. }) => reached += 1,
                    None => {}
                }
            }
        }
        let found = format!(
            "{alerts} alerts, {calls} calls, {near} near, {reached} reached, {} halts",
            notices.len() / 2
        );
        println!("{found}");
        // Twenty seconds of the demo: enough to see, and not so many that they mean nothing.
        assert!((5..400).contains(&alerts) && (2..200).contains(&calls), "{found}");
        assert!((5..600).contains(&reached), "{found}");
        assert!((2..30).contains(&notices.len()), "{found}");
    }
}
