//! `bellwirectl snapshot`: a bus's segments in one file, to be looked at later.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bellwire::inspect::{self, Segment};
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::libc;

use crate::cli::Global;
use crate::copies::{CONTENTS, Contents, Member};
use crate::exit::Exit;
use crate::failure::{self, Failure, words};
use crate::output::progress::Progress;
use crate::output::{JSON_SCHEMA, Out, human};

/// Copy a bus's segments into one file, to be looked at later or elsewhere
///
/// Lanes and cursors as they are, with what is in the rings, and who lived: a tar archive, compressed
/// with gzip, that `tar xzf` takes apart too. `ls`, `inspect`, `consumers` and `tail` look at it with
/// --copy FILE, `inspect` also with the file as its argument. It needs another build of bellwirectl
/// no more than a bus does: one of the same layout.
///
/// It holds your users' data: only you can read it (mode 0600). The bus is not disturbed, and not stopped
/// either: a record that is written at this moment may be torn in the copy, and is then left out when
/// it is looked at. An existing FILE is left alone unless there is --force.
///
/// Examples:
///   bellwirectl snapshot /var/tmp/main.tar.gz
///   bellwirectl inspect /var/tmp/main.tar.gz
///   bellwirectl tail --all --copy /var/tmp/main.tar.gz --user user_01
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Snapshot {
    /// Where it goes
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(global: &Global, args: &Snapshot) -> Result<Exit, Failure> {
    let bus = global.bus();
    let segments = inspect::segments(bus).map_err(|error| Failure::new(Exit::Usage, error))?;
    if segments.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("nothing on bus {bus}")).next(failure::no_lanes(bus)));
    }
    if !args.force && args.file.symlink_metadata().is_ok() {
        return Err(Failure::new(Exit::Wrong, format!("{}: it exists", args.file.display()))
            .next("--force replaces it"));
    }
    let mut sources = Vec::new();
    let mut missing = 0;
    for segment in &segments {
        match Source::open(segment) {
            Ok(source) => sources.push(source),
            Err(error) => {
                words(format_args!("{}: not copied: {error}", segment.path.display()));
                missing += 1;
            }
        }
    }
    if sources.is_empty() {
        return Err(Failure::new(Exit::Refused, format!("no segment of bus {bus} can be read"))
            .next("run as root, or as the user or a member of the group that `bellwirectl ls` shows"));
    }
    let contents = Contents {
        schema: JSON_SCHEMA,
        bus: bus.to_owned(),
        taken_at: human::now_ns(),
        host: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        segments: sources.iter().map(Source::member).collect(),
    };
    let copied: u64 = contents.segments.iter().map(|member| member.bytes).sum();
    let len =
        write(&args.file, &contents, &mut sources).map_err(|error| Failure::file(&args.file, &error))?;
    let mut out = Out::new(global);
    if global.json {
        out.json(&serde_json::json!({
            "file": args.file.display().to_string(), "bytes": len, "bus": bus, "taken_at": contents.taken_at,
            "segments": contents.segments, "missing": missing,
        }))?;
    } else {
        let count = human::count(contents.segments.len() as u64, "segment");
        out.line(format!(
            "{}: {count} of bus {bus}, {}, in {}",
            args.file.display(),
            human::bytes(copied),
            human::bytes(len)
        ))?;
    }
    out.flush()?;
    Ok(if missing > 0 { Exit::Wrong } else { Exit::Ok })
}

/// A segment's file, open, so that it can be copied whatever happens to its name.
struct Source<'a> {
    segment: &'a Segment,
    name: String,
    file: File,
    len: u64,
}

impl<'a> Source<'a> {
    fn open(segment: &'a Segment) -> io::Result<Self> {
        // A FIFO must not make us wait, nor a link lead us elsewhere.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(&segment.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let name = segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { segment, name, file, len: metadata.len() })
    }

    fn member(&self) -> Member {
        Member { file: self.name.clone(), bytes: self.len, held: self.segment.held }
    }
}

/// Writes it under another name first: under its own it is there as a whole or not at all. Tells its length.
fn write(path: &Path, contents: &Contents, sources: &mut [Source<'_>]) -> io::Result<u64> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600.
    let unfinished = tempfile::Builder::new().prefix(".bellwire-snapshot-").tempfile_in(dir)?;
    let encoder = GzEncoder::new(BufWriter::new(unfinished.as_file()), Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    let text = serde_json::to_vec_pretty(contents)?;
    archive.append_data(&mut header(text.len() as u64, contents.taken_at), CONTENTS, &text[..])?;
    let all: u64 = sources.iter().map(|source| source.len).sum();
    let mut progress = Progress::new("copying", all);
    let mut done = 0;
    for source in sources {
        // From its head on: what the head says of the rings is then older than what is in them, and a reader of the copy
        // finds records that were overwritten meanwhile, as a slow tap does. A file that has become shorter ends in zeros.
        let whole = (&source.file).chain(io::repeat(0)).take(source.len);
        let mut counted = Counted { from: whole, done: &mut done, progress: &mut progress };
        archive.append_data(&mut header(source.len, contents.taken_at), &source.name, &mut counted)?;
    }
    archive.into_inner()?.finish()?.flush()?;
    unfinished.as_file().sync_all()?;
    let len = unfinished.as_file().metadata()?.len();
    unfinished.persist(path).map_err(|error| error.error)?;
    Ok(len)
}

fn header(len: u64, taken_at: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(len);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(taken_at).unwrap_or_default() / 1_000_000_000);
    header
}

/// Tells how far it has been read.
struct Counted<'a, R> {
    from: R,
    done: &'a mut u64,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(into)?;
        *self.done += len as u64;
        self.progress.at(*self.done);
        Ok(len)
    }
}
