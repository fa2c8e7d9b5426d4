//! A measurement in a process of its own: a peer that hangs or dies ends nothing but that, and is named.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::ForPeer;
use crate::peer::Peer;
use crate::peers;
use crate::work::{self, Figures, Setting, Work};

/// The first argument of such a process.
pub const ARGUMENT: &str = "--measure";

/// What came out of it.
pub enum Outcome {
    Figures(Figures),
    /// The peer cannot do that work, and does not claim to.
    Cannot,
    /// It should have: why not.
    Failed(String),
}

/// Does the work with the peer of that name, in a process that is stopped if it does not end.
pub fn measure(name: &str, work: Work, setting: Setting) -> Outcome {
    static LINKS: AtomicU32 = AtomicU32::new(0);
    let link = format!("peers-{}-{}", std::process::id(), LINKS.fetch_add(1, Ordering::Relaxed));
    let outcome = in_a_process(name, work, setting, &link);
    // Also after one that could not clean up itself.
    peers::for_name(name, &mut Clean(&link));
    outcome
}

fn in_a_process(name: &str, work: Work, setting: Setting, link: &str) -> Outcome {
    let mut command = Command::new(std::env::current_exe().expect("our own program"));
    command.args([ARGUMENT, name, work.name(), &setting.ms.to_string(), link]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a process");
    let mut stdout = child.stdout.take().expect("piped");
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        let _ = say.send(text);
    });
    // Ten times what it takes on two cores that nobody else uses, and time to begin.
    let limit = Duration::from_millis(setting.ms * 10) + Duration::from_secs(30);
    let text = said.recv_timeout(limit);
    // Its other ends notice that it is gone, and go as well.
    let _ = child.kill();
    let status = child.wait().expect("our child");
    match text {
        Err(_) => Outcome::Failed(format!("did not end within {} s", limit.as_secs())),
        Ok(text) if text.trim() == "cannot" => Outcome::Cannot,
        Ok(text) => {
            let figures: Option<Figures> = text.split_whitespace().map(|word| word.parse().ok()).collect();
            match figures.filter(|figures| figures.len() == work.columns().1.len()) {
                Some(figures) => Outcome::Figures(figures),
                None => Outcome::Failed(format!("ended without figures: {status}")),
            }
        }
    }
}

/// The process's main.
pub fn run(arguments: &[String]) {
    let [name, work, ms, link] = arguments else { panic!("NAME WORK MS LINK") };
    let work = Work::ALL.into_iter().find(|known| known.name() == work).expect("a work");
    let setting = Setting { ms: ms.parse().expect("milliseconds") };
    peers::for_name(name, &mut Measure { work, setting, link });
}

struct Measure<'a> {
    work: Work,
    setting: Setting,
    link: &'a str,
}

impl ForPeer for Measure<'_> {
    fn with<P: Peer>(&mut self) {
        match work::measure::<P>(self.work, self.setting, self.link) {
            Some(figures) => println!("{}", figures.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")),
            None => println!("cannot"),
        }
    }
}

struct Clean<'a>(&'a str);

impl ForPeer for Clean<'_> {
    fn with<P: Peer>(&mut self) {
        work::links(self.0, work::LINKS_MAX).iter().for_each(|link| P::clean(link));
    }
}
