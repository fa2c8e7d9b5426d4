//! What requests do.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::requests::{From, Refused, Request, Who};
use super::{Parts, Stop};
use crate::auth::revocation::Revocation;
use crate::config::LogLevel;
use crate::shard::{Conn, Orders, Seen, ShardGone};

/// The longest that a log level can be set for; a longer time is a change of the configuration.
const LOG_LEVEL_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) struct Operations {
    parts: Parts,
    /// Counts the settings of the log level, so that an earlier one's end does not end a later one.
    log_levels: Rc<Cell<u64>>,
    log_level: Rc<Cell<LogLevel>>,
}

type Outcome = Result<Value, Refused>;

impl Operations {
    pub(super) fn new(parts: Parts) -> Self {
        let configured = parts.reloader.in_effect().borrow().log.level;
        Self { parts, log_levels: Rc::default(), log_level: Rc::new(Cell::new(configured)) }
    }

    pub(super) async fn carry_out(&self, request: Request) -> Outcome {
        match request {
            Request::Status {} => Ok(self.status()),
            Request::Sessions { user, from } => {
                self.sessions(user.as_deref(), from.unwrap_or_default()).await
            }
            Request::Kick(Who { user: Some(user), conn: None }) => self.kick_user(&user).await,
            Request::Kick(Who { user: None, conn: Some(conn) }) => self.kick_conn(&conn).await,
            Request::Kick(_) => {
                Err(Refused::BadRequest("kick: exactly one of user and conn is to be given".to_owned()))
            }
            Request::Revoke(revocation) => self.revoke(&revocation),
            Request::LogLevel { level, for_s } => self.set_log_level(level, for_s.map(Duration::from_secs)),
            Request::Reload {} => self.reload().await,
            Request::Drain { within_ms } => self.drain(within_ms.map(Duration::from_millis)),
        }
    }

    fn status(&self) -> Value {
        let mut status = self.parts.watched.overview();
        status["pid"] = std::process::id().into();
        status["sessions"] = self.parts.watched.sessions().into();
        status["draining"] = self.parts.watched.is_draining().into();
        status["log_level"] = json!(self.log_level.get());
        status["revocations"] = self.parts.doors.verifier().revocations().len().into();
        status
    }

    async fn sessions(&self, user: Option<&str>, from: From) -> Outcome {
        let Some(shard) = self.parts.shards.get(from.shard) else {
            return Err(Refused::BadRequest(format!(
                "from.shard: there are {} shards, counted from 0",
                self.parts.shards.len()
            )));
        };
        let page = shard.page(from.slot, user).await.map_err(gone)?;
        let next = match page.next {
            Some(slot) => Some(From { shard: from.shard, slot }),
            None => {
                (from.shard + 1 < self.parts.shards.len()).then_some(From { shard: from.shard + 1, slot: 0 })
            }
        };
        let sessions: Vec<_> = page.sessions.iter().map(shown).collect();
        Ok(json!({"sessions": sessions, "next": next}))
    }

    async fn kick_user(&self, user: &str) -> Outcome {
        let mut kicked = Vec::new();
        for shard in &self.parts.shards {
            for session in shard.page(0, Some(user)).await.map_err(gone)?.sessions {
                if shard.kick(session.place).await.map_err(gone)? {
                    kicked.push(session.conn.to_string());
                }
            }
        }
        if kicked.is_empty() {
            return Err(Refused::NotFound(format!("user {user:?} has no session on this gateway")));
        }
        Ok(json!({"kicked": kicked}))
    }

    async fn kick_conn(&self, name: &str) -> Outcome {
        let conn: Conn = name.parse().map_err(|()| {
            Refused::BadRequest(format!(
                "conn {name:?}: sessions are called c-<shard>-<number>, as `hello` says"
            ))
        })?;
        let not_found = || Refused::NotFound(format!("there is no session {name} on this gateway"));
        let shard = self.parts.shards.get(conn.shard).ok_or_else(not_found)?;
        let seen = find(shard, conn).await?.ok_or_else(not_found)?;
        if !shard.kick(seen.place).await.map_err(gone)? {
            return Err(not_found());
        }
        Ok(json!({"kicked": [name], "user": seen.user}))
    }

