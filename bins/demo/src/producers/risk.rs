//! Risk control's process: reads what the account system publishes, and raises the alarm on a lane of its own.

use std::collections::VecDeque;
use std::time::Duration;

use bellwire::{
    AlertType, LaneInfo, MarginCall, Notification, NotificationView, PayloadView, PositionLimit,
    PublishError, Reader, RiskAlert, Severity,
};

use super::account::{EVERYTHING, check_lost, is_drained};
use super::publisher::{Publisher, Pusher};
use super::{ACCOUNT, Lifeline, ProducerArgs, ProducerError, RISK, now_ns};
use crate::exchange::desk::{Alarm, Desk, LimitAlarm};
use crate::exchange::market::Instrument;
use crate::exchange::{User, user_id, user_number};

const SOURCE: &str = "RiskControl";

/// A trader has so long to answer a margin call.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

pub(crate) fn run(args: &ProducerArgs) -> Result<(), ProducerError> {
    let mut reader = Reader::open(&args.bus, RISK)?;
    let lifeline = Lifeline::tie(args.parent, Some(reader.waker()))?;
    let mut publisher = Publisher::open(&args.bus, RISK)?;
    publisher.wait_for_consumers(args.consumers, Some(&mut reader))?;
    let mut watch = Watch { desk: Desk::new(args.users), findings: VecDeque::new() };
    loop {
        reader.wait(Duration::from_millis(100));
        let read = reader.round(EVERYTHING, |lane, notification| watch.take_in(lane, &notification));
        reader.commit(0);
        check_lost(&reader)?;
        while let Some(finding) = watch.findings.front() {
            if publisher.try_batch(|batch| finding.push(batch))? {
                watch.findings.pop_front();
            } else {
                // The own lane waits for this process, too: read on, or it stays full.
                reader.round(EVERYTHING, |lane, notification| watch.take_in(lane, &notification));
                reader.commit(0);
            }
        }
        publisher.flush()?;
        if lifeline.is_cut() && read == 0 && is_drained(&mut reader) {
            break;
        }
    }
    publisher.end()
}

struct Watch {
    desk: Desk,
    /// Bounded by the desk, which announces each level of each account and position once.
    findings: VecDeque<Finding>,
}

impl Watch {
    fn take_in(&mut self, lane: &LaneInfo, notification: &NotificationView<'_>) {
        if lane.name() != ACCOUNT {
            return;
        }
        let Some(user) = user_number(notification.user_id()) else { return };
        let what = match notification.payload {
            PayloadView::AccountUpdate(account) => {
                let (equity, margin) = (account.balance() + account.position_profit(), account.margin());
                let risk_ratio = account.risk_ratio();
                self.desk.account(user, risk_ratio).map(|alarm| What::Account {
                    alarm,
                    equity,
                    margin,
                    risk_ratio,
                })
            }
            PayloadView::PositionUpdate(position) => {
                let lots = position.volume_long().max(position.volume_short()) as u64;
                Instrument::index_of(position.instrument_id()).and_then(|instrument| {
                    let instrument_id = crate::exchange::market::INSTRUMENTS[instrument].id;
                    self.desk
                        .position(user, instrument, lots)
                        .map(|alarm| What::Position { alarm, instrument_id })
                })
            }
            _ => None,
        };
        self.findings.extend(what.map(|what| Finding { user, what }));
    }
}

struct Finding {
    user: User,
    what: What,
}

enum What {
    Account { alarm: Alarm, equity: f64, margin: f64, risk_ratio: f64 },
    Position { alarm: LimitAlarm, instrument_id: &'static str },
}

impl Finding {
    fn push(&self, batch: &mut Pusher<'_, '_>) -> Result<(), PublishError> {
        let name = user_id(self.user);
        let (user_id, timestamp) = (name.as_str(), now_ns());
        let mut alert = |alert_type, severity, message: &str, risk_ratio, suggestion| {
            let alert =
                RiskAlert { user_id, alert_type, severity, message, risk_ratio, suggestion, timestamp };
            batch.push(Some(self.user), &Notification::new(user_id, SOURCE, alert))
        };
        match self.what {
            What::Account { alarm, equity, margin, risk_ratio } => {
                let percent = risk_ratio * 100.0;
                let message = format!("margin {margin:.2} is {percent:.0} % of equity {equity:.2}");
                let (severity, suggestion) = match alarm {
                    Alarm::Alert(severity) => (severity, "reduce positions or add money"),
                    Alarm::Call(Severity::Emergency) => {
                        (Severity::Emergency, "positions are about to be liquidated")
                    }
                    Alarm::Call(severity) => (severity, "add money before the deadline"),
                };
                alert(AlertType::MarginInsufficient, severity, &message, risk_ratio, suggestion)?;
                if let Alarm::Call(_) = alarm {
                    let message = format!("add {:.2}", margin - equity);
                    let call = MarginCall {
                        user_id,
                        current_margin: equity,
                        required_margin: margin,
                        deadline: timestamp + DEADLINE.as_nanos() as i64,
                        message: &message,
                        timestamp,
                    };
                    batch.push(Some(self.user), &Notification::new(user_id, SOURCE, call))?;
                }
                Ok(())
            }
            What::Position { alarm: LimitAlarm::Near { lots, limit }, instrument_id } => {
                let message = format!("{lots} of {limit} lots of {instrument_id}");
                let used = lots as f64 / limit.max(1) as f64;
                alert(AlertType::PositionLimit, Severity::Warning, &message, used, "do not open more")
            }
            What::Position { alarm: LimitAlarm::Reached { lots, limit }, instrument_id } => {
                let message = format!("no more than {limit} lots of {instrument_id}");
                let reached = PositionLimit {
                    user_id,
                    instrument_id,
                    current_volume: lots as f64,
                    limit_volume: limit as f64,
                    message: &message,
                    timestamp,
                };
                batch.push(Some(self.user), &Notification::new(user_id, SOURCE, reached))
            }
        }
    }
}
