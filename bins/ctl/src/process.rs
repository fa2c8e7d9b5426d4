//! Owners of segments, as /proc shows them.

use std::fs;

/// Whether the process stands still: stopped by a signal or by a debugger.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "pid (name) state ...", and a name may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// Files that the process has open, and how many it may have; none if we may not look.
pub(crate) fn files(pid: u32) -> Option<(u64, u64)> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some((open, line.split_whitespace().next()?.parse().ok()?))
}

/// The program's name, for people.
pub(crate) fn name(pid: u32) -> String {
    // The kernel's own name of it is cut after 15 bytes, but everybody may read that.
    let file = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let file = file.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = file.or_else(|| fs::read_to_string(format!("/proc/{pid}/comm")).ok()).unwrap_or_default();
    let mut quoted = String::new();
    crate::output::line::quote(&mut quoted, name.trim_end());
    quoted
}
