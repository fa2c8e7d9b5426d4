//! loom's atomics, and a way to weaken one ordering at a time.
//!
//! An ordering is known by the place in the source where it stands. With `BELLWIRE_LOOM_WEAKEN=src/file.rs:line` the
//! ordering there becomes Relaxed, and a fence there is left out: a model of that code must then fail.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::OnceLock;

pub(crate) use std::sync::atomic::Ordering;

use super::kernel;

thread_local! {
    static SITES: RefCell<BTreeSet<(&'static str, u32)>> = const { RefCell::new(BTreeSet::new()) };
}

/// The orderings that were used in this thread: file and line.
#[cfg(test)]
pub(super) fn sites() -> Vec<(&'static str, u32)> {
    SITES.with_borrow(|sites| sites.iter().copied().collect())
}

/// Whether the ordering there is to be weakened. Notes that it is in use.
fn is_weakened(site: &'static Location<'static>) -> bool {
    static WEAKENED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    let weakened = WEAKENED.get_or_init(|| {
        let site = std::env::var("BELLWIRE_LOOM_WEAKEN").ok()?;
        let (file, line) = site.rsplit_once(':').expect("file:line");
        Some((file.to_owned(), line.parse().expect("file:line")))
    });
    SITES.with_borrow_mut(|sites| sites.insert((site.file(), site.line())));
    weakened.as_ref().is_some_and(|(file, line)| site.line() == *line && site.file() == file)
}

/// The order that is to be taken for `order`, used at `site`.
fn taken(order: Ordering, site: &'static Location<'static>) -> Ordering {
    if order != Ordering::Relaxed && is_weakened(site) { Ordering::Relaxed } else { order }
}

/// A fence.
#[track_caller]
pub(crate) fn fence(order: Ordering) {
    if !is_weakened(Location::caller()) {
        ::loom::sync::atomic::fence(order);
    }
}

thread_local! {
    static COMPILER_REORDERS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A fence for the compiler. loom runs what is written in the order in which it is written; a model whose code needs the
/// fence asks [`compiler_reorders`] and swaps what stands before it with what stands behind it.
#[track_caller]
pub(crate) fn compiler_fence(_: Ordering) {
    if is_weakened(Location::caller()) {
        COMPILER_REORDERS.set(true);
    }
}

/// Whether a compiler fence that was passed is weakened.
#[cfg(test)]
pub(super) fn compiler_reorders() -> bool {
    COMPILER_REORDERS.get()
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        /// The standard library's type of that name, in a model.
        #[derive(Debug, Default)]
        pub(crate) struct $name(::loom::sync::atomic::$name);

        impl $name {
            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $int {
                kernel::instruction();
                self.0.load(taken(order, Location::caller()))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $int, order: Ordering) {
                kernel::instruction();
                self.0.store(value, taken(order, Location::caller()));
            }

            #[track_caller]
            #[allow(dead_code, reason = "not of every width")]
            pub(crate) fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                kernel::instruction();
                self.0.fetch_add(value, taken(order, Location::caller()))
            }
        }
    };
}

atomic!(AtomicI64, i64);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