    fn revoke(&self, revocation: &Revocation) -> Outcome {
        let revocations = self.parts.doors.verifier().revocations();
        revocations.revoke(revocation).map_err(|error| Refused::BadRequest(error.to_string()))?;
        Ok(json!({"revocations": revocations.len(), "until": revocation.until}))
    }

    fn set_log_level(&self, level: LogLevel, time: Option<Duration>) -> Outcome {
        if time.is_some_and(|time| time > LOG_LEVEL_TIME_MAX) {
            let max = LOG_LEVEL_TIME_MAX.as_secs();
            return Err(Refused::BadRequest(format!("for_s: at most {max}; beyond that, change log.level")));
        }
        let was = self.log_level.replace(level);
        self.parts.reloader.log().set(level);
        let number = self.log_levels.get() + 1;
        self.log_levels.set(number);
        if let Some(time) = time {
            let (reloader, numbers) = (Arc::clone(&self.parts.reloader), Rc::clone(&self.log_levels));
            let current = Rc::clone(&self.log_level);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(time).await;
                if numbers.get() == number {
                    let configured = reloader.in_effect().borrow().log.level;
                    reloader.log().set(configured);
                    current.set(configured);
                    tracing::info!(level = ?configured, "the log level is the configured one again");
                }
            });
        }
        Ok(json!({"log_level": level, "was": was}))
    }

    async fn reload(&self) -> Outcome {
        let reloader = Arc::clone(&self.parts.reloader);
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload()).await;
        let reloaded = reloaded.map_err(|error| Refused::Failed(error.to_string()))?;
        let reloaded = reloaded.map_err(|error| Refused::Failed(format!("nothing has changed: {error}")))?;
        // What was set for a while gives way to what is configured.
        self.log_levels.set(self.log_levels.get() + 1);
        self.log_level.set(self.parts.reloader.in_effect().borrow().log.level);
        Ok(json!({
            "changed": reloaded.changed,
            "at_restart": reloaded.at_restart,
            "complete": reloaded.complete,
        }))
    }

    fn drain(&self, within: Option<Duration>) -> Outcome {
        let configured = self.parts.reloader.in_effect().borrow().drain_deadline();
        // Full: it is ending already.
        let is_first =
            !self.parts.watched.is_draining() && self.parts.stops.try_send(Stop { within }).is_ok();
        let within_ms = within.unwrap_or(configured).as_millis() as u64;
        Ok(json!({
            "sessions": self.parts.watched.sessions(),
            "within_ms": is_first.then_some(within_ms),
            "already": !is_first,
        }))
    }
}

/// Looks through the shard's sessions, page by page.
async fn find(shard: &Orders, conn: Conn) -> Result<Option<Seen>, Refused> {
    let mut from = 0;
    loop {
        let page = shard.page(from, None).await.map_err(gone)?;
        if let Some(seen) = page.sessions.into_iter().find(|seen| seen.conn == conn) {
            return Ok(Some(seen));
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(None),
        }
    }
}

fn gone(error: ShardGone) -> Refused {
    Refused::Failed(format!("{error}: the gateway is ending"))
}

fn shown(session: &Seen) -> Value {
    let [user, all] = session.positions;
    let position = |(epoch, seq): (u32, u64)| json!({"epoch": format!("{epoch:08x}"), "seq": seq});
    let channels: Vec<_> = session.channels.iter().map(bellwire::Channel::name).collect();
    json!({
        "conn": session.conn.to_string(),
        "user": session.user,
        "state": session.state,
        "protocol": if session.is_v1 { "bellwire.v1.json" } else { "bellwire.bare.json" },
        "tls": session.is_tls,
        "peer": session.peer.map(|peer| peer.to_string()),
        "age_ms": session.age_ms,
        "silent_ms": session.silent_ms,
        "expires": session.expires,
        "channels": channels,
        "waiting": session.waiting,
        "unsent_bytes": session.unsent_bytes,
        "replaying": session.is_replaying,
        "streams": {"user": position(user), "all": position(all)},
    })
}
