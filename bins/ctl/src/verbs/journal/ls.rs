//! `bellwirectl journal ls`: the segment files.

use bellwire_journal::inspect::SegmentFile;
use clap::Args;
use serde::Serialize;

use super::Dir;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Out, human};

/// List the segment files of a journal
///
/// USED is how much of a file holds entries; `-` is the one that is written, or was when its gateway
/// died. STATE: `open`, `full` (no more is written to it), `synced` (all of it is on disk). CHAIN is the
/// length of its chain, see `journal verify`.
///
/// Examples:
///   bellwirectl journal ls
///   bellwirectl journal ls --dir /mnt/incident/journal --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Ls {
    #[command(flatten)]
    dir: Dir,
}

#[derive(Serialize)]
struct Row<'a> {
    path: String,
    base: u64,
    journal_id: String,
    created_at: i64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain_bytes: Option<u64>,
    #[serde(skip)]
    segment: &'a SegmentFile,
}

impl<'a> Row<'a> {
    fn new(segment: &'a SegmentFile) -> Self {
        Self {
            path: segment.path.display().to_string(),
            base: segment.base,
            journal_id: format!("{:016x}", segment.journal_id),
            created_at: segment.created_at,
            bytes: segment.file_len,
            used: segment.used,
            state: match (segment.is_durable, segment.used) {
                (true, _) => "synced",
                (false, Some(_)) => "full",
                (false, None) => "open",
            },
            generation: segment.generation,
            chain_bytes: segment.chain_len,
            segment,
        }
    }
}

pub(super) fn run(global: &Global, args: &Ls) -> Result<Exit, Failure> {
    let listing = args.dir.listing()?;
    let rows: Vec<Row<'_>> = listing.segments.iter().map(Row::new).collect();
    let mut out = Out::new(global);
    if global.json {
        rows.iter().try_for_each(|row| out.json(row))?;
    } else {
        let mut table = Table::new(&["SEGMENT", "BEGUN", ">SIZE", ">USED", ">CHAIN", "STATE"]);
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), human::bytes);
        for row in &rows {
            table.row([
                format!("{:016x}", row.base),
                human::time(row.segment.created_at),
                human::bytes(row.bytes),
                size(row.used),
                size(row.chain_bytes),
                row.state.to_owned(),
            ]);
        }
        table.print(&mut out)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}
