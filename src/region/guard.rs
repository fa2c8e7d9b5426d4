//! Surviving the loss of memory that is mapped from a file.
//!
//! Whoever may write a file may also truncate it, and then every process that has it mapped gets SIGBUS at its next access
//! behind the new end. So the owner of one lane could end the gateway, and whoever owns a cursor segment could end every
//! engine. The guard turns that into an error of that one segment: a handler for SIGBUS that finds the mapping in a table
//! puts zeros in its place and marks it as *gone*. The access is then repeated and reads zeros, and whoever reads on looks
//! at the mark (or finds that zeros break the rules) and says what happened.
//!
//! A library must not install signal handlers unasked: [`guard_mappings`] is for programs to call. Without it everything
//! works as before, and a truncated segment is the end of the process.
//!
//! # Why the handler never touches a mapping that is not ours
//!
//! It replaces only a mapping that contains the faulting address and is in the table. A mapping is entered after it was
//! made and taken out before it is unmapped, both by its owner, and only who borrows from the owner accesses it. So while
//! a thread is stopped at an access to one of our mappings, that mapping cannot go, and its entry cannot change. An entry
//! that changes while it is looked at belongs to another mapping, and the faulting access was to somebody else's memory;
//! start and end that do not belong together are recognised by the entry's version (a sequence lock: [`Entry::get`]).
//!
//! Two threads that fault in one mapping both replace it, zeros by zeros; a third one that reads meanwhile sees the old
//! pages, faults itself, or sees zeros, since the kernel replaces a mapping in one step.
//!
//! # Why the handler may do what it does
//!
//! It loads and stores lock-free atomics and makes system calls (mmap; sigaction and raise on the way out), allocates
//! nothing, takes no lock, and leaves errno as it found it. Other SIGBUS, sent ones included, go where they went before.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Mappings that are guarded at the same time in one process: a gateway has a hundred, an engine with many lanes a few
/// hundred. Further ones are not guarded.
const MAPPINGS_MAX: usize = 1024;

/// An address that nothing is mapped at, or a machine check at a page that was accessed. Not in the libc crate.
const BUS_ADRERR: libc::c_int = 2;
const BUS_MCEERR_AR: libc::c_int = 4;

static TABLE: [Entry; MAPPINGS_MAX] = [const { Entry::new() }; MAPPINGS_MAX];

/// What was done about SIGBUS before the handler was installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// One guarded mapping.
struct Entry {
    /// Whether somebody has this entry.
    taken: AtomicBool,
    /// Odd: the entry holds a mapping. Changes whenever that changes.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    writable: AtomicBool,
    /// Zeros stand in for the mapping.
    gone: AtomicBool,
}

impl Entry {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Takes an entry that nobody has and fills it.
    fn enter(start: usize, end: usize, writable: bool) -> Option<&'static Self> {
        let free = |entry: &&Self| {
            // Acquire: pairs with the Release in `leave`, so that the version of the last tenant comes before what follows.
            entry.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let entry = TABLE.iter().find(free)?;
        fence(Ordering::Release); // pairs with the Acquire fence in `get`: who sees these numbers sees the version before
        entry.gone.store(false, Ordering::Relaxed); // published by the version
        entry.writable.store(writable, Ordering::Relaxed); // likewise
        entry.start.store(start, Ordering::Relaxed); // likewise
        entry.end.store(end, Ordering::Relaxed); // likewise
        entry.version.fetch_add(1, Ordering::Release); // pairs with the Acquire in `get`
        Some(entry)
    }

    fn leave(&self) {
        self.version.fetch_add(1, Ordering::Relaxed); // ordered before the next tenant's numbers by the next store
        self.taken.store(false, Ordering::Release); // pairs with the Acquire in `enter`
    }

    /// Start, end and whether it is writable, if the entry holds a mapping.
    fn get(&self) -> Option<(usize, usize, bool)> {
        let version = self.version.load(Ordering::Acquire); // pairs with the Release in `enter`
        if version.is_multiple_of(2) {
            return None;
        }
        // Relaxed: whether they belong together is checked below.
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let writable = self.writable.load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with the Release fence in `enter`
        // Relaxed: ordered behind the numbers by the fence.
        (self.version.load(Ordering::Relaxed) == version).then_some((start, end, writable))
    }
}

