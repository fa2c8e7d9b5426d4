//! A client process: many WebSocket sessions on one thread, each with manners of its own.
//!
//! The process reports every frame to the oracle and judges nothing but the bytes of each notification. Where a session
//! left off is what the oracle has of it: after a kill the next process is started with that.

mod frame;
mod manners;
mod session;
pub(crate) mod wire;

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, LocalSet};

use crate::Result;
use crate::life;
use crate::plan::Plan;
pub(crate) use manners::Manners;
use wire::{ENTRY_LEN, Entry};

#[derive(Args, Clone, Debug)]
pub(crate) struct ClientsArgs {
    #[arg(long)]
    parent: u32,
    /// What to connect, and from where on.
    #[arg(long)]
    start: PathBuf,
}

/// What a client process is told at its start.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) gateway: SocketAddr,
    pub(crate) seed: u64,
    pub(crate) users: u32,
    pub(crate) heartbeat_ms: u64,
    pub(crate) sessions: Vec<SessionStart>,
}

/// One session of a client process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SessionStart {
    pub(crate) session: u32,
    pub(crate) user: u32,
    pub(crate) token: String,
    /// Names; empty: all.
    pub(crate) channels: Vec<String>,
    pub(crate) manners: Manners,
    /// Epoch and number in the user's stream and in that of all, where they are known.
    pub(crate) positions: [Option<(String, u64)>; 2],
}

/// Where the sessions report to.
#[derive(Clone)]
struct Report(Rc<RefCell<Vec<u8>>>);

impl Report {
    fn push(&self, entry: Entry) {
        self.0.borrow_mut().extend_from_slice(&entry.to_bytes());
    }

    /// Tells the oracle what was pushed. A slow oracle makes slow clients; that is fair.
    fn flush(&self) -> io::Result<()> {
        let mut entries = self.0.borrow_mut();
        io::stdout().lock().write_all(&entries)?;
        entries.clear();
        io::stdout().lock().flush()
    }
}

pub(crate) fn run(args: &ClientsArgs) -> Result<()> {
    life::die_with(args.parent)?;
    let wishes = life::follow();
    let start: Start = serde_json::from_slice(&std::fs::read(&args.start)?)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, (soft.max(20_000)).min(hard), hard)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = Report(Rc::new(RefCell::new(Vec::with_capacity(1024 * ENTRY_LEN))));
    let plan = Plan { seed: start.seed, users: start.users };
    LocalSet::new().block_on(&runtime, async move {
        let mut sessions = JoinSet::new();
        for session in start.sessions {
            let patience_ms = 3 * start.heartbeat_ms;
            let link = session::Link { gateway: start.gateway, patience_ms, plan };
            sessions.spawn_local(session::run(session, link, report.clone(), wishes.clone()));
        }
        while let Some(ended) = sessions.join_next().await {
            ended??;
        }
        Ok(())
    })
}
