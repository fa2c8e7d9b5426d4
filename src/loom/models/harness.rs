//! Runs a model and counts its schedules.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::loom::{atomic, bytes::Arena, kernel, segments};

/// How far a model is explored: first whole, then in a slice (`BELLWIRE_LOOM_SLICE`).
pub(super) struct Bounds {
    /// How often threads are preempted at most; [`ALL`]: every schedule; 0: not at all, the model is left out.
    pub(super) preemptions: [usize; 2],
    /// Fewest schedules that must have been explored: less means that the model runs empty.
    pub(super) floor: [usize; 2],
}

/// No bound on preemptions.
pub(super) const ALL: usize = usize::MAX;

/// A mutant that has not been caught after that time in one model is tried in the next.
const MUTANT_TIME: Duration = Duration::from_secs(20);

/// Explores the schedules of a model.
pub(super) fn explore(name: &str, bounds: Bounds, model: impl Fn() + Send + Sync + 'static) {
    let is_set = |name| std::env::var_os(name).is_some();
    let (slice, mutant) = (is_set("BELLWIRE_LOOM_SLICE"), is_set("BELLWIRE_LOOM_WEAKEN"));
    let schedules = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&schedules);
    let mut builder = ::loom::model::Builder::new();
    builder.max_branches = 20_000;
    let preemptions = bounds.preemptions[usize::from(slice)];
    if preemptions == 0 {
        return println!("loom: {name}: not in a slice");
    }
    builder.preemption_bound = (preemptions != ALL).then_some(preemptions);
    if mutant {
        builder.max_duration = Some(MUTANT_TIME);
        builder.checkpoint_interval = 500;
    }
    let start = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        Arena::clear();
        segments::clear();
        kernel::boot();
        model();
    });
    let schedules = schedules.load(Relaxed);
    println!("loom: {name}: {schedules} schedules in {:.1} s", start.elapsed().as_secs_f64());
    if is_set("BELLWIRE_LOOM_SITES") {
        for (file, line) in atomic::sites() {
            println!("site: {file}:{line}");
        }
    }
    let floor = bounds.floor[usize::from(slice)];
    assert!(mutant || schedules >= floor, "{name}: {schedules} schedules, at least {floor} expected");
}
