//! Who is connected, told to the engines: session events on a lane of the gateway's own, which is how engines cancel the orders
//! of a user whose last session goes.
//!
//! The lane is on another bus than the notifications. The gateway reads every lane of its own bus and would number its own
//! events; and an engine that does not read must not hold up anything that clients wait for.
//!
//! # Why an engine knows the truth, whatever is lost
//!
//! The events are hints, the *reset* is the truth: at the start, every few seconds, and after the lane was full, it is published
//! who is connected, all under one lock, so that no event comes in between. A lane that is full therefore costs time, not
//! knowledge; and nobody ever waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellwire::{
    EVERYBODY, Notification, OpenError, Payload, Priority, Producer, ProducerOptions, PublishError,
    SessionClosed, SessionOpened, SessionsReset,
};

use crate::clock::wall_ns;
use crate::config::Config;

/// How often it is looked whether a reset is due, or possible again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Longest record of an event, about: a user of 128 bytes, a connection, a reason.
const RECORD_BYTES: usize = 320;

/// The ring's least capacity, in bytes; those of the other rings, which stay empty.
const CAPACITY_MIN: usize = 4 << 20;
const CAPACITY_UNUSED: usize = 4096;

/// The lane, and who is connected.
#[derive(Debug)]
pub struct Presence {
    // Locked when a session authenticates or goes, and for a reset: never when something is pushed.
    inner: Mutex<Inner>,
    reset_every: Duration,
}

struct Inner {
    lane: Producer,
    gateway: String,
    /// Sessions of each user, over all shards; bounded by limits.sessions_total.
    users: HashMap<Box<str>, u32>,
    /// Something could not be published: nothing is, until a reset was.
    is_behind: bool,
    reset_at: Instant,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Presence {
    /// Opens the lane, if one is configured, and says that nobody is connected yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &Config) -> Result<Option<Arc<Self>>, OpenError> {
        let Some(bus) = &config.presence.bus else { return Ok(None) };
        let lane = open_lane(bus, config)?;
        let inner = Inner {
            lane,
            gateway: config.listen.name.clone(),
            users: HashMap::new(),
            is_behind: true,
            reset_at: Instant::now(),
        };
        let presence =
            Self { inner: Mutex::new(inner), reset_every: Duration::from_secs(config.presence.reset_s) };
        presence.lock().reset();
        Ok(Some(Arc::new(presence)))
    }

    /// A session is open.
    pub fn opened(&self, user: &str, conn: &str) {
        let inner = &mut *self.lock();
        let sessions = match inner.users.get_mut(user) {
            Some(sessions) => {
                *sessions += 1;
                *sessions
            }
            None => {
                inner.users.insert(user.into(), 1);
                1
            }
        };
        let event = SessionOpened { user_id: user, conn, sessions, timestamp: wall_ns() };
        inner.publish(user, event.into());
    }

    /// A session that was open is not any more.
    pub fn closed(&self, user: &str, conn: &str, code: u16, reason: &str) {
        let inner = &mut *self.lock();
        let sessions = match inner.users.get_mut(user) {
            Some(sessions) if *sessions > 1 => {
                *sessions -= 1;
                *sessions
            }
            _ => {
                inner.users.remove(user);
                0
            }
        };
        let timestamp = wall_ns();
        let event = SessionClosed { user_id: user, conn, code: code.into(), reason, sessions, timestamp };
        inner.publish(user, event.into());
    }

    /// Publishes resets when they are due. Never returns.
    pub async fn keep_telling(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let inner = &mut *self.lock();
            if inner.is_behind || inner.reset_at.elapsed() >= self.reset_every {
                inner.reset();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner) // a number may be one off until its user's next event
    }
}

impl Inner {
    fn publish(&mut self, user: &str, event: Payload<'_>) {
        if !self.is_behind {
            self.is_behind = !self.say(user, event);
        }
    }

    /// Everything that is known. Nobody else publishes meanwhile.
    fn reset(&mut self) {
        let was_behind = self.is_behind;
        let users = u32::try_from(self.users.len()).unwrap_or(u32::MAX);
        let gateway = std::mem::take(&mut self.gateway);
        let reset = SessionsReset { gateway: &gateway, users, timestamp: wall_ns() };
        let mut said = self.say(EVERYBODY, reset.into());
        self.gateway = gateway;
        let known = std::mem::take(&mut self.users);
        for (user, &sessions) in &known {
            // The first that does not fit ends it: a reset that is not whole has no effect.
            let event = SessionOpened { user_id: user, conn: "", sessions, timestamp: wall_ns() };
            said = said && self.say(user, event.into());
        }
        self.users = known;
        self.is_behind = !said;
        if said {
            self.reset_at = Instant::now();
            if was_behind {
                tracing::debug!(users, "session events: told who is connected");
            }
        }
    }

