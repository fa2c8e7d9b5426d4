//! The other end of a link: a process, or for queues between threads a thread. It is told what to do when it starts,
//! begins at a word, and says in the end what it found.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::message::{Check, Message, now};
use crate::peer::{Peer, Receiver, Sender};

/// The first argument of such a process.
pub const ARGUMENT: &str = "--other-end";

/// What it does.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// Sends as fast as there is room, for so many milliseconds; finds how many it sent.
    Flood { ms: u64 },
    /// Sends bursts with pauses between them; finds the median of nanoseconds a message.
    Bursts { bursts: u64, len: u64 },
    /// Sends so many a second, for so many milliseconds; finds how many it sent.
    Paced { rate: u64, ms: u64 },
    /// Receives beside the receiver that measures, until it has so many as it is told at the end; finds how many were wrong.
    Listen { index: usize },
}

impl Job {
    fn to_arguments(self) -> Vec<String> {
        let (name, numbers) = match self {
            Self::Flood { ms } => ("flood", vec![ms]),
            Self::Bursts { bursts, len } => ("bursts", vec![bursts, len]),
            Self::Paced { rate, ms } => ("paced", vec![rate, ms]),
            Self::Listen { index } => ("listen", vec![index as u64]),
        };
        std::iter::once(name.to_owned()).chain(numbers.iter().map(u64::to_string)).collect()
    }

    fn from_arguments(arguments: &[String]) -> Self {
        let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
        match arguments[0].as_str() {
            "flood" => Self::Flood { ms: number(1) },
            "bursts" => Self::Bursts { bursts: number(1), len: number(2) },
            "paced" => Self::Paced { rate: number(1), ms: number(2) },
            "listen" => Self::Listen { index: number(1) as usize },
            other => panic!("no job {other}"),
        }
    }
}

/// The other end, as the end that measures sees it.
pub enum OtherEnd {
    Process { child: Child, stdin: ChildStdin, found: mpsc::Receiver<u64> },
    Thread { words: mpsc::Sender<u64>, found: mpsc::Receiver<u64> },
}

impl OtherEnd {
    /// Starts it and waits until it is ready.
    pub fn start<P: Peer>(link: &str, receivers: usize, job: Job) -> Self {
        let (say_found, found) = mpsc::channel();
        let this = if P::THREADS {
            let (words, heard) = mpsc::channel();
            let (link, say) = (link.to_owned(), say_found);
            std::thread::spawn(move || {
                let ready = say.clone();
                carry_out::<P>(
                    &link,
                    receivers,
                    job,
                    move || ready.send(0).is_ok(),
                    &heard,
                    |found| {
                        let _ = say.send(found);
                    },
                );
            });
            Self::Thread { words, found }
        } else {
            let mut command = Command::new(std::env::current_exe().expect("our own program"));
            command.args([ARGUMENT, P::NAME, link, &receivers.to_string()]).args(job.to_arguments());
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
            let stdin = child.stdin.take().expect("piped");
            let stdout: ChildStdout = child.stdout.take().expect("piped");
            std::thread::spawn(move || {
                let numbers =
                    BufReader::new(stdout).lines().map_while(Result::ok).filter_map(|line| line.parse().ok());
                numbers.map(|number| say_found.send(number)).all(|sent| sent.is_ok())
            });
            Self::Process { child, stdin, found }
        };
        this.found().recv().expect("the other end is ready");
        this
    }

    /// Says a number: to a sender that it may begin, to a listener how many there were.
    pub fn say(&mut self, number: u64) {
        match self {
            Self::Process { stdin, .. } => writeln!(stdin, "{number}").expect("the other end lives"),
            Self::Thread { words, .. } => words.send(number).expect("the other end lives"),
        }
    }

    fn found(&self) -> &mpsc::Receiver<u64> {
        match self {
            Self::Process { found, .. } | Self::Thread { found, .. } => found,
        }
    }

    /// What it found, if it is through.
    pub fn look(&self) -> Option<u64> {
        self.found().try_recv().ok()
    }

    /// Waits for what it found; if it never ends, whoever started this process does (`isolated`).
    pub fn wait(&self) -> u64 {
        self.found().recv().expect("the other end ends")
    }
}

impl Drop for OtherEnd {
    fn drop(&mut self) {
        if let Self::Process { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The process's main.
pub fn run<P: Peer>(arguments: &[String]) {
    let receivers = arguments[1].parse().expect("a number");
    let (words, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = words.send(line.parse().expect("a number"));
        }
        // Whoever measures is gone.
        std::process::exit(1);
    });
    let say = |number: u64| println!("{number}");
    let ready = move || {
        say(0);
        true
    };
    carry_out::<P>(&arguments[0], receivers, Job::from_arguments(&arguments[2..]), ready, &heard, say);
    // What was sent must not go away with us: the other side says when.
    let _ = heard.recv();
}

fn carry_out<P: Peer>(
    link: &str,
    receivers: usize,
    job: Job,
    ready: impl FnOnce() -> bool,
    heard: &mpsc::Receiver<u64>,
    say: impl FnOnce(u64),
) {
    if let Job::Listen { index } = job {
        let mut receiver = P::receiver(link, index, receivers);
        ready();
        return say(listen(&mut receiver, heard));
    }
    let mut sender = P::sender(link, receivers);
    ready();
    let Ok(_) = heard.recv() else { return };
    let found = match job {
        Job::Flood { ms } => flood(&mut sender, ms),
        Job::Bursts { bursts, len } => bursts_of(&mut sender, bursts, len),
        Job::Paced { rate, ms } => paced(&mut sender, rate, ms),
        Job::Listen { .. } => unreachable!("above"),
    };
    say(found);
    // The sender stays until everything was received.
    let _ = heard.recv();
}

fn send(sender: &mut impl Sender, message: &Message) {
    while !sender.send(message) {
        std::hint::spin_loop();
    }
}

fn flood(sender: &mut impl Sender, ms: u64) -> u64 {
    let end = now() + ms * 1_000_000;
    let mut sequence = 0;
    while now() < end {
        for _ in 0..256 {
            send(sender, &Message::new(sequence, 0));
            sequence += 1;
        }
    }
    sequence
}

fn bursts_of(sender: &mut impl Sender, bursts: u64, len: u64) -> u64 {
    let mut costs = Vec::new();
    let mut sequence = 0;
    for _ in 0..bursts {
        std::thread::sleep(Duration::from_millis(4));
        let begun = now();
        for _ in 0..len {
            send(sender, &Message::new(sequence, 0));
            sequence += 1;
        }
        // In hundredths of a nanosecond.
        costs.push((now() - begun) * 100 / len);
    }
    costs.sort_unstable();
    costs[costs.len() / 2]
}

fn paced(sender: &mut impl Sender, rate: u64, ms: u64) -> u64 {
    let begun = now();
    let total = rate * ms / 1_000;
    for sequence in 0..total {
        let due = begun + sequence * 1_000_000_000 / rate;
        while now() < due {
            std::hint::spin_loop();
        }
        send(sender, &Message::new(sequence, now()));
    }
    total
}

fn listen(receiver: &mut impl Receiver, heard: &mpsc::Receiver<u64>) -> u64 {
    let mut check = Check::default();
    let mut total = u64::MAX;
    let mut idle = 0_u32;
    while check.received < total {
        if receiver.receive(&mut check, |_| ()) == 0 {
            idle += 1;
            if idle.is_multiple_of(1024)
                && let Ok(number) = heard.try_recv()
            {
                total = number;
            }
            std::hint::spin_loop();
        }
    }
    check.wrong
}
