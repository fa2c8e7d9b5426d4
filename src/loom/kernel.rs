//! What waking asks of the kernel, in a model: the same interface as `doorbell/kernel.rs`.
//!
//! # membarrier
//!
//! The kernel sends an interrupt to every processor on which a thread of a registered process runs; the handler is a full
//! fence. A thread that does not run has passed a full fence when it was taken off its processor. The caller passes one
//! before it sends and one after all have answered, and between sending and answering causality goes both ways. So in
//! the model every instruction of a registered thread that touches shared memory is preceded by a look for a pending
//! interrupt ([`instruction`]); if there is one it passes a SeqCst fence and answers. loom tries every schedule, so the
//! fence falls between any two of its instructions, before the first and behind the last. The look is a relaxed
//! read-modify-write, which orders nothing: without an interrupt it adds no fence. A thread that has come to its end has
//! passed a fence and needs no interrupt.
//!
//! The model has one fence too many in no schedule: that the caller's two fences and the handler's are of one SeqCst
//! order, and that the answer carries causality back, is what the kernel does (it waits for the handlers).
//!
//! # futex
//!
//! The kernel compares the words under a lock that the waker takes too. (Its way around the lock, when there is nobody to
//! wake, is a full fence on either side, which comes to the same.) Nobody wakes by himself: a sleep of any length that
//! needs a wake and does not get it is a deadlock, which loom reports. Sleeps no longer than the bounds for unfenced and
//! unknown producers end at once: their bound is what protects them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use ::loom::sync::atomic::{AtomicU32 as Word, fence};
use ::loom::sync::{Condvar, Mutex};
use ::loom::thread::{self, ThreadId};

use super::atomic::AtomicU32;
use crate::doorbell::{Sleep, UNFENCED_WAIT, UNKNOWN_WAIT};

thread_local! {
    // The threads of a model run in one thread of the process, one execution after the other.
    static KERNEL: RefCell<Option<Arc<Kernel>>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Kernel {
    processors: std::sync::Mutex<Vec<Arc<Processor>>>,
    /// Address of each word that was slept on or woken, and how often it was woken.
    futexes: Mutex<Vec<(usize, u64)>>,
    woken: Condvar,
}

/// A thread of a process that is registered for membarrier.
#[derive(Default)]
pub(super) struct Processor {
    thread: std::sync::Mutex<Option<ThreadId>>,
    interrupts: Word,
    /// The last interrupt that its thread took.
    taken: std::sync::atomic::AtomicU32,
    answered: Mutex<u32>,
    has_answered: Condvar,
}

/// Begins an execution.
#[cfg(test)]
pub(super) fn boot() {
    KERNEL.set(Some(Arc::default()));
}

fn kernel() -> Option<Arc<Kernel>> {
    KERNEL.with_borrow(Clone::clone)
}

/// That of this thread.
fn processor() -> Option<Arc<Processor>> {
    let kernel = kernel()?;
    let processors = kernel.processors.lock().expect("no panic before");
    if processors.is_empty() {
        return None;
    }
    let me = thread::current().id();
    let mine = |processor: &&Arc<Processor>| *processor.thread.lock().expect("no panic before") == Some(me);
    processors.iter().find(mine).cloned()
}

/// To be called before each instruction that touches shared memory: interrupts are answered here.
pub(super) fn instruction() {
    if let Some(processor) = processor() {
        let pending = processor.interrupts.fetch_add(0, Relaxed);
        if pending != processor.taken.swap(pending, Relaxed) {
            fence(SeqCst);
            processor.answer(pending);
        }
    }
}

impl Processor {
    /// For one thread, made before that thread and whoever fences it.
    #[cfg(test)]
    pub(super) fn new() -> Arc<Self> {
        let processor = Arc::<Self>::default();
        let kernel = kernel().expect("booted");
        kernel.processors.lock().expect("no panic before").push(Arc::clone(&processor));
        processor
    }

    /// Runs the thread.
    #[cfg(test)]
    pub(super) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        *self.thread.lock().expect("no panic before") = Some(thread::current().id());
        let result = f();
        *self.thread.lock().expect("no panic before") = None;
        fence(SeqCst);
        self.answer(u32::MAX);
        result
    }

    fn answer(&self, interrupt: u32) {
        *self.answered.lock().expect("no panic before") = interrupt;
        self.has_answered.notify_all();
    }
}

/// Whether the thread that asks is one that can be fenced.
pub(crate) fn register_for_barriers() -> bool {
    processor().is_some()
}

pub(crate) fn barrier() -> bool {
    let processors = kernel().expect("booted").processors.lock().expect("no panic before").clone();
    fence(SeqCst);
    let sent: Vec<_> =
        processors.iter().map(|processor| processor.interrupts.fetch_add(1, Relaxed) + 1).collect();
    for (processor, interrupt) in processors.iter().zip(sent) {
        let mut answered = processor.answered.lock().expect("no panic before");
        while *answered < interrupt {
            answered = processor.has_answered.wait(answered).expect("no panic before");
        }
    }
    fence(SeqCst);
    true
}

pub(crate) fn wake_all(word: &AtomicU32) {
    let kernel = kernel().expect("booted");
    let mut futexes = kernel.futexes.lock().expect("no panic before");
    let address = std::ptr::from_ref(word).addr();
    match futexes.iter_mut().find(|(a, _)| *a == address) {
        Some((_, wakes)) => *wakes += 1,
        None => futexes.push((address, 1)),
    }
    kernel.woken.notify_all();
}

pub(crate) fn sleep(words: &[Sleep<'_>], timeout: Duration) {
    if timeout <= UNFENCED_WAIT.max(UNKNOWN_WAIT) {
        thread::yield_now();
        return;
    }
    let kernel = kernel().expect("booted");
    let mut futexes = kernel.futexes.lock().expect("no panic before");
    if words.iter().any(|sleep| sleep.word.load(Relaxed) != sleep.value) {
        return;
    }
    let wakes = |futexes: &[(usize, u64)]| -> u64 {
        let addresses = words.iter().map(|sleep| std::ptr::from_ref(sleep.word).addr());
        addresses.filter_map(|word| futexes.iter().find(|(a, _)| *a == word)).map(|(_, wakes)| wakes).sum()
    };
    let before = wakes(&futexes);
    while wakes(&futexes) == before {
        futexes = kernel.woken.wait(futexes).expect("no panic before");
    }
}
