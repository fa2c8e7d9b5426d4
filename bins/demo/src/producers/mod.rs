//! The producer processes. Each is this same program started with a hidden subcommand, and has a lane of its own.
//!
//! ```text
//! matching-engine ══lane══▶ account ══lane══▶ risk ══lane══▶
//!        ║                     ║               ║
//!        ╚═════════════════════╩═══════════════╩═══════▶ gateway ──▶ clients
//! ```
//!
//! The account system learns of trades as everybody else does: it is a consumer of the bus. So is risk control.
//!
//! Standard input is the lifeline: when it ends, the process finishes what it has and exits. Standard output carries the
//! [`audit`](crate::audit). If the parent is killed, the kernel kills these processes too.

pub(crate) mod account;
pub(crate) mod engine;
mod publisher;
mod render;
pub(crate) mod risk;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwire::{OpenError, Waker};
use clap::Args;

use crate::exchange::User;
use crate::exchange::book::BookError;

/// Lane names. The account system and risk control are consumers under the same names.
pub(crate) const ENGINE: &str = "matching-engine";
pub(crate) const ACCOUNT: &str = "account";
pub(crate) const RISK: &str = "risk";

/// What a producer process is told by its parent.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProducerArgs {
    #[arg(long)]
    pub(crate) bus: String,
    #[arg(long)]
    pub(crate) users: User,
    /// How many consumers must gate the lane before the first publish.
    #[arg(long)]
    pub(crate) consumers: usize,
    #[arg(long)]
    pub(crate) parent: u32,
}

/// Why a producer process ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProducerError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("publishing {what:?}: {error}")]
    Publish { what: bellwire::MessageType, error: bellwire::PublishError },
    #[error("lane {lane}: ring still full after {seconds} s; a consumer hangs")]
    Stuck { lane: String, seconds: u64 },
    #[error("lane {lane}: {found} of {expected} consumers after {seconds} s")]
    Consumers { lane: String, found: usize, expected: usize, seconds: u64 },
    #[error("lane {lane} lost {lost} records to this reader, which gates it")]
    Lost { lane: String, lost: u64 },
    #[error("the audit cannot be written: {0}")]
    Audit(#[from] std::io::Error),
    #[error("cannot become {program}: {error}")]
    Exec { program: String, error: std::io::Error },
    #[error("the parent is gone")]
    Orphan,
    #[error("{0}")]
    Kernel(#[from] nix::errno::Errno),
}

/// Tells when the parent wants an end. Dropping it does nothing: the thread ends with the process.
#[derive(Clone)]
pub(crate) struct Lifeline(Arc<AtomicBool>);

impl Lifeline {
    /// Ties this process to its parent.
    pub(crate) fn tie(parent: u32, waker: Option<Waker>) -> Result<Self, ProducerError> {
        die_with(parent)?;
        let cut = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&cut);
        std::thread::spawn(move || {
            // Nobody writes to it; what counts is its end.
            let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
            shared.store(true, Ordering::Relaxed); // nothing else is handed over with it
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Ok(Self(cut))
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed) // pairs with nothing: it is looked at again soon
    }
}

/// Lets the kernel kill this process when its parent dies, however it dies.
pub(crate) fn die_with(parent: u32) -> Result<(), ProducerError> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // It may have died before we asked.
    if nix::unistd::getppid().as_raw() as u32 != parent {
        return Err(ProducerError::Orphan);
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
