//! What is measured.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::message::{Check, now};
use crate::other_end::{Job, OtherEnd};
use crate::peer::{Peer, Receiver};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Messages a second from one to one, from three to one, from one to three.
    OneToOne,
    ThreeToOne,
    OneToThree,
    /// What sending costs while nobody receives, and while somebody polls.
    SendIdle,
    SendPolled,
    /// From the sender's stamp to the receiver's look, at a rate, spinning or asleep.
    Latency10k,
    Latency100k,
    Parked10k,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub ms: u64,
}

/// What came out, in the unit of the work's columns.
pub type Figures = Vec<f64>;

impl Work {
    pub const ALL: [Self; 8] = [
        Self::OneToOne,
        Self::ThreeToOne,
        Self::OneToThree,
        Self::SendIdle,
        Self::SendPolled,
        Self::Latency10k,
        Self::Latency100k,
        Self::Parked10k,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::OneToOne => "1-to-1",
            Self::ThreeToOne => "3-to-1",
            Self::OneToThree => "1-to-3",
            Self::SendIdle => "send-idle",
            Self::SendPolled => "send-polled",
            Self::Latency10k => "latency-10k",
            Self::Latency100k => "latency-100k",
            Self::Parked10k => "parked-10k",
        }
    }

    /// The title, and the columns; the first is compared.
    pub fn columns(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::OneToOne => ("throughput, one to one", &["M msg/s"]),
            Self::ThreeToOne => ("throughput, three senders to one receiver", &["M msg/s"]),
            Self::OneToThree => ("throughput, one sender to three receivers", &["M msg/s"]),
            Self::SendIdle => ("cost of sending, nobody receives meanwhile", &["ns"]),
            Self::SendPolled => ("cost of sending, the receiver polls", &["ns"]),
            Self::Latency10k => ("one way, 10,000 a second, spinning", &["p50 ns", "p99 ns", "p99.9 ns"]),
            Self::Latency100k => ("one way, 100,000 a second, spinning", &["p50 ns", "p99 ns", "p99.9 ns"]),
            Self::Parked10k => {
                ("one way, 10,000 a second, the receiver sleeps", &["p50 ns", "p99 ns", "p99.9 ns"])
            }
        }
    }

    /// Whether more is better.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::OneToOne | Self::ThreeToOne | Self::OneToThree)
    }
}

/// Links that a work uses at most.
pub const LINKS_MAX: usize = 3;

/// The names of the first links.
pub fn links(link: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{link}-{index}")).collect()
}

/// Does the work with a peer, over links whose names begin so; `None` if the peer cannot.
pub fn measure<P: Peer>(work: Work, setting: Setting, link: &str) -> Option<Figures> {
    let ms = setting.ms;
    let one = format!("{link}-0");
    match work {
        Work::OneToOne => Some(throughput::<P>(&links(link, 1), ms)),
        Work::ThreeToOne => Some(throughput::<P>(&links(link, 3), ms)),
        Work::OneToThree if P::BROADCASTS && !P::THREADS => Some(fan_out::<P>(&one, ms)),
        Work::SendIdle => Some(cost::<P>(&one, ms, false)),
        Work::SendPolled => Some(cost::<P>(&one, ms, true)),
        Work::Latency10k => Some(latency::<P>(&one, 10_000, ms, false)),
        Work::Latency100k => Some(latency::<P>(&one, 100_000, ms, false)),
        Work::Parked10k if P::PARKS => Some(latency::<P>(&one, 10_000, ms, true)),
        Work::OneToThree | Work::Parked10k => None,
    }
}

