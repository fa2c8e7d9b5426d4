//! Who is connected: what engines make of the session events that gateways publish.
//!
//! A gateway with `[presence]` in its configuration publishes, on a bus of its own, a [`SessionOpened`](crate::SessionOpened) and a
//! [`SessionClosed`](crate::SessionClosed) for each session, and every few seconds, at its start among others, a
//! [`SessionsReset`](crate::SessionsReset): so many users are connected, and here they are. So whoever comes late, was
//! overtaken or missed a gateway's death knows the truth again after the next reset.
//!
//! # Why nobody is taken for gone who is not
//!
//! A reset takes effect as a whole, with the last of its users. Until then all that was known before holds. One that is
//! interrupted, because records were lost or the gateway died, has no effect.

use std::collections::HashMap;

use crate::notification::{NotificationView, PayloadView};

/// How many users are held of one lane. A gateway serves fewer sessions; a lane that tells of more is not believed.
const USERS_MAX: usize = 1 << 22;

/// Who is connected, over all gateways of a bus of session events. It is fed with their records, and tells who has gone.
///
/// It allocates; an engine runs it beside its publish path, not on it.
///
/// ```
/// use bellwire::{Budget, Notification, Presence, Producer, Reader, SessionClosed, SessionOpened};
///
/// # let bus = format!("doc-{}-p", std::process::id());
/// let mut gateway = Producer::open(&bus, "gateway")?; // what a gateway does
/// let (user_id, conn) = ("user_01", "c-0-1");
/// let opened = SessionOpened { user_id, conn, sessions: 1, timestamp: 1 };
/// let closed = SessionClosed { user_id, conn, code: 1006, reason: "", sessions: 0, timestamp: 2 };
/// gateway.publish(&Notification::new(user_id, "gateway", opened))?;
/// gateway.publish(&Notification::new(user_id, "gateway", closed))?;
///
/// let mut events = Reader::open(&bus, "matching-engine")?; // what an engine does
/// let mut presence = Presence::default();
/// let mut gone = Vec::new();
/// events.round(Budget::default(), |lane, event| {
///     presence.observe(lane.key(), &event, |user| gone.push(user.to_owned()));
/// });
/// events.commit(events.mark());
/// assert_eq!(gone, ["user_01"]);
/// # drop((events, gateway));
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Presence {
    gateways: HashMap<u64, Gateway>,
}

#[derive(Debug, Default)]
struct Gateway {
    /// Sessions of each user.
    users: HashMap<Box<str>, u32>,
    /// A reset that is not whole yet, and how many users it will have.
    reset: Option<(usize, HashMap<Box<str>, u32>)>,
}

impl Presence {
    /// Takes note of a record of the lane with that key; `gone` is told each user who has no session any more, at any gateway.
    /// Notifications that are no session events change nothing.
    ///
    /// Records of one lane must come in their order, without those that were read before. If some were lost, say so:
    /// [`lost`](Self::lost).
    pub fn observe(&mut self, lane: u64, view: &NotificationView<'_>, mut gone: impl FnMut(&str)) {
        match view.payload {
            PayloadView::SessionOpened(event) => {
                let gateway = self.gateways.entry(lane).or_default();
                let (user, sessions) = (event.user_id(), event.sessions());
                match &mut gateway.reset {
                    Some((expected, users)) => {
                        users.insert(user.into(), sessions);
                        if users.len() == *expected {
                            self.take_reset(lane, &mut gone);
                        }
                    }
                    None => set(&mut gateway.users, user, sessions),
                }
            }
            PayloadView::SessionClosed(event) => {
                let gateway = self.gateways.entry(lane).or_default();
                // In the middle of a reset no such event is published: it was interrupted.
                gateway.reset = None;
                set(&mut gateway.users, event.user_id(), event.sessions());
                // Also of whom we had not heard: whoever reads from the middle on is told all the same.
                if !self.is_connected(event.user_id()) {
                    gone(event.user_id());
                }
            }
            PayloadView::SessionsReset(event) => {
                let gateway = self.gateways.entry(lane).or_default();
                let users = event.users() as usize;
                gateway.reset = (users <= USERS_MAX).then(|| (users, HashMap::new()));
                if users == 0 {
                    self.take_reset(lane, &mut gone);
                }
            }
            _ => {}
        }
    }

    /// Records of that lane were lost: what is known of its users holds until its next reset, which is taken anew.
    pub fn lost(&mut self, lane: u64) {
        if let Some(gateway) = self.gateways.get_mut(&lane) {
            gateway.reset = None;
        }
    }

    /// That gateway is dead, and has been for longer than its users are given to come back: all whom it had are gone, unless
    /// another one has them.
    pub fn gateway_gone(&mut self, lane: u64, mut gone: impl FnMut(&str)) {
        let Some(gateway) = self.gateways.remove(&lane) else { return };
        gateway.users.keys().filter(|user| !self.is_connected(user)).for_each(|user| gone(user));
    }

    /// Whether that user has a session at any gateway.
    pub fn is_connected(&self, user: &str) -> bool {
        self.gateways.values().any(|gateway| gateway.users.contains_key(user))
    }

