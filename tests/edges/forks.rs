//! A forked child has its parent's memory and open files: it must neither write a segment nor keep it owned.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use bellwire::{LaneFault, OpenError, Priority, Producer, PublishError, Reader};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::common::{Bus, eventually, note, small, spawn};
use crate::{drain, publish, said};

/// The kernel lets go of a dead owner's lock while it ends it; this leaves room for a busy machine.
const SOON: Duration = Duration::from_millis(500);

fn exit(code: i32) -> ! {
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

/// Runs `child` in a forked child, which ends with 0 if it gave true, and gives its pid.
fn in_child(child: impl FnOnce() -> bool) -> Pid {
    // SAFETY: the child runs on the only thread that it has, in a process whose other threads (the test harness's) hold no
    // lock that it needs: it does not allocate but in `Producer::open`, whose allocator handles forks.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => exit(i32::from(!child())),
        ForkResult::Parent { child } => child,
    }
}

fn ended_well(child: Pid) -> bool {
    nix::sys::wait::waitpid(child, None).unwrap() == nix::sys::wait::WaitStatus::Exited(child, 0)
}

#[test]
fn a_forked_child_writes_neither_the_lane_nor_the_cursors() {
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    publish(&mut producer, 1);
    publish(&mut producer, 2);
    let files = || {
        let segments = bellwire::inspect::segments(&bus).unwrap();
        segments.into_iter().map(|segment| std::fs::read(segment.path).unwrap()).collect::<Vec<_>>()
    };
    reader.refresh();
    let before = files();
    let mut batch = producer.batch();
    batch.push(&note("user", "of a batch that was begun before the fork", "")).unwrap();
    // The record of the batch is written and not shown.
    let hidden = files();
    let lane = reader.lanes().next().unwrap();
    assert!(ended_well(in_child(move || batch.commit() == 0)), "the child has shown its parent's batch");
    let child = in_child(|| {
        let refused = producer.publish(&note("user", "3", "")) == Err(PublishError::Forked);
        producer.look();
        let unread = matches!(reader.peek(lane, Priority::P1), Err(LaneFault::Forked));
        reader.commit(7);
        reader.wait(Duration::ZERO);
        reader.refresh();
        let nothing_read = reader.round(bellwire::Budget::default(), |_, _| ()) == 0;
        refused && unread && nothing_read
    });
    assert!(ended_well(child), "the child was not refused");
    assert!(files() == hidden, "the child has written");
    assert_eq!(hidden[0].len(), before[0].len());
    assert_eq!(drain(&mut reader), [1, 2]);
    reader.commit(1);
    publish(&mut producer, 3);
    assert_eq!(drain(&mut reader), [3], "the parent goes on");
}

#[test]
#[allow(clippy::zombie_processes, reason = "its children are to outlive it")]
fn child_opens_forks_and_waits() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut producer = small().open(&bus, "engine").unwrap();
    let reader = Reader::open(&bus, "storage").unwrap();
    publish(&mut producer, 1);
    let bare = in_child(|| {
        std::thread::sleep(Duration::from_secs(60));
        true
    });
    let mut executing = Command::new("sleep");
    // A closure makes the standard library fork and exec, instead of spawning in one step.
    //
    // SAFETY: it does nothing.
    unsafe { executing.pre_exec(|| Ok(())) };
    let executed = executing.arg("60").spawn().unwrap();
    println!("forked {bare} {}", executed.id());
    std::thread::sleep(Duration::from_secs(60));
    drop((producer, reader));
}

