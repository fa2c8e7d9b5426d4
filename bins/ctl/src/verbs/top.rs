//! `bellwirectl top`: a bus as it lives, on a terminal; or one look at it, for scripts.

mod rows;
mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use self::rows::{Look, Table};
use self::view::Sort;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::names;
use crate::output::Out;
use crate::stop::Stop;

/// Watch a bus live: lanes by rate, fill and age, consumers, totals
///
/// Each line is a lane: RECORDS/S, BYTES/S and REFUSED/S since the last look; P0 to P3, how much of each
/// ring is unread by the slowest consumer that the producer waits for; AGE of the oldest record that it
/// has not read; RATE, the records of the last looks as a small chart, each lane by its own highest.
/// Below them the consumers: UNREAD records and bytes, AGE of the oldest.
///
/// Keys: q ends; s sorts by the next column, r the other way round; / filters by name, Esc shows all
/// again; space freezes the picture, and lets it go; arrows and PgUp/PgDn move; ? shows the keys.
///
/// With --once, or where standard output is no terminal: two looks, one --interval apart, as text. With
/// --json an object a look: one with --once, else until Ctrl-C. Everything is mapped read-only.
///
/// Examples:
///   bellwirectl top
///   bellwirectl top --sort fill --interval 250ms
///   bellwirectl top --once --sort age | head -5
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Top {
    /// How long to wait between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = names::duration)]
    interval: Duration,
    /// What stands at the top
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    sort: Sort,
    /// Only lanes and consumers whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Two looks as text, and the end
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(global: &Global, args: &Top) -> Result<Exit, Failure> {
    if args.interval < Duration::from_millis(10) {
        return Err(Failure::new(Exit::Usage, "an --interval of less than 10 ms leaves no time to look"));
    }
    // Nothing there is said as every verb says it, and before the screen is taken.
    let look = Look::take(global)?;
    let stop = Stop::on_signals().map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !global.json && !args.once && is_terminal {
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            return Err(Failure::new(
                Exit::Wrong,
                "this terminal cannot move its cursor (TERM is dumb or not set)",
            )
            .next("`bellwirectl top --once` prints one picture"));
        }
        screen::run(global, args, look, &stop)?;
        return Ok(Exit::Ok);
    }
    print(global, args, look, &stop)
}

fn print(global: &Global, args: &Top, mut look: Look, stop: &Stop) -> Result<Exit, Failure> {
    let mut table = Table::default();
    table.add(&look);
    let mut out = Out::new(global);
    loop {
        stop.sleep(args.interval);
        if stop.asked() {
            return Ok(Exit::Ok);
        }
        look = Look::take(global)?;
        table.add(&look);
        let lanes = view::order(&table.lanes, args.sort, false, &args.filter);
        let consumers = view::chosen(&table.consumers, &args.filter);
        if global.json {
            out.json(&rows::Report::new(global.bus(), &table, &lanes, &consumers))?;
        } else {
            view::print(&mut out, &lanes, &consumers)?;
        }
        out.flush()?;
        if args.once || !global.json {
            for problem in &look.problems {
                words(problem);
            }
            return Ok(Exit::Ok);
        }
    }
}
