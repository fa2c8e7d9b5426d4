//! `bellwirectl journal stats`: what a journal keeps, in numbers.

use std::collections::HashMap;
use std::time::Duration;

use bellwire::{MessageType, Priority};
use bellwire_journal::inspect::Step;
use clap::Args;
use serde_json::{Map, Value, json};

use super::Selection;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::filter::Filter;
use crate::output::line::quote;
use crate::output::progress::Progress;
use crate::output::table::Table;
use crate::output::{Out, human};

/// Users of whom it is counted how much they have. Those who come later are counted together.
const USERS_MAX: usize = 1_000_000;

/// Count what a journal keeps: by type, by priority, and who has most of it
///
/// The rate is over the time from the first to the last record that was counted.
///
/// Examples:
///   bellwirectl journal stats
///   bellwirectl journal stats --since 1h --channel trade --top 20
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Stats {
    #[command(flatten)]
    selection: Selection,
    /// How many of the users with the most records to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
}

/// Records and their bytes.
#[derive(Clone, Copy, Default)]
struct Sum {
    records: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
    }
}

#[derive(Default)]
struct Counts {
    all: Sum,
    first_at: Option<i64>,
    last_at: i64,
    types: HashMap<&'static str, Sum>,
    priorities: [Sum; 4],
    users: HashMap<String, Sum>,
    other_users: Sum,
    unsound: u64,
}

pub(super) fn run(global: &Global, args: &Stats) -> Result<Exit, Failure> {
    let filter = Filter::new(&args.selection.filters);
    let mut walk = args.selection.span.walk(args.selection.dir.listing()?);
    let total = walk.listing().segments.iter().map(|segment| segment.used.unwrap_or(segment.len)).sum();
    let mut progress = Progress::new("counting", total);
    let mut counts = Counts::default();
    let mut read_bytes = 0;
    let damage = loop {
        let step = walk.step().map_err(super::failure)?;
        match &step {
            Step::End => break None,
            Step::Entry(found) => {
                let entry = &found.entry;
                read_bytes += entry.body.len() as u64;
                progress.at(read_bytes);
                if !args.selection.span.has(entry.journalled_at)
                    || !filter.wants_priority_of(&entry.header)
                    || !filter.wants_header(&entry.header)
                {
                    continue;
                }
                match entry.header.view(entry.archive) {
                    Ok(view) if filter.wants(&view) => {
                        let bytes = entry.body.len() as u64;
                        counts.add(
                            view.user_id(),
                            view.message_type(),
                            view.priority,
                            entry.journalled_at,
                            bytes,
                        );
                    }
                    Ok(_) => {}
                    Err(_) => counts.unsound += 1,
                }
            }
            other => {
                if let Some(failure) = super::told(other) {
                    break Some(failure);
                }
            }
        }
    };
    drop(progress);
    let mut out = Out::new(global);
    if global.json {
        out.json(&counts.json(args.top))?
    } else {
        counts.text(&mut out, args.top)?
    }
    out.flush()?;
    match damage {
        Some(damage) => Err(damage),
        None if counts.unsound > 0 => {
            let what = format!("{} could not be read", human::count(counts.unsound, "record"));
            Err(Failure::new(Exit::Unusable, what).next("`bellwirectl journal verify` names the first"))
        }
        None => Ok(Exit::Ok),
    }
}

impl Counts {
    fn add(&mut self, user: &str, message_type: MessageType, priority: Priority, at: i64, bytes: u64) {
        self.all.add(bytes);
        self.first_at.get_or_insert(at);
        self.last_at = at;
        self.types.entry(message_type.name()).or_default().add(bytes);
        self.priorities[priority.index()].add(bytes);
        if let Some(sum) = self.users.get_mut(user) {
            sum.add(bytes);
        } else if self.users.len() < USERS_MAX {
            self.users.entry(user.to_owned()).or_default().add(bytes);
        } else {
            self.other_users.add(bytes);
        }
    }

    fn time(&self) -> Duration {
        let first = self.first_at.unwrap_or(self.last_at);
        Duration::from_nanos(u64::try_from(self.last_at.saturating_sub(first)).unwrap_or(0))
    }

    fn rate(&self) -> f64 {
        let seconds = self.time().as_secs_f64();
        if seconds > 0.0 { self.all.records as f64 / seconds } else { 0.0 }
    }

    /// Most records first; those with as many by name.
    fn sorted<K: AsRef<str>>(sums: &HashMap<K, Sum>, top: usize) -> Vec<(&str, Sum)> {
        let mut sorted: Vec<_> = sums.iter().map(|(name, sum)| (name.as_ref(), *sum)).collect();
        sorted.sort_by(|(a, of_a), (b, of_b)| of_b.records.cmp(&of_a.records).then_with(|| a.cmp(b)));
        sorted.truncate(top);
        sorted
    }

    fn json(&self, top: usize) -> Value {
        let sum = |sum: Sum| json!({"records": sum.records, "bytes": sum.bytes});
        let named = |sums: Vec<(&str, Sum)>| {
            sums.into_iter().map(|(name, of)| (name.to_owned(), sum(of))).collect::<Map<_, _>>()
        };
        json!({
            "records": self.all.records,
            "bytes": self.all.bytes,
            "first_at": self.first_at,
            "last_at": self.first_at.map(|_| self.last_at),
            "per_second": self.rate(),
            "users": self.users.len(),
            "unsound": self.unsound,
            "types": named(Self::sorted(&self.types, usize::MAX)),
            "priorities": self.priorities.iter().map(|of| sum(*of)).collect::<Vec<_>>(),
            "top_users": Self::sorted(&self.users, top).into_iter()
                .map(|(user, of)| json!({"user": user, "records": of.records, "bytes": of.bytes}))
                .collect::<Vec<_>>(),
        })
    }

    fn text(&self, out: &mut Out, top: usize) -> Result<(), Failure> {
        let Some(first_at) = self.first_at else { return out.line("no records") };
        out.line(format_args!(
            "{}, {}, of {}",
            human::count(self.all.records, "record"),
            human::bytes(self.all.bytes),
            human::count(self.users.len() as u64, "user"),
        ))?;
        out.line(format_args!(
            "from {} to {}: {}, {:.1} a second\n",
            human::time(first_at),
            human::time(self.last_at),
            human::duration(self.time()),
            self.rate()
        ))?;
        let share = |sum: Sum| format!("{:.1} %", sum.records as f64 * 100.0 / self.all.records as f64);
        let row =
            |name: String, sum: Sum| [name, sum.records.to_string(), human::bytes(sum.bytes), share(sum)];
        let mut types = Table::new(&["TYPE", ">RECORDS", ">BYTES", ">SHARE"]);
        for (name, sum) in Self::sorted(&self.types, usize::MAX) {
            types.row(row(name.to_owned(), sum));
        }
        for (priority, sum) in Priority::ALL.iter().zip(self.priorities).filter(|(_, sum)| sum.records > 0) {
            types.row(row(format!("all {priority}"), sum));
        }
        types.print(out)?;
        if top > 0 {
            out.line("")?;
            let mut users = Table::new(&["USER", ">RECORDS", ">BYTES", ">SHARE"]);
            for (user, sum) in Self::sorted(&self.users, top) {
                let mut name = String::new();
                quote(&mut name, user);
                users.row(row(name, sum));
            }
            users.print(out)?;
        }
        Ok(())
    }
}