#[test]
fn children_that_outlive_a_killed_owner_do_not_keep_its_segments() {
    let bus = Bus::new();
    let mut owner = spawn("forks::child_opens_forks_and_waits", &bus);
    let forked = said(owner.stdout.take().unwrap(), "forked ").next().unwrap();
    let children: Vec<_> = forked.split(' ').map(|pid| Pid::from_raw(pid.parse().unwrap())).collect();
    assert!(matches!(Producer::open(&bus, "engine"), Err(OpenError::InUse { pid, .. }) if pid == owner.id()));
    owner.kill().unwrap();
    // It is dead and nobody has waited for it: a zombie.
    let pid = Pid::from_raw(owner.id() as i32);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let killed_at = Instant::now();
    let producer = small().open(&bus, "engine").unwrap();
    let reader = Reader::open(&bus, "storage").unwrap();
    let took = killed_at.elapsed();
    for child in children {
        assert!(kill(child, None).is_ok(), "the children live");
        kill(child, Signal::SIGKILL).unwrap();
    }
    owner.wait().unwrap();
    assert!(took < SOON, "{took:?}");
    assert_eq!(producer.last_sequence(), 1);
    drop(reader);
    println!("edges: a zombie's lane and cursors were taken over within {} us", took.as_micros());
}

#[test]
fn child_forks_while_another_thread_opens_and_closes() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let opener = std::thread::spawn(move || {
        for _ in 0..200 {
            drop(small().open(&bus, "engine").unwrap());
        }
    });
    let mut children = Vec::new();
    while !opener.is_finished() {
        children.push(in_child(|| {
            std::thread::sleep(Duration::from_secs(60));
            true
        }));
        std::thread::sleep(Duration::from_micros(200));
    }
    let opened = opener.join();
    println!("forked {}", children.len());
    std::io::stdin().read_exact(&mut [0]).unwrap();
    for child in children {
        kill(child, Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
    }
    opened.unwrap();
}

#[test]
fn a_child_that_is_forked_while_a_lane_is_opened_or_closed_does_not_keep_it_either() {
    let bus = Bus::new();
    let mut parent = spawn("forks::child_forks_while_another_thread_opens_and_closes", &bus);
    let mut words = said(parent.stdout.take().unwrap(), "forked ");
    let forked: usize = words.next().unwrap().parse().unwrap();
    assert!(forked > 10, "only {forked} forks");
    // All of the children live, and one is enough to keep a lock.
    let opened = small().open(&bus, "engine");
    parent.stdin.take().unwrap().write_all(&[0]).unwrap();
    assert!(
        parent.wait().unwrap().success(),
        "a lane was kept by a child of the process that opened it again"
    );
    opened.unwrap();
}

#[test]
fn child_is_an_engine_that_daemonises_too_late() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut producer = small().open(&bus, "engine").unwrap();
    publish(&mut producer, 1);
    // SAFETY: see `in_child`.
    if let ForkResult::Parent { .. } = unsafe { fork() }.unwrap() {
        std::thread::sleep(Duration::from_millis(100));
        exit(0);
    }
    nix::unistd::setsid().unwrap();
    assert_eq!(producer.publish(&note("user", "2", "")), Err(PublishError::Forked));
    // As long as the parent lives, the lane is his; when he has gone, it can be opened, and the old one be dropped.
    let refused = small().open(&bus, "engine");
    assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
    eventually("the parent has gone", || match small().open(&bus, "engine") {
        Ok(opened) => {
            producer = opened;
            true
        }
        Err(_) => false,
    });
    publish(&mut producer, 2);
    println!("daemon {} {}", std::process::id(), producer.last_sequence());
    exit(0);
}

#[test]
fn an_engine_that_daemonises_after_opening_is_told_and_can_open_again() {
    let bus = Bus::new();
    let mut engine = spawn("forks::child_is_an_engine_that_daemonises_too_late", &bus);
    let mut words = said(engine.stdout.take().unwrap(), "daemon ");
    let daemon = words.next().expect("the daemon has published");
    assert!(engine.wait().unwrap().success());
    assert!(daemon.ends_with(" 2"), "{daemon}");
    let mut reader = Reader::open(&bus, "storage").unwrap();
    assert_eq!(drain(&mut reader), [1, 2]);
}
