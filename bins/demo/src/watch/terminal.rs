//! What the demo says: a table that lives on a terminal, one line a second anywhere else, and the summary.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use super::latency::{Quantiles, TARGETS_NS};
use super::oracle::Verdict;
use super::tally::{ClassLook, Look, QuantilesUs, Tally};

const CLASSES: [&str; 4] =
    ["P0  rejections, risk", "P1  orders, trades", "P2  accounts, positions", "P3  system, expiries"];

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

pub(crate) struct Terminal {
    /// Standard output is a terminal that understands escape codes.
    live: bool,
    colour: bool,
    /// Lines of the table that stands there now.
    drawn: usize,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var("TERM").map_or(true, |term| term == "dumb");
        let live = std::io::stdout().is_terminal() && !dumb;
        Self { live, colour: live && !set("NO_COLOR"), drawn: 0 }
    }

    /// A line above the table.
    pub(crate) fn say(&mut self, words: &str) {
        let text = format!("{}{words}\n", self.up());
        self.drawn = 0;
        print(&text);
    }

    pub(crate) fn show(&mut self, look: &Look) {
        if self.live {
            let table = self.table(look);
            let text = format!("{}{table}", self.up());
            self.drawn = table.lines().count();
            print(&text);
        } else {
            print(&line(look));
        }
    }

    /// The end of a run. `problem`: why the run is a failure although the counts are right.
    pub(crate) fn summary(&mut self, look: &Look, tally: &Tally, verdict: &Verdict, problem: Option<&str>) {
        let mut out = self.up();
        self.drawn = 0;
        let quantiles = tally.quantiles();
        let (published, _) = tally.oracle.counts();
        let _ =
            writeln!(out, "\n{}Summary{} after {:.1} s", self.paint(BOLD), self.paint(PLAIN), look.elapsed_s);
        let _ =
            writeln!(out, "  published   {:>12} notifications by three processes", thousands(look.published));
        let _ = writeln!(
            out,
            "  delivered   {:>12} of {} to {} clients",
            thousands(verdict.delivered),
            thousands(verdict.expected),
            look.users
        );
        for (name, count) in [
            ("lost", verdict.lost),
            ("doubled", verdict.doubled),
            ("out of order", verdict.reordered),
            ("foreign", verdict.foreign),
            ("unknown", verdict.unknown),
        ] {
            let colour = self.paint(if count == 0 { GREEN } else { RED });
            let _ = writeln!(out, "  {name:<12}{colour}{:>12}{}", thousands(count), self.paint(PLAIN));
        }
        for (name, count) in [
            ("gateway killed and started again", u64::from(tally.gateway_restarts)),
            ("gaps seen by clients", tally.gaps),
            ("streams that could not be resumed", tally.resyncs),
            ("connections that broke and were resumed", tally.reconnects),
            ("states left out for slow clients", tally.conflated),
            ("tries at a full ring", tally.refused),
        ] {
            if count > 0 {
                let _ = writeln!(out, "  {name}: {}", thousands(count));
            }
        }
        let _ = writeln!(
            out,
            "\n  {:<24}{:>11} {:>11} {:>11} {:>11} {:>11}",
            "publish to client", "published", "p50", "p99", "max", "target p99"
        );
        for (class, name) in CLASSES.iter().enumerate() {
            let target = TARGETS_NS[class];
            let (values, met) = match quantiles[class] {
                Some(Quantiles { p50, p99, max }) => ([ns(p50), ns(p99), ns(max)], p99 < target),
                None => (std::array::from_fn(|_| "-".to_owned()), true),
            };
            let (colour, word) = if met { (GREEN, "met") } else { (RED, "MISSED") };
            let _ = writeln!(
                out,
                "  {name:<24}{:>11} {:>11} {:>11} {:>11} {:>11} {}{word}{}",
                thousands(published[class]),
                values[0],
                values[1],
                values[2],
                format!("< {}", ns(target)),
                self.paint(colour),
                self.paint(PLAIN)
            );
        }
        let clean = verdict.is_clean() && problem.is_none();
        if let (false, Some(complaint)) = (clean, &tally.complaint) {
            let _ = writeln!(out, "\n  first complaint: {complaint}");
        }
        let (colour, words) = match (clean, problem) {
            (true, _) => (GREEN, "Every notification arrived exactly once and in order.".to_owned()),
            (false, Some(problem)) => (RED, format!("FAILED: {problem}")),
            (false, None) => {
                (RED, "FAILED: not every notification arrived exactly once and in order.".to_owned())
            }
        };
        let _ = writeln!(out, "\n{}{words}{}", self.paint(colour), self.paint(PLAIN));
        print(&out);
    }

    fn table(&self, look: &Look) -> String {
        let (bold, dim, plain) = (self.paint(BOLD), self.paint(DIM), self.paint(PLAIN));
        let mut out = String::new();
        let seconds = look.elapsed_s as u64;
        let _ = writeln!(
            out,
            "\n  {bold}{:02}:{:02}{plain}   published {} ({bold}{}/s{plain})   delivered {} ({bold}{}/s{plain})   {} sessions   under way {}",
            seconds / 60,
            seconds % 60,
            thousands(look.published),
            thousands(look.published_rate as u64),
            thousands(look.delivered),
            thousands(look.delivered_rate as u64),
            look.sessions,
            thousands(look.under_way as u64),
        );
        let _ = writeln!(
            out,
            "\n  {dim}{:<24}{:>12} {:>12} {:>10} {:>10} {:>10}   {:<12}{plain}",
            "publish to client", "published/s", "delivered/s", "p50", "p99", "max", "target p99"
        );
        for (class, name) in look.classes.iter().zip(CLASSES) {
            let ClassLook { published_rate, delivered_rate, target_us, now, run } = class;
            let met = run.is_none_or(|run| run.p99 < *target_us);
            let _ = writeln!(
                out,
                "  {name:<24}{:>12} {:>12} {:>10} {:>10} {:>10}   < {:<8} {}{}{plain}",
                thousands(*published_rate as u64),
                thousands(*delivered_rate as u64),
                us(*now, |q| q.p50),
                us(*now, |q| q.p99),
                us(*now, |q| q.max),
                ns((*target_us * 1e3) as u64),
                self.paint(if met { GREEN } else { RED }),
                if met { "met" } else { "missed" },
            );
        }
        let troubles = [
            (look.gaps, "gaps"),
            (look.reconnects, "connections broke"),
            (look.refused, "tries at a full ring"),
        ];
        for (count, name) in troubles.into_iter().filter(|(count, _)| *count > 0) {
            let _ = writeln!(out, "  {}{} {name}{plain}", self.paint(RED), thousands(count));
        }
        out
    }

    /// Back to the first line of the table, and away with it.
    fn up(&self) -> String {
        if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() }
    }

    fn paint(&self, code: &'static str) -> &'static str {
        if self.colour { code } else { "" }
    }
}