    /// Whether it was published.
    fn say(&mut self, user: &str, event: Payload<'_>) -> bool {
        let notification = Notification::new(user, &self.gateway, event).with_priority(Priority::P1);
        match self.lane.publish(&notification) {
            Ok(_) => true,
            Err(error) => {
                if !self.is_behind {
                    let hint = match error {
                        PublishError::Full { .. } => {
                            "; an engine does not read them, and is told all when it does"
                        }
                        _ => "",
                    };
                    tracing::warn!(%error, "a session event could not be published{hint}");
                }
                false
            }
        }
    }
}

fn open_lane(bus: &str, config: &Config) -> Result<Producer, OpenError> {
    let options = || match &config.bus.group {
        Some(group) => ProducerOptions::new().group(group),
        None => ProducerOptions::new(),
    };
    // Two resets with everybody in them.
    let capacity = (config.limits.sessions_total as usize * RECORD_BYTES * 2).max(CAPACITY_MIN);
    let capacity = capacity.next_multiple_of(4096);
    let opened = Priority::ALL
        .into_iter()
        .fold(options(), |options, priority| {
            options.capacity(priority, if priority == Priority::P1 { capacity } else { CAPACITY_UNUSED })
        })
        .open(bus, &config.bus.consumer);
    match opened {
        // Made by a gateway with other limits: as good as any.
        Err(OpenError::Capacities { .. }) => options().open(bus, &config.bus.consumer),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use bellwire::{Budget, Reader};

    use super::*;

    /// A bus that goes with the test.
    struct Bus(String);

    impl Drop for Bus {
        fn drop(&mut self) {
            for segment in bellwire::inspect::segments(&self.0).unwrap() {
                let _ = std::fs::remove_file(segment.path);
            }
        }
    }

    fn open(name: &str) -> (Bus, Arc<Presence>) {
        let bus = Bus(format!("t-{}-presence-{name}", std::process::id()));
        let mut config = Config::default();
        config.presence.bus = Some(bus.0.clone());
        config.limits.sessions_total = 100;
        let presence = Presence::open(&config).unwrap().unwrap();
        (bus, presence)
    }

    /// Reads all that is there; tells who has gone.
    fn read(events: &mut Reader, engine: &mut bellwire::Presence) -> Vec<String> {
        let mut gone = Vec::new();
        while events.round(Budget::default(), |lane, event| {
            engine.observe(lane.key(), &event, |user| gone.push(user.to_owned()));
        }) > 0
        {}
        events.commit(events.mark());
        gone
    }

    #[test]
    fn an_engine_is_told_of_the_last_session_of_all_shards() {
        let (bus, presence) = open("last");
        let mut events = Reader::open(&bus.0, "engine").unwrap();
        let mut engine = bellwire::Presence::default();
        presence.opened("anna", "c-0-1");
        presence.opened("anna", "c-1-1");
        presence.closed("anna", "c-0-1", 1000, "");
        assert_eq!(read(&mut events, &mut engine), [""; 0]);
        assert!(engine.is_connected("anna"));
        presence.closed("anna", "c-1-1", 1006, "connection_lost");
        assert_eq!(read(&mut events, &mut engine), ["anna"]);
    }

    /// Full, it says nothing more; with room again, the truth.
    #[test]
    fn a_lane_that_is_full_costs_time_and_no_knowledge() {
        let (bus, presence) = open("full");
        let mut events = Reader::open(&bus.0, "engine").unwrap();
        let mut engine = bellwire::Presence::default();
        // Until the engine gates, the lane would be overwritten.
        std::thread::sleep(Duration::from_millis(150));
        presence.opened("berta", "c-0-1");
        assert_eq!(read(&mut events, &mut engine), [""; 0]);
        for _ in 0..40_000 {
            presence.opened("anna", "c-0-2");
            presence.closed("anna", "c-0-2", 1000, "");
        }
        assert!(presence.lock().is_behind);
        // What the engine will never be told of as an event.
        presence.closed("berta", "c-0-1", 1006, "");
        presence.opened("carla", "c-0-3");
        presence.lock().reset();
        assert!(presence.lock().is_behind, "there is no room for a reset either");
        let gone = read(&mut events, &mut engine);
        assert!(gone.iter().all(|user| user == "anna") && engine.is_connected("berta"));
        std::thread::sleep(Duration::from_millis(150));
        presence.lock().reset();
        assert!(!presence.lock().is_behind);
        let gone = read(&mut events, &mut engine);
        assert!(gone.iter().any(|user| user == "berta"), "{gone:?}");
        assert_eq!(engine.users().collect::<Vec<_>>(), ["carla"]);
    }

    #[test]
    fn a_gateway_that_starts_anew_begins_with_nobody() {
        let (bus, presence) = open("anew");
        let mut events = Reader::open(&bus.0, "engine").unwrap();
        let mut engine = bellwire::Presence::default();
        presence.opened("anna", "c-0-1");
        read(&mut events, &mut engine);
        drop(presence); // as a death does it: without a word
        let mut config = Config::default();
        config.presence.bus = Some(bus.0.clone());
        // Other limits than before: the lane is taken as it is.
        let _presence = Presence::open(&config).unwrap();
        assert_eq!(read(&mut events, &mut engine), ["anna"]);
    }
}
