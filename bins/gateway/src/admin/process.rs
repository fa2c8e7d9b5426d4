//! What the kernel says of this process.

use std::fs::{read_dir, read_to_string};

/// What it uses now. What cannot be read is absent, not 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

pub(super) fn usage() -> Usage {
    use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Usage {
        cpu_seconds: getrusage(UsageWho::RUSAGE_SELF)
            .ok()
            .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time())),
        resident_bytes: read_to_string("/proc/self/status").ok().and_then(|text| resident(&text)),
        open_fds: read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
    }
}

fn resident(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_time_and_descriptors() {
        let usage = usage();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(usage.cpu_seconds.is_some());
        assert!(usage.open_fds.is_some_and(|fds| fds >= 3 && fds <= usage.max_fds.unwrap_or(u64::MAX)));
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(resident("VmRSS: many\n"), None);
    }
}