/// What a guarded mapping may be used for; its stand-in allows the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads.
    Read,
    /// Loads and stores. What is stored into the stand-in goes nowhere.
    Write,
}

/// A mapping in the guard's table; dropping it takes it out again.
///
/// The library's own mappings are in it. A program that maps files beside them (the gateway its journal) can enter those
/// too, and [`guard_mappings`] then holds for all.
#[derive(Debug)]
pub struct Guarded {
    /// `None`: the table was full, and the mapping is not guarded.
    entry: Option<&'static Entry>,
    len: usize,
}

impl Guarded {
    /// Enters a mapping.
    ///
    /// # Safety
    /// `start` is where a mapping of `len` bytes begins, which the caller made and keeps until this is dropped, and whose
    /// readers and writers can cope with its being all zeros from one access to the next.
    pub unsafe fn new(start: *const u8, len: usize, access: Access) -> Self {
        // The last page of a mapping belongs to it as a whole.
        let end = (start as usize).saturating_add(len).next_multiple_of(crate::layout::PAGE);
        Self { entry: Entry::enter(start as usize, end, access == Access::Write), len }
    }

    /// Whether the memory is gone and zeros stand in for it. What was read before this call was read before the loss, or it
    /// says so.
    #[inline]
    pub fn is_gone(&self) -> bool {
        // Acquire: a thread that read zeros reads this afterwards; the handler has set it before there were any.
        self.entry.is_some_and(|entry| entry.gone.load(Ordering::Acquire)) // pairs with the Release in `stand_in`
    }

    /// What is wrong with the mapping, if it is gone. `file` is what was mapped. Next to nothing as long as it is there.
    #[inline]
    pub fn fault(&self, file: &File) -> Option<SegmentFault> {
        if self.is_gone() { Some(self.explain(file)) } else { None }
    }

    /// The same, found by looking at the file, before anybody has touched what is gone. A system call.
    pub fn look(&self, file: &File) -> Option<SegmentFault> {
        self.fault(file).or_else(|| self.shortened(file))
    }

    #[cold]
    fn explain(&self, file: &File) -> SegmentFault {
        self.shortened(file).unwrap_or(SegmentFault::Unreadable { len: self.len as u64 })
    }

    fn shortened(&self, file: &File) -> Option<SegmentFault> {
        let expected = self.len as u64;
        // A file that cannot be looked at says nothing; its memory will.
        let found = nix::sys::stat::fstat(file).map_or(expected, |stat| stat.st_size as u64);
        (found < expected).then_some(SegmentFault::Truncated { found, expected })
    }
}

/// A mapped file that was whole and is not any more; see [`guard_mappings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    /// Somebody truncated the file.
    #[error("the segment was truncated while in use: its file has {found} bytes, {expected} were mapped")]
    Truncated {
        /// Length of the file now, in bytes.
        found: u64,
        /// Length of the mapping.
        expected: u64,
    },
    /// A page could not be read although the file is as long as it was: somebody cut it and let it grow again, the memory
    /// or the disk is bad, or the file has holes and its file system is full.
    #[error("the segment's memory failed while in use (SIGBUS), although its file still has {len} bytes")]
    Unreadable {
        /// Length of the file.
        len: u64,
    },
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            entry.leave();
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.get()).finish()
    }
}

/// Makes this process survive that segments which it has mapped are truncated, or that their memory fails.
///
/// It installs a handler for SIGBUS, once; further calls do nothing. What was done about that signal before is still done
/// for everything that does not concern a mapping of this library. Call it at the program's start, and behind whatever
/// else installs such a handler and does not pass on what it does not know.
///
/// What becomes of a segment whose memory is gone: readers quarantine the lane with
/// [`SegmentFault`], a producer's `publish` refuses with the same, and a consumer's
/// [`Reader::verify`](crate::Reader::verify) tells it of its own cursors.
///
/// # Errors
/// The system refused it.
pub fn guard_mappings() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    // SAFETY: all zeros is a value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the present action, into a structure of ours.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut action) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Before the handler can run.
    let _ = PREVIOUS.set(action); // set before only if the call below failed then: it is the same
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    action.sa_sigaction = handler as libc::sighandler_t;
    // ONSTACK: threads with little stack, and those of other languages, have one for signals.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: clears a set of ours.
    unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, lives as long as the program, and is
    // async-signal-safe (see the module's head).
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    *installed = true;
    Ok(())
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid structure, which stays as long as this runs.
    let about = unsafe { &*info };
    let code = about.si_code;
    // SAFETY: for the two codes below this member is the address; for others the number is not used.
    let address = unsafe { about.si_addr() } as usize;
    if !(matches!(code, BUS_ADRERR | BUS_MCEERR_AR) && stand_in(address)) {
        pass_on(signal, code, info, context);
    }
}

