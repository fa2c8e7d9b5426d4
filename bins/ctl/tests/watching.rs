//! `top`: on a real terminal, which is read back through an emulator, and in scripts.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellwire::{Producer, ReaderOptions};
use common::{Bus, PATIENCE, command, meet, notice, small};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

nix::ioctl_write_ptr_bad!(set_size, nix::libc::TIOCSWINSZ, Winsize);

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

/// A terminal with `bellwirectl top` on it.
struct Terminal {
    child: Child,
    keys: File,
    tty: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(bus: &Bus, arguments: &[&str], variables: &[(&str, &str)], (rows, columns): (u16, u16)) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let mut all = vec!["top", "--interval", "50ms", "--bus", &bus.0];
        all.extend(arguments);
        let mut command = command(&all);
        command.env("TERM", "xterm-256color").envs(variables.iter().copied());
        for stream in [Command::stdin, Command::stdout, Command::stderr] {
            stream(&mut command, Stdio::from(pty.slave.try_clone().unwrap()));
        }
        let own_terminal = || {
            nix::unistd::setsid()?;
            // SAFETY: no memory is touched; descriptor 0 is the terminal by then.
            nix::errno::Errno::result(unsafe { nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) })?;
            Ok(())
        };
        // SAFETY: both calls of it are async-signal-safe.
        unsafe { command.pre_exec(own_terminal) };
        let child = command.spawn().unwrap();
        let keys = File::from(pty.master);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let (mut shown, parser) = (keys.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Until the last holder of the other end is gone.
            while let Ok(len @ 1..) = shown.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..len]);
            }
        });
        Self { child, keys, tty: pty.slave, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if condition(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{what} does not come:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn until_it_says(&self, words: &str) -> String {
        self.until(words, |text| text.contains(words))
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.tty).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// Its exit code, once it has ended; the terminal must be as it was.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(!self.is_raw(), "the terminal is left raw");
        // What it wrote last may still be on its way.
        self.until("the former screen", |_| {
            let parser = self.screen.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
        status.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the lane's line is, if it is shown.
fn line_of(text: &str, lane: &str) -> Option<usize> {
    text.lines().position(|line| line.starts_with(lane))
}

#[test]
fn a_bus_is_shown_as_it_lives_and_the_keys_do_what_they_say() {
    let bus = Bus::new();
    let mut busy = Producer::open(&bus.0, "zz-busy").unwrap();
    let _calm = Producer::open(&bus.0, "aa-calm").unwrap();
    let mut terminal = Terminal::start(&bus, &[], &[], (20, 110));
    terminal.until_it_says("2 lanes, 0 consumers");
    assert!(terminal.is_raw());
    // By rate: what publishes stands at the top, with a chart.
    let deadline = Instant::now() + PATIENCE;
    loop {
        for _ in 0..50 {
            busy.publish(&notice("hello")).unwrap();
        }
        let text = terminal.text();
        if line_of(&text, "zz-busy") < line_of(&text, "aa-calm") && text.contains('█') {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // By name, through all the other orders; and back to front.
    terminal.press("ssss");
    terminal.until("by name", |text| {
        text.contains("by name") && line_of(text, "aa-calm") < line_of(text, "zz-busy")
    });
    terminal.press("r");
    terminal.until("reversed", |text| {
        text.contains("reversed") && line_of(text, "zz-busy") < line_of(text, "aa-calm")
    });
    // Filtered as it is typed, and all again.
    terminal.press("/calm");
    terminal.until("the filter", |text| text.contains("/calm_") && line_of(text, "zz-busy").is_none());
    terminal.press("\r");
    let text = terminal.until_it_says("only *calm*");
    assert!(line_of(&text, "aa-calm").is_some() && text.contains("1 of 2 lanes"), "{text}");
    terminal.press("\u{1b}");
    terminal.until("all", |text| line_of(text, "zz-busy").is_some());
    // Frozen: a lane that comes is not shown, until it is let go.
    terminal.press(" ");
    terminal.until_it_says("FROZEN");
    let _late = Producer::open(&bus.0, "mm-late").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(line_of(&terminal.text(), "mm-late").is_none());
    terminal.press(" ");
    terminal.until("the new lane", |text| line_of(text, "mm-late").is_some());
    terminal.press("?");
    terminal.until_it_says("r reverse");
    terminal.press("q");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn trouble_is_seen_a_full_ring_and_a_dead_producer() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut reader);
    while producer.publish(&notice("hello")).is_ok() {}
    let mut terminal = Terminal::start(&bus, &[], &[], (20, 80));
    let text = terminal.until_it_says("gateway");
    let lane = text.lines().find(|line| line.starts_with("risk")).unwrap();
    assert!(
        lane.contains("live") && (lane.contains("98%") || lane.contains("99%") || lane.contains("100%")),
        "{text}"
    );
    drop(producer);
    terminal.until("dead", |text| text.lines().any(|line| line.starts_with("risk") && line.contains("dead")));
    // The terminal becomes so small that little fits, and nothing breaks; then wide.
    for (rows, columns) in [(3, 10), (1, 1), (30, 200)] {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        terminal.screen.lock().unwrap().screen_mut().set_size(cells(rows), cells(columns));
        // SAFETY: the descriptor is a terminal's, and the size lives through the call.
        unsafe { set_size(terminal.tty.as_raw_fd(), &size) }.unwrap();
        kill(Pid::from_raw(terminal.child.id() as i32), Signal::SIGWINCH).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(terminal.child.try_wait().unwrap().is_none(), "it ended at {rows} by {columns}");
    }
    terminal.until_it_says("REFUSED/S");
    terminal.press("\u{3}");
    assert_eq!(terminal.end(), Some(0), "Ctrl-C is an orderly end");
}

#[test]
fn a_signal_ends_it_in_order_and_colours_can_be_refused() {
    let bus = Bus::new();
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    let terminal = Terminal::start(&bus, &[], &[("NO_COLOR", "1")], (10, 80));
    terminal.until_it_says("risk");
    {
        let parser = terminal.screen.lock().unwrap();
        let is_plain = |row, column| {
            parser.screen().cell(row, column).is_none_or(|cell| cell.fgcolor() == vt100::Color::Default)
        };
        assert!((0..10).all(|row| (0..80).all(|column| is_plain(row, column))));
    }
    kill(Pid::from_raw(terminal.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_terminal_that_cannot_is_told_apart() {
    let bus = Bus::new();
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    let terminal = Terminal::start(&bus, &[], &[("TERM", "dumb")], (10, 80));
    terminal.until_it_says("top --once");
    assert_eq!(terminal.end(), Some(1));
}

#[test]
fn scripts_get_one_picture_as_text_or_as_an_object() {
    let bus = Bus::new();
    let mut risk = Producer::open(&bus.0, "risk").unwrap();
    let _matching = Producer::open(&bus.0, "matching").unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut risk, &mut reader);
    risk.publish(&notice("hello")).unwrap();
    // A pipe is no terminal: the same as with --once.
    for arguments in [&["top", "--once", "--interval", "50ms"][..], &["top", "--interval", "50ms"]] {
        let ran = bus.ctl(arguments);
        let out = ran.exits(0);
        let lines: Vec<_> = out.lines().collect();
        assert!(
            lines[0].starts_with("LANE") && lines[1].starts_with("matching") && lines[2].starts_with("risk"),
            "{out}"
        );
        assert!(
            lines[4].starts_with("CONSUMER") && lines[5].starts_with("gateway") && lines.len() == 6,
            "{out}"
        );
    }
    let ran =
        bus.ctl(&["top", "--once", "--interval", "50ms", "--json", "--sort", "age", "--filter", "risk"]);
    ran.exits(0);
    let [object] = &ran.json()[..] else { panic!("{ran:#?}") };
    assert_eq!((&object["schema"], &object["bus"]), (&1.into(), &bus.0.as_str().into()));
    assert_eq!(object["lanes"].as_array().unwrap().len(), 1);
    assert_eq!(object["lanes"][0]["lane"], "risk");
    assert!(object["lanes"][0]["oldest_unread_at"].is_i64(), "{object}");
    // Rates are those between the two looks.
    let child = bus.start(&["top", "--once", "--interval", "2s", "--json"]);
    let until = Instant::now() + Duration::from_millis(1500);
    std::thread::sleep(Duration::from_millis(500));
    let mut count = 0;
    while Instant::now() < until {
        risk.publish(&notice("hello")).unwrap();
        count += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let ran = common::finish(child);
    let rate = ran.json()[0]["records_per_s"].as_f64().unwrap();
    assert!((rate - f64::from(count) / 2.0).abs() < f64::from(count) * 0.2, "{rate} of {count}");
}

#[test]
fn nothing_there_and_nonsense_are_clear_errors() {
    let bus = Bus::new();
    bus.ctl(&["top", "--once"]).says("nothing on bus").exits(3);
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    bus.ctl(&["top", "--once", "--interval", "1ms"]).says("leaves no time").exits(2);
    bus.ctl(&["top", "--once", "--sort", "colour"]).exits(2);
    // An object a look, until it is told to end.
    let child = bus.start(&["top", "--json", "--interval", "20ms"]);
    std::thread::sleep(Duration::from_millis(500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let ran = common::finish(child);
    ran.exits(0);
    assert!(ran.json().len() > 3, "{ran:#?}");
}