/// One receiver, and a sender and a link for each name.
fn throughput<P: Peer>(links: &[String], ms: u64) -> Figures {
    let mut receivers: Vec<_> = links.iter().map(|link| P::receiver(link, 0, 1)).collect();
    let mut others: Vec<_> =
        links.iter().map(|link| OtherEnd::start::<P>(link, 1, Job::Flood { ms })).collect();
    let mut checks: Vec<_> = links.iter().map(|_| Check::default()).collect();
    let mut sent: Vec<Option<u64>> = vec![None; links.len()];
    others.iter_mut().for_each(|other| other.say(0));
    let begun = Instant::now();
    while checks.iter().zip(&sent).any(|(check, sent)| sent.is_none_or(|sent| check.received < sent)) {
        for _ in 0..64 {
            for (receiver, check) in receivers.iter_mut().zip(&mut checks) {
                receiver.receive(check, |_| ());
            }
        }
        for (sent, other) in sent.iter_mut().zip(&others).filter(|(sent, _)| sent.is_none()) {
            *sent = other.look();
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    others.iter_mut().for_each(|other| other.say(0));
    let (received, wrong) =
        checks.iter().fold((0, 0), |sum, check| (sum.0 + check.received, sum.1 + check.wrong));
    assert_eq!(wrong, 0, "{} of {received} messages were not as they were sent", wrong);
    vec![received as f64 / seconds / 1e6]
}

/// One sender, three receivers that each get everything.
fn fan_out<P: Peer>(link: &str, ms: u64) -> Figures {
    let mut receiver = P::receiver(link, 0, 3);
    let mut listeners: Vec<_> =
        (1..3).map(|index| OtherEnd::start::<P>(link, 3, Job::Listen { index })).collect();
    let mut other = OtherEnd::start::<P>(link, 3, Job::Flood { ms });
    let mut check = Check::default();
    other.say(0);
    let begun = Instant::now();
    let mut sent = None;
    while sent.is_none_or(|sent| check.received < sent) {
        for _ in 0..64 {
            receiver.receive(&mut check, |_| ());
        }
        sent = sent.or_else(|| other.look());
    }
    let sent = sent.unwrap_or_default();
    listeners.iter_mut().for_each(|listener| listener.say(sent));
    let wrong: u64 = check.wrong + listeners.iter().map(OtherEnd::wait).sum::<u64>();
    let seconds = begun.elapsed().as_secs_f64();
    other.say(0);
    listeners.iter_mut().for_each(|listener| listener.say(0));
    assert_eq!(wrong, 0, "{wrong} messages were not as they were sent");
    vec![check.received as f64 / seconds / 1e6]
}

fn cost<P: Peer>(link: &str, ms: u64, polls: bool) -> Figures {
    let mut receiver = P::receiver(link, 0, 1);
    let mut other = OtherEnd::start::<P>(link, 1, Job::Bursts { bursts: (ms / 5).max(5), len: P::BURST });
    let mut check = Check::default();
    other.say(0);
    let found = loop {
        if polls {
            for _ in 0..1024 {
                receiver.receive(&mut check, |_| ());
            }
        } else {
            // Bursts are short and rare: few of them meet this.
            std::thread::sleep(Duration::from_millis(3));
            while receiver.receive(&mut check, |_| ()) > 0 {}
        }
        if let Some(found) = other.look() {
            break found;
        }
    };
    other.say(0);
    assert_eq!(check.wrong, 0, "messages were not as they were sent");
    vec![found as f64 / 100.0]
}

fn latency<P: Peer>(link: &str, rate: u64, ms: u64, parks: bool) -> Figures {
    let mut receiver = P::receiver(link, 0, 1);
    let mut other = OtherEnd::start::<P>(link, 1, Job::Paced { rate, ms });
    let mut check = Check::default();
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3).expect("bounds");
    other.say(0);
    let (mut sent, mut looked) = (None, 0_u32);
    while sent.is_none_or(|sent| check.received < sent) {
        let received = receiver.receive(&mut check, |stamp| {
            latencies.saturating_record(now().saturating_sub(stamp).max(1));
        });
        if received > 0 {
            continue;
        }
        looked = looked.wrapping_add(1);
        if parks {
            receiver.park(Duration::from_millis(20));
        }
        if (parks || looked.is_multiple_of(1024)) && sent.is_none() {
            sent = other.look();
        }
    }
    other.say(0);
    assert_eq!(check.wrong, 0, "messages were not as they were sent");
    [0.5, 0.99, 0.999].iter().map(|quantile| latencies.value_at_quantile(*quantile) as f64).collect()
}