/// Puts zeros in the place of the guarded mapping that contains this address; whether there was one.
fn stand_in(address: usize) -> bool {
    let holds = |entry: &&Entry| entry.get().is_some_and(|(start, end, _)| (start..end).contains(&address));
    let Some(entry) = TABLE.iter().find(holds) else { return false };
    let Some((start, end, writable)) = entry.get() else { return false };
    // Before there are zeros to be read.
    entry.gone.store(true, Ordering::Release); // pairs with the Acquire in `Guarded::is_gone`
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // NORESERVE: what is never written takes no memory.
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: always valid, and this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: likewise.
    let before = unsafe { *errno };
    // SAFETY: exactly the pages of a mapping that its owner entered and keeps, since this thread is accessing it (see the
    // module's head). Its users were promised to cope with zeros.
    let mapped = unsafe { libc::mmap(start as *mut libc::c_void, end - start, protection, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *errno = before };
    mapped != libc::MAP_FAILED
}

/// Does what was done about the signal before there was a guard.
fn pass_on(signal: libc::c_int, code: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    // A signal that somebody sent, not one of an access.
    let was_sent = code <= 0;
    if handler == libc::SIG_IGN && was_sent {
        return;
    }
    // The kernel does not let a process ignore an access that fails, either.
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: the default action for a valid signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // The access is repeated when this returns, and ends the process; a signal that was sent is sent again.
        if was_sent {
            // SAFETY: raise takes any number. The signal is blocked until the handler returns.
            unsafe { libc::raise(signal) };
        }
        return;
    }
    if previous.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0) {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with SA_SIGINFO the system held this address for a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without it, for one of this type.
        let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
        handler(signal);
    }
    if was_sent {
        give_up_with_it(signal);
    }
}

/// If the handler before us has put the default action in place and returned, it meant the access to be repeated and to
/// end the process (the standard library's does so). A signal that was sent is not repeated by itself.
fn give_up_with_it(signal: libc::c_int) {
    // SAFETY: all zeros is a value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the present action, into a structure of ours.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    if asked == 0 && action.sa_sigaction == libc::SIG_DFL {
        // SAFETY: raise takes any number. The signal is blocked until the handler returns.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, since there is one table.
    #[test]
    fn an_entry_is_found_while_it_is_held_and_a_full_table_leaves_a_mapping_unguarded_and_nothing_else() {
        let pages = memmap2::MmapOptions::new().len(3 * 4096 - 1).map_anon().unwrap();
        let start = pages.as_ptr() as usize;
        let find = |address| {
            TABLE
                .iter()
                .filter_map(Entry::get)
                .any(|(start, end, writable)| (start..end).contains(&address) && !writable)
        };
        // SAFETY: the mapping outlives the guards; nobody reads it.
        let guard = || unsafe { Guarded::new(pages.as_ptr(), pages.len(), Access::Read) };
        assert!(!find(start));
        let guarded = guard();
        assert!(find(start) && find(start + 3 * 4096 - 1) && !find(start + 3 * 4096) && !find(start - 1));
        assert!(!guarded.is_gone());
        drop(guarded);
        assert!(!find(start));

        let all: Vec<_> = (0..MAPPINGS_MAX + 1).map(|_| guard()).collect();
        let last = all.last().unwrap();
        assert!(last.entry.is_none() && !last.is_gone());
        drop(all);
        assert!(!find(start) && guard().entry.is_some());
    }
}
