//! The machine: kernel, shared memory, limits.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bellwire::SegmentKind;
use bellwire::inspect::{DEFAULT_LANE_BYTES, kernel_features};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::finding::{Finding, Severity};
use crate::bus::Picture;
use crate::output::human;

const SHM: &str = "/dev/shm";

/// Sessions that a gateway takes unless its configuration says otherwise, and some descriptors for itself.
const FILES_OF_A_GATEWAY: u64 = 16_000 + 256;

pub(super) fn examine(pictures: &[Picture]) -> Vec<Finding> {
    let mut findings = vec![kernel()];
    findings.extend(shared_memory(pictures));
    findings.extend(files());
    findings
}

fn kernel() -> Finding {
    let features = kernel_features();
    let missing: Vec<_> = [
        ("futex_waitv (Linux 5.16)", features.futex_waitv),
        ("membarrier (Linux 4.16)", features.membarrier),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| (!is_there).then_some(name))
    .collect();
    if missing.is_empty() {
        return Finding::ok("kernel", "machine", "futex_waitv and membarrier are there");
    }
    let what = format!("no {}: sleeping readers look every millisecond", missing.join(", no "));
    Finding::new(Severity::Warn, "kernel", "machine", what)
        .next("nothing is lost, but it costs CPU; use a newer kernel, or a container that does not forbid these calls")
}

fn shared_memory(pictures: &[Picture]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stat = match std::fs::metadata(SHM) {
        Ok(stat) => stat,
        Err(error) => {
            let next = format!("mount a tmpfs there: mount -t tmpfs -o mode=1777,size=1g tmpfs {SHM}");
            return vec![Finding::new(Severity::Bad, "space", SHM, error).next(next)];
        }
    };
    let mode = stat.mode() & 0o7777;
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        let what = format!("mode {mode:04o} has no sticky bit: anybody can remove everybody's segments");
        findings
            .push(Finding::new(Severity::Bad, "permissions", SHM, what).next(format!("chmod 1777 {SHM}")));
    }
    if !statfs(SHM).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC) {
        let what = "no tmpfs: what is published goes to a disk";
        findings.push(
            Finding::new(Severity::Warn, "space", SHM, what)
                .next(format!("mount a tmpfs there: mount -t tmpfs -o mode=1777,size=1g tmpfs {SHM}")),
        );
    }
    match nix::sys::statvfs::statvfs(SHM) {
        Ok(fs) => {
            let unit = fs.fragment_size();
            findings.push(space(pictures, fs.blocks_available() * unit, fs.blocks() * unit));
        }
        Err(error) => findings.push(Finding::new(Severity::Warn, "space", SHM, error.desc())),
    }
    findings
}

/// Room for one more lane as large as the largest there is, and for what segments with holes do not have yet.
fn space(pictures: &[Picture], free: u64, size: u64) -> Finding {
    let segments = || pictures.iter().flat_map(|picture| &picture.segments);
    let lanes = segments().filter(|segment| segment.kind == SegmentKind::Lane);
    let lane = lanes.map(|segment| segment.len).max().unwrap_or(DEFAULT_LANE_BYTES);
    let holes: u64 = segments().map(|segment| holes(&segment.path, segment.len)).sum();
    let (free_text, size_text) = (human::bytes(free), human::bytes(size));
    let enlarge = format!(
        "enlarge it (mount -o remount,size=2g {SHM}; `--shm-size` for containers), or see what `bellwirectl gc` \
         would remove"
    );
    if holes > free {
        let what = format!(
            "{free_text} of {size_text} free, and segments lack {} of the memory that they were made for",
            human::bytes(holes)
        );
        return Finding::new(Severity::Bad, "space", SHM, what).next(enlarge);
    }
    if free - holes < lane {
        let what = format!(
            "{free_text} of {size_text} free: another lane of {} does not fit; a producer that made one would get an error",
            human::bytes(lane)
        );
        return Finding::new(Severity::Warn, "space", SHM, what).next(enlarge);
    }
    Finding::ok("space", SHM, format!("{free_text} of {size_text} free, a lane takes {}", human::bytes(lane)))
}

/// Bytes of the file that have no memory yet.
fn holes(path: &Path, len: u64) -> u64 {
    path.symlink_metadata()
        .map_or(0, |stat| if stat.is_file() { len.saturating_sub(stat.blocks() * 512) } else { 0 })
}

fn files() -> Option<Finding> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if hard >= FILES_OF_A_GATEWAY {
        let what = format!("{soft} files, up to {hard} for who asks (a gateway does)");
        return Some(Finding::ok("limits", "machine", what));
    }
    let what = format!(
        "at most {hard} open files (RLIMIT_NOFILE) for what is started from here; a gateway takes one for each \
         session, 16000 by default"
    );
    let next =
        "LimitNOFILE= in the gateway's unit, `nofile` in limits.conf, or a smaller limits.sessions_total";
    Some(Finding::new(Severity::Warn, "limits", "machine", what).next(next))
}
