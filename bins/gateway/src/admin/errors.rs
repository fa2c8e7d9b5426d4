//! The warnings and errors of late, each once: what the log said, for those who do not have the log at hand.

use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Distinct ones that are kept. At the bound the one goes that was seen longest ago.
const KEPT_MAX: usize = 32;
/// Longest text that is kept of one, in bytes.
const TEXT_LEN_MAX: usize = 512;

/// A process has one log, and this is the end of it.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
/// Those that came while somebody looked: nobody who logs waits for that.
static PASSED_BY: AtomicU64 = AtomicU64::new(0);

struct Kept {
    level: Level,
    text: String,
    count: u64,
    first_ms: u64,
    last_ms: u64,
}

/// Keeps the warnings and errors that pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecentErrors;

impl<S: Subscriber> Layer<S> for RecentErrors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut kept = match KEPT.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                PASSED_BY.fetch_add(1, Ordering::Relaxed); // a number for people
                return;
            }
        };
        keep(&mut kept, level, text.0, now_ms());
    }
}

fn keep(kept: &mut Vec<Kept>, level: Level, text: String, now_ms: u64) {
    if let Some(known) = kept.iter_mut().find(|known| known.level == level && known.text == text) {
        known.count += 1;
        known.last_ms = now_ms;
        return;
    }
    if kept.len() >= KEPT_MAX
        && let Some(oldest) = (0..kept.len()).min_by_key(|&index| kept[index].last_ms)
    {
        kept.remove(oldest);
    }
    kept.push(Kept { level, text, count: 1, first_ms: now_ms, last_ms: now_ms });
}

/// The newest first.
pub(super) fn recent() -> Value {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.sort_by_key(|kept| std::cmp::Reverse(kept.last_ms));
    let errors: Vec<_> = kept
        .iter()
        .map(|kept| {
            json!({
                "level": kept.level.as_str().to_ascii_lowercase(),
                "text": kept.text,
                "count": kept.count,
                "first_ms": kept.first_ms,
                "last_ms": kept.last_ms,
            })
        })
        .collect();
    json!({"errors": errors, "passed_by": PASSED_BY.load(Ordering::Relaxed)})
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The message, then the fields.
struct Text(String);

impl Text {
    fn cut(&mut self) {
        if self.0.len() > TEXT_LEN_MAX {
            let end = (0..=TEXT_LEN_MAX).rev().find(|&end| self.0.is_char_boundary(end)).unwrap_or(0);
            self.0.truncate(end);
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            write!(self.0, "{value:?}{rest}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
        self.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_once_and_the_one_seen_longest_ago_goes() {
        let mut kept = Vec::new();
        for round in 0..3 {
            for number in 0..KEPT_MAX as u64 {
                keep(&mut kept, Level::WARN, number.to_string(), round * 100 + number);
            }
        }
        assert_eq!(kept.len(), KEPT_MAX);
        assert!(kept.iter().all(|kept| kept.count == 3));
        keep(&mut kept, Level::WARN, "0".to_owned(), 1_000);
        keep(&mut kept, Level::ERROR, "0".to_owned(), 1_001);
        let texts: Vec<_> = kept.iter().map(|kept| (kept.level, kept.text.as_str())).collect();
        assert_eq!(texts.len(), KEPT_MAX);
        assert!(texts.contains(&(Level::WARN, "0")) && texts.contains(&(Level::ERROR, "0")));
        assert!(!texts.contains(&(Level::WARN, "1")));
    }
}
