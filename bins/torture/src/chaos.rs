//! What happens to the processes, and when: drawn from the seed before the run begins.

use std::fmt;
use std::time::Duration;

/// A process that something may happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Gateway,
    Storage,
    Producer(u8),
    Clients(u8),
}

impl Target {
    /// Its kind, for the table.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Storage => "storage",
            Self::Producer(_) => "producer",
            Self::Clients(_) => "clients",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway | Self::Storage => f.write_str(self.kind()),
            Self::Producer(index) | Self::Clients(index) => write!(f, "{}-{index}", self.kind()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL, and a new process after that time.
    Kill { down: Duration },
    /// SIGSTOP, and SIGCONT after that time.
    Stop { during: Duration },
    /// An orderly end, and a new process after that time.
    Restart { down: Duration },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// To one process, or to two at once.
    Blows(Vec<(Target, Blow)>),
    /// The journal's disk is full for that long.
    DiskFull(Duration),
    /// /dev/shm is full for that long.
    ShmFull(Duration),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull(during) => write!(f, "journal's disk full for {} ms", during.as_millis()),
            Self::ShmFull(during) => write!(f, "/dev/shm full for {} ms", during.as_millis()),
            Self::Blows(blows) => {
                for (index, (target, blow)) in blows.iter().enumerate() {
                    let (word, time) = match blow {
                        Blow::Kill { down } => ("SIGKILL, back after", down),
                        Blow::Stop { during } => ("SIGSTOP for", during),
                        Blow::Restart { down } => ("restart, back after", down),
                    };
                    let and = if index == 0 { "" } else { "; at once " };
                    write!(f, "{and}{target}: {word} {} ms", time.as_millis())?;
                }
                Ok(())
            }
        }
    }
}

/// What a schedule is drawn for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) seconds: u64,
    pub(crate) producers: u8,
    pub(crate) client_processes: u8,
    /// Longest stop.
    pub(crate) stop_max: Duration,
    /// Events a minute, about.
    pub(crate) events_per_minute: u32,
}

/// Runs shorter than this have no stops of up to the longest.
const LONG_RUN_S: u64 = 120;

/// For so long nothing happens to the gateway, in turn with phases in which it is struck the most: else no session would
/// ever live long enough to be slow or silent for too long.
const GATEWAY_PHASE_MS: u64 = 15_000;

/// The usual longest stop.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The events of a run and their times, in order.
pub(crate) fn schedule(seed: u64, setting: &Setting) -> Vec<(Duration, Event)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut events = Vec::new();
    let mean_ms = 60_000 / u64::from(setting.events_per_minute.max(1));
    // A moment of peace at the start.
    let mut at_ms = 1_000;
    let mut full_at_ms = rng.u64(2_000..9_000);
    let mut long_stop_at_ms = rng.u64(30_000..90_000);
    while at_ms < setting.seconds * 1000 {
        let gateway_lives = at_ms / GATEWAY_PHASE_MS % 2 == 1;
        let event = if at_ms >= full_at_ms {
            full_at_ms = at_ms + rng.u64(10_000..25_000);
            let during = Duration::from_millis(rng.u64(500..6_000));
            if rng.u8(..3) == 0 { Event::ShmFull(during / 2) } else { Event::DiskFull(during) }
        } else if setting.seconds >= LONG_RUN_S && at_ms >= long_stop_at_ms {
            long_stop_at_ms = at_ms + rng.u64(120_000..240_000);
            let max_ms = setting.stop_max.as_millis() as u64;
            let during = Duration::from_millis(rng.u64(max_ms / 6..=max_ms));
            Event::Blows(vec![(target(&mut rng, setting, gateway_lives), Blow::Stop { during })])
        } else {
            let first = target(&mut rng, setting, gateway_lives);
            let mut blows = vec![(first, blow(&mut rng))];
            if rng.u8(..5) == 0 {
                let second = target(&mut rng, setting, gateway_lives);
                if second != first {
                    blows.push((second, blow(&mut rng)));
                }
            }
            Event::Blows(blows)
        };
        events.push((Duration::from_millis(at_ms), event));
        at_ms += rng.u64(mean_ms / 10..mean_ms * 2);
    }
    events
}

fn target(rng: &mut fastrand::Rng, setting: &Setting, gateway_lives: bool) -> Target {
    match rng.u8(if gateway_lives { 35 } else { 0 }..100) {
        0..35 => Target::Gateway,
        35..70 => Target::Producer(rng.u8(..setting.producers)),
        70..85 => Target::Storage,
        _ => Target::Clients(rng.u8(..setting.client_processes)),
    }
}

fn blow(rng: &mut fastrand::Rng) -> Blow {
    let down = Duration::from_millis(if rng.bool() { rng.u64(..50) } else { rng.u64(..1_500) });
    match rng.u8(..100) {
        0..50 => Blow::Kill { down },
        50..85 => {
            // As many short ones as long ones, on a scale of powers.
            let (least, most) = (10f64.ln(), (STOP_MAX.as_millis() as f64).ln());
            let ms = (least + rng.f64() * (most - least)).exp();
            Blow::Stop { during: Duration::from_millis(ms as u64) }
        }
        _ => Blow::Restart { down },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_everything_occurs() {
        let setting = Setting {
            seconds: 600,
            producers: 4,
            client_processes: 2,
            stop_max: Duration::from_secs(30),
            events_per_minute: 120,
        };
        let events = schedule(7, &setting);
        assert_eq!(events, schedule(7, &setting));
        assert_ne!(events, schedule(8, &setting));
        assert!(events.is_sorted_by_key(|(at, _)| *at));
        let words: Vec<String> = events.iter().map(|(_, event)| event.to_string()).collect();
        for word in [
            "SIGKILL",
            "SIGSTOP",
            "restart",
            "at once",
            "disk full",
            "/dev/shm full",
            "gateway",
            "storage",
            "producer-3",
            "clients-1",
        ] {
            assert!(words.iter().any(|event| event.contains(word)), "{word}");
        }
        assert!(words.iter().all(|event| !event.contains("producer-4")));
    }
}
