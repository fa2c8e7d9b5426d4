//! Messages at a rate or flat out, what the clients saw of them, and the little of the system that it takes.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::feed::{Feed, To};
use super::{Load, WINDOW};

/// Without a message for so long, some are lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Sends so many, at that rate, each to a random session, and waits until all have come.
pub fn run(clients: &mut Clients, feed: &mut Feed, rate: Option<u64>, messages: u64) -> Result<Load, String> {
    let begin = clients.received;
    clients.latencies.clear();
    let received = AtomicU64::new(0);
    let sessions = clients.len() as u64;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<(), String> {
            wake_on_time();
            let start = now_ns();
            let mut random = 0x9e37_79b9_7f4a_7c15u64;
            let mut sent = 0;
            while sent < messages {
                let due = match rate {
                    Some(rate) => ((now_ns() - start) * rate / 1_000_000_000 + 1).min(messages),
                    // A window, so that nothing waits without bound anywhere.
                    None => messages.min(received.load(Ordering::Relaxed) + WINDOW), // a number on its own
                };
                while sent < due {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let intended = rate.map_or_else(now_ns, |rate| start + sent * 1_000_000_000 / rate);
                    feed.push(To::One((random % sessions) as usize), intended)?;
                    sent += 1;
                }
                feed.flush()?;
                let until_next =
                    rate.map(|rate| (start + sent * 1_000_000_000 / rate).saturating_sub(now_ns()));
                std::thread::sleep(until_next.map_or(Duration::from_micros(20), Duration::from_nanos));
            }
            Ok(())
        });
        let mut last = Instant::now();
        while clients.received - begin < messages {
            let before = clients.received;
            clients.turn(Duration::from_millis(100))?;
            received.store(clients.received - begin, Ordering::Relaxed); // as above
            if clients.received > before {
                last = Instant::now();
            } else if last.elapsed() > LOST_AFTER {
                // So that the sender ends as well.
                received.store(u64::MAX / 2, Ordering::Relaxed);
                return Err(format!("{} of {messages} messages came", clients.received - begin));
            }
        }
        sender.join().unwrap_or_else(|_| Err("the sender panicked".to_owned()))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    clients.latencies.sort_unstable();
    let quantile =
        |at: f64| clients.latencies[((clients.latencies.len() - 1) as f64 * at) as usize] as f64 / 1e3;
    Ok(Load { per_s: messages as f64 / seconds, p50_us: quantile(0.5), p99_us: quantile(0.99), cpu_us: 0.0 })
}

/// The kernel wakes a sleeper up to 50 µs late, to wake several at once: here that would make pairs of what is meant to come
/// one by one.
fn wake_on_time() {
    // SAFETY: takes two numbers; refused, it changes nothing.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// One message to all: how long until the last session has it.
pub fn broadcast(clients: &mut Clients, feed: &mut Feed) -> Result<Duration, String> {
    let wanted = clients.received + clients.len() as u64;
    let begun = Instant::now();
    feed.push(To::All, now_ns())?;
    feed.flush()?;
    while clients.received < wanted {
        clients.turn(Duration::from_millis(100))?;
        if begun.elapsed() > LOST_AFTER {
            return Err(format!("a broadcast did not reach {} sessions", wanted - clients.received));
        }
    }
    Ok(begun.elapsed())
}

pub fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

/// Makes room for the sessions of a process.
pub fn raise_descriptors(sessions: usize) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is ours and lives through both calls.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    if raised != 0 || limit.rlim_max < sessions as u64 + 100 {
        return Err(format!(
            "{sessions} sessions need more open files than the {} that are allowed",
            limit.rlim_max
        ));
    }
    Ok(())
}

/// An epoll that tells numbers.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> Result<Self, String> {
        // SAFETY: makes a descriptor, which is owned from here on.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error().to_string());
        }
        // SAFETY: just made, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    /// Tells `number` whenever there is something to read.
    pub fn add(&self, fd: RawFd, number: u64) -> Result<(), String> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        // SAFETY: both descriptors are open, and the event lives through the call.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().to_string()),
        }
    }

    pub fn wait(&mut self, time: Duration) -> Result<Vec<u64>, String> {
        let len = self.events.len() as i32;
        // SAFETY: the buffer has room for `len` events.
        let count = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), len, time.as_millis() as i32)
        };
        let count = usize::try_from(count).unwrap_or_default(); // interrupted: nothing yet
        Ok(self.events[..count].iter().map(|event| event.u64).collect())
    }
}