fn line(look: &Look) -> String {
    let mut out = format!(
        "{:>5.0} s  published {}/s  delivered {}/s  under way {}  p99",
        look.elapsed_s,
        thousands(look.published_rate as u64),
        thousands(look.delivered_rate as u64),
        look.under_way
    );
    for (index, class) in look.classes.iter().enumerate() {
        let _ = write!(out, "  P{index} {}", us(class.now, |q| q.p99));
    }
    if look.refused + look.reconnects + look.gaps > 0 {
        let _ = write!(out, "  ({} full, {} broken, {} gaps)", look.refused, look.reconnects, look.gaps);
    }
    out.push('\n');
    out
}

fn us(quantiles: Option<QuantilesUs>, of: fn(QuantilesUs) -> f64) -> String {
    quantiles.map_or("-".to_owned(), |quantiles| ns((of(quantiles) * 1e3) as u64))
}

/// A time in the unit that suits it.
fn ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000_000 => return format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    if value == value.round() || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.2} {unit}")
    }
}

/// `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A reader that went away is no reason to fail: the exit code is what counts then.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [740_000, 1_000_000, 1_520_000, 100_000_000, 1_000_000_000].map(ns),
            ["740 µs", "1 ms", "1.52 ms", "100 ms", "1 s"]
        );
    }
}
