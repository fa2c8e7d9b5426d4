//! Sizes, times and durations that people can read.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `832 B`, `54.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `87 µs`, `4.2 s`, `3h 12m`: two leading parts, no more.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_nanos() {
        0..1_000 => format!("{} ns", duration.as_nanos()),
        1_000..1_000_000 => format!("{:.1} µs", duration.as_nanos() as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", duration.as_nanos() as f64 / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ if seconds < 3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `2024-10-05T10:17:36.789012345Z`; an instant before 1970 or beyond 9999 as the number that it is.
pub(crate) fn time(ns: i64) -> String {
    let instant = u64::try_from(ns).ok().and_then(|ns| UNIX_EPOCH.checked_add(Duration::from_nanos(ns)));
    match instant {
        Some(instant) => humantime::format_rfc3339_nanos(instant).to_string(),
        None => ns.to_string(),
    }
}

/// When it is, if not now: ages in a snapshot are those of then.
static THEN: OnceLock<i64> = OnceLock::new();

/// From here on it is that time. The first call counts.
pub(crate) fn set_now(ns: i64) {
    THEN.get_or_init(|| ns);
}

/// `10:17:36.789012345`: the time of day; an instant outside of the calendar as the number that it is.
pub(crate) fn clock(ns: i64) -> String {
    let time = time(ns);
    time.split_once('T').map_or(time.as_str(), |(_, clock)| clock.trim_end_matches('Z')).to_owned()
}

/// Nanoseconds since the Unix epoch, now; 0 if the clock stands before 1970.
pub(crate) fn now_ns() -> i64 {
    if let Some(then) = THEN.get() {
        return *then;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// How long ago that was; `None` if it lies in the future.
pub(crate) fn age(ns: i64) -> Option<Duration> {
    u64::try_from(now_ns().checked_sub(ns)?).ok().map(Duration::from_nanos)
}

/// `1 line`, `3 lines`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_short() {
        assert_eq!([bytes(0), bytes(1023), bytes(1024)], ["0 B", "1023 B", "1.0 KiB"]);
        assert_eq!([bytes(1_048_575), bytes(56_900_000)], ["1.0 MiB", "54.3 MiB"]);
        let shown = [999, 87_400, 4_200_000_000, 3_720_000_000_000, 200_000_000_000_000]
            .map(|ns| duration(Duration::from_nanos(ns)));
        assert_eq!(shown, ["999 ns", "87.4 µs", "4.2 s", "1h 2m", "2d 7h"]);
    }

    #[test]
    fn times_outside_of_the_calendar_stay_numbers() {
        assert_eq!(time(1_728_123_456_789_012_345), "2024-10-05T10:17:36.789012345Z");
        assert_eq!(time(-5), "-5");
    }
}
