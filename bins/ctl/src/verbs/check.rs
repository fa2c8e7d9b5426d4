//! `bellwirectl check`: a plugin for Nagios, Icinga and whatever else calls such.

mod gateway;
mod on_bus;
mod outcome;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::outcome::Outcome;
pub(crate) use self::outcome::State;
use crate::bus::Picture;
use crate::cli::Global;
use crate::failure::{self, Failure};
use crate::names;
use crate::output::Out;

/// What the codes of this verb mean.
const CODES: &str = "\
Exit codes (those of Nagios, not those of the other verbs):
  0  OK
  1  WARNING
  2  CRITICAL
  3  UNKNOWN: it could not be found out, or the arguments make no sense";

/// Check a bus and its gateway, as a plugin for Nagios or Icinga
///
/// The first line is the state and what is wrong, then performance data; further lines are one trouble
/// each with what to do next. Of several states the worst counts: CRITICAL, WARNING, UNKNOWN, OK.
///
/// CRITICAL  a ring filled beyond --critical-fill; a dead consumer that producers wait for; publishes
///           refused during --sample; unread for longer than --max-lag; a producer or consumer that is
///           to live and does not; a damaged or foreign segment; a gateway that is not ready; a lane
///           that it has quarantined
/// WARNING   a ring filled beyond --warning-fill; other dead consumers; a producer that was killed; no
///           consumer at all; a gateway that drains or has few files left
/// UNKNOWN   nothing on the bus, or nothing that we may read
///
/// The bus is looked at twice, --sample apart. The gateway is asked only where --socket or --admin say
/// how; the control socket is for its place, the admin listener is the only one that knows which lanes
/// are quarantined.
///
/// Examples:
///   bellwirectl check --max-lag 2s --producer matching-engine --consumer gateway
///   bellwirectl check --group bellwire --admin 127.0.0.1:9464 --warning-fill 50 --critical-fill 80
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, after_help = CODES)]
pub(crate) struct Check {
    /// How full a ring may be with what a consumer has not read, in percent: WARNING
    #[arg(long, value_name = "PERCENT", default_value = "70", value_parser = clap::value_parser!(u64).range(..=100))]
    warning_fill: u64,
    /// The same: CRITICAL
    #[arg(long, value_name = "PERCENT", default_value = "90", value_parser = clap::value_parser!(u64).range(..=100))]
    critical_fill: u64,
    /// How old the oldest unread record of a consumer may be, by its own timestamp [default: any]
    #[arg(long, value_name = "TIME", value_parser = names::duration)]
    max_lag: Option<Duration>,
    /// How long to watch for refused publishes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = names::duration)]
    sample: Duration,
    /// A producer that is to live; several times for several
    #[arg(long, value_name = "NAME")]
    producer: Vec<String>,
    /// A consumer that is to live; several times for several
    #[arg(long, value_name = "NAME")]
    consumer: Vec<String>,
    /// Ask the gateway through its control socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Ask the gateway through its admin listener
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Longest wait for the gateway
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = names::duration)]
    timeout: Duration,
}

/// Its exit code is the state; failing to find out is one, too.
pub(crate) fn run(global: &Global, args: &Check) -> State {
    let mut outcome = Outcome::new(global.bus());
    if let Err(failure) = look(global, args, &mut outcome) {
        outcome.failed(State::Unknown, failure);
    }
    if let Some(path) = &args.socket {
        gateway::through_socket(path, args.timeout, &mut outcome);
    }
    if let Some(address) = &args.admin {
        gateway::through_admin(address, args.timeout, &mut outcome);
    }
    // Nobody reads it: the exit code still says it.
    let mut out = Out::new(global);
    let _ = if global.json { out.json(&outcome) } else { outcome.print(&mut out) };
    let _ = out.flush();
    outcome.state()
}

fn look(global: &Global, args: &Check, outcome: &mut Outcome) -> Result<(), Failure> {
    let place = global.place();
    let before = Picture::take(global.bus(), place)?;
    if before.segments.is_empty() {
        let what = format!("nothing on bus {}", before.bus);
        outcome.trouble(State::Unknown, what, Some(failure::no_lanes(&before.bus)));
    } else {
        std::thread::sleep(args.sample);
    }
    let now = Picture::take(global.bus(), place)?;
    on_bus::examine(args, place, &before, &now, outcome);
    Ok(())
}