    /// Everybody who has a session; those with sessions at several gateways as often.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.gateways.values().flat_map(|gateway| gateway.users.keys().map(AsRef::as_ref))
    }

    fn take_reset(&mut self, lane: u64, gone: &mut impl FnMut(&str)) {
        let Some(gateway) = self.gateways.get_mut(&lane) else { return };
        let Some((_, users)) = gateway.reset.take() else { return };
        let before = std::mem::replace(&mut gateway.users, users);
        before.keys().filter(|user| !self.is_connected(user)).for_each(|user| gone(user));
    }
}

/// No sessions is no entry.
fn set(users: &mut HashMap<Box<str>, u32>, user: &str, sessions: u32) {
    if sessions == 0 {
        users.remove(user);
    } else if let Some(known) = users.get_mut(user) {
        *known = sessions;
    } else if users.len() < USERS_MAX {
        users.insert(user.into(), sessions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::{Notification, Payload, SessionClosed, SessionOpened, SessionsReset};
    use crate::record::{RECORD_HEADER_LEN, RecordHeader, to_record};

    fn observe<'a>(presence: &mut Presence, lane: u64, payload: impl Into<Payload<'a>>) -> Vec<String> {
        let notification = Notification::new("user", "gateway", payload);
        let bytes = to_record(&notification, 1, 1, 1).unwrap();
        let header = RecordHeader::from_bytes(bytes.first_chunk().unwrap());
        let view = header.view(&bytes[RECORD_HEADER_LEN..][..header.archive_len as usize]).unwrap();
        let mut gone = Vec::new();
        presence.observe(lane, &view, |user| gone.push(user.to_owned()));
        gone.sort();
        gone
    }

    fn opened(user_id: &str, sessions: u32) -> SessionOpened<'_> {
        SessionOpened { user_id, conn: "c-0-1", sessions, timestamp: 1 }
    }

    fn closed(user_id: &str, sessions: u32) -> SessionClosed<'_> {
        SessionClosed { user_id, conn: "c-0-1", code: 1006, reason: "", sessions, timestamp: 1 }
    }

    fn reset(users: u32) -> SessionsReset<'static> {
        SessionsReset { gateway: "gw-1", users, timestamp: 1 }
    }

    const NOBODY: [&str; 0] = [];

    #[test]
    fn a_user_is_gone_with_the_last_session_at_the_last_gateway() {
        let mut presence = Presence::default();
        assert_eq!(observe(&mut presence, 0, opened("anna", 1)), NOBODY);
        assert_eq!(observe(&mut presence, 0, opened("anna", 2)), NOBODY);
        assert_eq!(observe(&mut presence, 1, opened("anna", 1)), NOBODY);
        assert_eq!(observe(&mut presence, 0, closed("anna", 1)), NOBODY);
        assert_eq!(observe(&mut presence, 0, closed("anna", 0)), NOBODY);
        assert!(presence.is_connected("anna"));
        assert_eq!(observe(&mut presence, 1, closed("anna", 0)), ["anna"]);
        assert!(!presence.is_connected("anna") && presence.users().next().is_none());
    }

    #[test]
    fn an_end_is_told_also_to_those_who_missed_the_beginning() {
        let mut presence = Presence::default();
        assert_eq!(observe(&mut presence, 0, closed("anna", 0)), ["anna"]);
        assert_eq!(observe(&mut presence, 0, closed("berta", 1)), NOBODY);
        assert!(presence.is_connected("berta"));
    }

    #[test]
    fn a_reset_takes_effect_as_a_whole_or_not_at_all() {
        let mut presence = Presence::default();
        for user in ["anna", "berta", "carla"] {
            observe(&mut presence, 0, opened(user, 1));
        }
        assert_eq!(observe(&mut presence, 0, reset(2)), NOBODY);
        assert_eq!(observe(&mut presence, 0, opened("berta", 1)), NOBODY);
        assert!(presence.is_connected("anna"), "not whole yet");
        // Interrupted by another one, which is whole.
        assert_eq!(observe(&mut presence, 0, reset(2)), NOBODY);
        assert_eq!(observe(&mut presence, 0, opened("berta", 1)), NOBODY);
        assert_eq!(observe(&mut presence, 0, opened("dora", 3)), ["anna", "carla"]);
        let mut users: Vec<_> = presence.users().collect();
        users.sort_unstable();
        assert_eq!(users, ["berta", "dora"]);
        // Interrupted by a loss.
        observe(&mut presence, 0, reset(1));
        presence.lost(0);
        assert_eq!(observe(&mut presence, 0, opened("emma", 1)), NOBODY);
        assert!(presence.is_connected("berta"));
        assert_eq!(observe(&mut presence, 0, reset(0)), ["berta", "dora", "emma"]);
    }

    #[test]
    fn the_users_of_a_dead_gateway_are_gone_unless_another_has_them() {
        let mut presence = Presence::default();
        observe(&mut presence, 0, opened("anna", 1));
        observe(&mut presence, 0, opened("berta", 1));
        observe(&mut presence, 1, opened("berta", 1));
        let mut gone = Vec::new();
        presence.gateway_gone(0, |user| gone.push(user.to_owned()));
        assert_eq!(gone, ["anna"]);
        presence.gateway_gone(7, |_| unreachable!());
        assert!(presence.is_connected("berta"));
    }
}
