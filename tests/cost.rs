//! What publishing costs: no allocation, no system call.
//!
//! Allocations are counted by the allocator. System calls are forbidden by the kernel: a child installs a seccomp filter
//! that kills it at the first call other than exit, and then publishes. (Strict mode would forbid reading the clock's
//! time-stamp counter, too.)

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use bellwire::{Encoded, Priority, Producer, Reader};
use common::{Bus, eventually, margin_call, note, sized, spawn};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

struct Counting;

thread_local! {
    /// Of this thread: the test harness has one of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOTES: usize = 5_000;

fn publish_some(producer: &mut Producer, encoded: &Encoded) {
    for index in 0..NOTES / 2 {
        producer.publish(&note("user_01", "a title", "some content")).unwrap();
        producer.publish(encoded).unwrap();
        let mut batch = producer.batch();
        batch.push(&margin_call("user_02", "add margin")).unwrap();
        if index % 2 == 0 {
            batch.commit();
        }
    }
}

#[test]
fn child_counts_allocations() {
    let Some(bus) = Bus::inherited() else { return };
    let mut producer = sized(1 << 20).open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    producer.look();
    let encoded = Encoded::new(&note("user_03", "a title", "some content")).unwrap();
    let before = ALLOCATIONS.get();
    publish_some(&mut producer, &encoded);
    let published = ALLOCATIONS.get();
    assert_eq!(published - before, 0, "allocations while publishing");
    let mut read = 0;
    for lane in reader.lanes() {
        for priority in Priority::ALL {
            while let Some(slot) = reader.peek(lane, priority).unwrap() {
                assert!(slot.view().unwrap().user_id().starts_with("user_0"));
                reader.advance(lane, priority);
                read += 1;
            }
        }
    }
    reader.commit(0);
    assert_eq!(read, NOTES + NOTES / 4);
    assert_eq!(ALLOCATIONS.get() - published, 0, "allocations while reading in place");
    // The control: the counter counts.
    let control = Box::new(std::hint::black_box(1));
    assert!(ALLOCATIONS.get() > published, "{control}");
}

#[test]
fn publishing_and_reading_in_place_allocate_nothing() {
    let bus = Bus::new();
    let output = spawn("child_counts_allocations", &bus).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn forbid_system_calls() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut filter = [
        instruction(LOAD_NUMBER, 0, 0),
        instruction(JUMP_IF_EQUAL, 1, libc::SYS_exit as u32),
        instruction(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: a program that outlives the call.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
}

/// Publishes in a process of its own that may not make system calls; 42 if it got to the end.
fn publish_under_seccomp(bus: &str, for_sleeper: bool) -> WaitStatus {
    // SAFETY: the child has one thread, opens its own lane, and ends without running anything of the parent's. (The
    // C library keeps its allocator usable in a forked child.)
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            let mut producer = sized(1 << 20).open(bus, "engine").unwrap();
            if for_sleeper {
                eventually("the consumer is acknowledged", || {
                    producer.look();
                    producer.counters().gating == 1
                });
                std::thread::sleep(Duration::from_millis(50));
            }
            let encoded = Encoded::new(&note("user_03", "a title", "some content")).unwrap();
            producer.look();
            forbid_system_calls();
            publish_some(&mut producer, &encoded);
            // SAFETY: the plain exit, which is the one call allowed.
            unsafe { libc::syscall(libc::SYS_exit, 42) };
            unreachable!("exit does not return");
        }
    }
}

#[test]
fn publishing_makes_no_system_call_when_nobody_sleeps() {
    // The look at consumers, ten times a second, is a system call: on a busy machine it may fall into the few
    // milliseconds that the child publishes for.
    let statuses: Vec<_> = (0..5).map(|_| publish_under_seccomp(&Bus::new(), false)).collect();
    let unharmed = |status: &WaitStatus| matches!(status, WaitStatus::Exited(_, 42));
    assert!(statuses.iter().any(unharmed), "{statuses:?}");
}

#[test]
fn publishing_to_a_sleeper_makes_a_system_call() {
    // The control of the test above: here the kernel kills.
    let bus = Bus::new();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let waker = reader.waker();
    let sleeper = std::thread::spawn(move || reader.wait(Duration::from_secs(60)));
    let status = publish_under_seccomp(&bus, true);
    waker.wake();
    sleeper.join().unwrap();
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{status:?}");
}
