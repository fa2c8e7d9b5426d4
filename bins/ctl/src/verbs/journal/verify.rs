//! `bellwirectl journal verify`: whether a journal is as it was written.

use std::path::PathBuf;

use bellwire_journal::ChainKey;
use bellwire_journal::inspect::{Anchor, Verdict, VerifyError, verify};
use clap::Args;
use serde_json::json;

use super::Dir;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{Out, human};

/// Longest key file that is read, in bytes.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Check a journal: that every record is whole, in order, and as it was written
///
/// Reads all of it: the checksum of every record, the numbers of every stream, and every link of the
/// chain. The first thing that is wrong is named: which record was altered, is missing, or stands in
/// another's place.
///
/// A chain is a hash over each record and all before it. The gateway makes it a tenth of a second behind
/// the journal; what came since is counted as `not linked yet`. With `journal.chain_key_file` nobody
/// without that key can make one. Without, whoever may write the files can make it anew: then compare
/// with links that were noted elsewhere. The gateway's log has one for each segment ("journal chain"),
/// and this verb prints the newest, for the next time.
///
/// Exit code 0 if all is as it should be, 1 if not, 4 if the key is missing or another one.
///
/// Examples:
///   bellwirectl journal verify
///   bellwirectl journal verify --key-file /etc/bellwire/chain.key
///   bellwirectl journal verify --anchor 0000c0a000000000:51200:9f2c…e1
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Verify {
    #[command(flatten)]
    dir: Dir,
    /// The chain's key (`journal.chain_key_file` in the gateway's configuration)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A link that was noted before, as SEGMENT:RECORDS:LINK; may be repeated
    #[arg(long, value_name = "ANCHOR")]
    anchor: Vec<Anchor>,
}

pub(super) fn run(global: &Global, args: &Verify) -> Result<Exit, Failure> {
    let key = key(args)?;
    let listing = args.dir.listing()?;
    let total = listing.segments.iter().map(|segment| segment.used.unwrap_or(segment.len)).sum();
    let mut progress = Progress::new("verifying", total);
    let verdict = verify(listing, &key, &args.anchor, &mut |bytes| progress.at(bytes));
    drop(progress);
    let verdict = verdict.map_err(|error| match error {
        VerifyError::Journal(error) => super::failure(error),
        VerifyError::Key(error) => Failure::new(Exit::Refused, error)
            .next("give the gateway's `journal.chain_key_file` with --key-file, or none if it has none"),
    })?;
    let mut out = Out::new(global);
    if global.json {
        out.json(&json!({
            "whole": verdict.finding.is_none(),
            "finding": verdict.finding.as_ref().map(ToString::to_string),
            "segments": verdict.segments,
            "records": verdict.records,
            "bytes": verdict.bytes,
            "linked": verdict.linked,
            "before_chain": verdict.before_chain,
            "not_linked_yet": verdict.behind_chain,
            "begins_anew": verdict.begins,
            "anchors_held": verdict.anchors_held,
            "anchors_gone": verdict.anchors_gone,
            "newest_link": verdict.head.map(|head| head.to_string()),
        }))?;
    } else {
        text(&mut out, &verdict)?;
    }
    out.flush()?;
    match verdict.finding {
        None => Ok(Exit::Ok),
        Some(finding) => Err(Failure::new(Exit::Wrong, finding).next(format!(
            "{} before it are as they were written; keep the files as they are and see OPERATING.md, \"A journal that is not whole\"",
            human::count(verdict.records, "record")
        ))),
    }
}

fn text(out: &mut Out, verdict: &Verdict) -> Result<(), Failure> {
    let state = if verdict.finding.is_none() { "whole" } else { "NOT WHOLE; read" };
    out.line(format_args!(
        "{state}: {}, {} in {}",
        human::count(verdict.records, "record"),
        human::bytes(verdict.bytes),
        human::count(verdict.segments, "segment"),
    ))?;
    out.line(format_args!("linked: {}; not linked yet: {}", verdict.linked, verdict.behind_chain))?;
    if verdict.before_chain > 0 {
        out.line(format_args!(
            "without a chain: {}, journalled before there was one",
            human::count(verdict.before_chain, "record")
        ))?;
    }
    for base in &verdict.begins {
        out.line(format_args!(
            "the chain begins anew at {base:016x}: it was off, or its key was another one"
        ))?;
    }
    if verdict.anchors_held + verdict.anchors_gone > 0 {
        out.line(format_args!(
            "anchors: {} hold; {} of segments that have left the journal",
            verdict.anchors_held, verdict.anchors_gone
        ))?;
    }
    if let Some(head) = verdict.head {
        out.line(format_args!("newest link: {head}"))?;
    }
    Ok(())
}

fn key(args: &Verify) -> Result<ChainKey, Failure> {
    use std::io::Read as _;
    let Some(path) = &args.key_file else { return Ok(ChainKey::public()) };
    let mut key = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(KEY_BYTES_MAX).read_to_end(&mut key))
        .map_err(|error| Failure::file(path, &error))?;
    while key.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        key.pop();
    }
    ChainKey::secret(&key).map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))
}
