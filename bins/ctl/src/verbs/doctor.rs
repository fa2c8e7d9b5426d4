//! `bellwirectl doctor`: what is wrong with this machine and with a bus, and what to do about it.

mod clock;
mod finding;
mod logind;
mod machine;
mod segments;
mod traffic;

use anstyle::{AnsiColor, Style};
use bellwire::inspect;
use clap::Args;

use self::finding::{Finding, Severity};
use crate::bus::Picture;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{self, Failure, words};
use crate::output::{Out, human};

/// Say what is wrong with this machine and the bus, and what to do next
///
/// The machine: kernel features, room and mode of /dev/shm, file limits, whether systemd-logind would
/// take segments away when their user logs out. Each bus (all, or that of --bus): segments of other
/// builds, owners or groups, damaged, stale and blank ones; producers and consumers that are dead or
/// stopped, and who waits for them; full rings; clocks that were set.
///
/// Each finding is `ok`, `warn` (look at it in the daytime) or `bad` (somebody loses something, or soon
/// will). What it says of other users' processes and segments is more when it runs as root, with --group.
///
/// Exit code 0 if nothing is bad, 1 if something is (with --strict: or is a warning), 3 if nothing is
/// bad but there is no such bus.
///
/// Examples:
///   bellwirectl doctor
///   bellwirectl doctor --problems --group bellwire
///   bellwirectl doctor --json | jq -r 'select(.severity == "bad") | .next'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Doctor {
    /// Only what is not ok
    #[arg(long)]
    problems: bool,
    /// Warnings count as bad for the exit code
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(global: &Global, args: &Doctor) -> Result<Exit, Failure> {
    let place = global.place();
    let buses = match &global.bus {
        Some(bus) => vec![bus.clone()],
        None => inspect::buses(),
    };
    let mut pictures = Vec::new();
    for bus in &buses {
        pictures.push(Picture::take(bus, place)?);
    }
    let mut findings = machine::examine(&pictures);
    logind::examine(&pictures, &mut findings);
    let mut nothing = pictures.is_empty();
    for picture in &pictures {
        if picture.segments.is_empty() {
            nothing = true;
            let what = format!("nothing on bus {}", picture.bus);
            let next = failure::no_lanes(&picture.bus);
            findings.push(Finding::new(Severity::Warn, "bus", &picture.bus, what).next(next));
            continue;
        }
        segments::examine(picture, &mut findings);
        traffic::examine(picture, place, &mut findings);
        clock::examine(picture, &mut findings);
    }
    if pictures.is_empty() {
        let next =
            "it comes with its first producer or gateway; `bellwirectl publish --help` shows how to try";
        findings.push(Finding::new(Severity::Warn, "bus", "-", "no bus is on this machine").next(next));
    }
    let shown = findings.iter().filter(|finding| !args.problems || finding.severity != Severity::Ok);
    let mut out = Out::new(global);
    for finding in shown {
        if global.json {
            out.json(finding)?;
        } else {
            print(&mut out, finding)?;
        }
    }
    out.flush()?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (warnings, bad) = (count(Severity::Warn), count(Severity::Bad));
    words(match (bad, warnings) {
        (0, 0) => "all is well".to_owned(),
        (0, _) => format!("nothing is bad; {}", human::count(warnings as u64, "warning")),
        _ => format!("{bad} bad, {}", human::count(warnings as u64, "warning")),
    });
    Ok(match (bad, warnings) {
        (1.., _) => Exit::Wrong,
        _ if nothing => Exit::Nothing,
        (0, 1..) if args.strict => Exit::Wrong,
        _ => Exit::Ok,
    })
}

fn print(out: &mut Out, finding: &Finding) -> Result<(), Failure> {
    let style = match finding.severity {
        Severity::Ok => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Severity::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Severity::Bad => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
    };
    let severity = out.styled(style, format!("{:<4}", finding.severity.word()));
    out.line(format!("{severity}  {:<12} {}: {}", finding.check, finding.subject, finding.what))?;
    match &finding.next {
        None => Ok(()),
        Some(next) => next.lines().try_for_each(|line| out.line(format!("{:19}-> {line}", ""))),
    }
}
