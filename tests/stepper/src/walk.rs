//! The survey, the points, the count.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::{Stopped, Victim};

/// Set to `whole` for every instruction; otherwise a slice of them is walked.
pub const MODE: &str = "BELLWIRE_STEPPER";
/// Set to a number for that instruction alone: to look closer at what was found.
pub const POINT: &str = "BELLWIRE_STEPPER_POINT";

/// Longest region, in instructions: what needs more goes round in circles.
const REGION_MAX: usize = 2_000_000;
/// How long a victim may take from one breakpoint to the next.
const PASS_WAIT: Duration = Duration::from_secs(2);

/// What is done to victims, and what must hold then.
pub trait Scenario {
    /// A new victim, stopped at the first instruction of the region.
    fn begin(&mut self) -> Victim;

    /// Whether the victim that stands still now has passed the region.
    fn is_over(&self) -> bool;

    /// A number for what others see of the victim, its shared memory and files: the same as long as nothing changed.
    /// For regions of which not every instruction is walked; see [`Pace`].
    fn visible(&self) -> u64 {
        0
    }

    /// The victim stands before the `index`-th instruction: does to it what is to be done and checks what must hold.
    ///
    /// # Errors
    /// The promise that was broken.
    fn strike(&mut self, victim: Victim, index: usize) -> Result<(), String>;
}

/// How many points there must be at least when every instruction is walked, so that a region that has become empty by
/// mistake does not pass.
#[derive(Clone, Copy, Debug)]
pub struct Floor(pub usize);

/// Which instructions of a region are walked.
///
/// Between two instructions after which others see the same it makes no difference at which of them a process is killed:
/// where a region is too long for all, those after which something changed are all walked, those before and behind each
/// system call, and a part of the rest.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// In a whole walk one in so many, and each at which what others see has changed. 1: all.
    pub whole: usize,
    /// In a slice one in so many.
    pub slice: usize,
}

/// One walk over a region.
#[derive(Debug)]
pub struct Walk {
    pub name: String,
    /// Instructions of the region.
    pub instructions: usize,
    /// Points at which a victim was struck.
    pub points: usize,
    /// Instructions after which others saw something else than before, as far as the scenario tells.
    pub changes: usize,
    /// Of these, such where it stood at another instruction than in the survey.
    pub drifted: usize,
    /// Points before which every victim that was tried had passed the region.
    pub missed: usize,
    /// The first promise that was broken, and at which point.
    pub broken: Option<(usize, String)>,
    took: Duration,
}

impl Walk {
    /// Walks over the region: whole if [`MODE`] says so, else a slice of it, from a random instruction on.
    pub fn over(name: &str, pace: Pace, scenario: &mut impl Scenario) -> Self {
        let begun = Instant::now();
        // What is done once in a process (symbols, tables) is done now, in the process that all victims are forked from.
        let rehearsal = scenario.begin();
        let rehearsed = scenario.strike(rehearsal, 0);
        let Survey { mut way, mut changes } = survey(scenario);
        if is_whole() {
            // The shorter of two: where the kernel updates its clock, reading it takes another turn.
            let other = survey(scenario);
            if other.way.len() < way.len() {
                Survey { way, changes } = other;
            }
        }
        let approaches = approaches(&way);
        let mut walk = Self {
            name: name.to_owned(),
            instructions: way.len(),
            points: 0,
            changes: changes.len(),
            drifted: 0,
            missed: 0,
            broken: rehearsed.err().map(|promise| (0, promise)),
            took: Duration::ZERO,
        };
        let (stride, changes) = if is_whole() { (pace.whole, changes) } else { (pace.slice, HashSet::new()) };
        let first = random() as usize % stride;
        let only: Option<usize> = std::env::var(POINT).ok().and_then(|point| point.parse().ok());
        let is_walked = |index: &usize| match only {
            Some(only) => *index == only,
            None => index % stride == first || changes.contains(index),
        };
        for index in (0..=way.len()).filter(is_walked) {
            if walk.broken.is_some() {
                break;
            }
            // One that keeps coming another way is stepped from the beginning to wherever that leads.
            let ways = [approaches[index], approaches[index], Approach { from: 0, passes: 0 }];
            match ways.into_iter().find_map(|approach| reach(scenario, &way, approach, index)) {
                None => walk.missed += 1,
                Some(victim) => {
                    walk.points += 1;
                    walk.drifted += usize::from(index < way.len() && victim.address() != way[index]);
                    walk.broken = scenario.strike(victim, index).err().map(|promise| (index, promise));
                }
            }
        }
        walk.took = begun.elapsed();
        walk.tell(first, stride);
        walk
    }

    fn tell(&self, first: usize, stride: usize) {
        let Self { name, points, instructions, changes, drifted, missed, .. } = self;
        let changes = if *changes > 0 { format!(" and {changes} changes") } else { String::new() };
        let seconds = self.took.as_secs_f64();
        println!(
            "{name}: {points} points in {instructions} instructions{changes}, from {first} by {stride}; \
            {drifted} drifted, {missed} missed; {seconds:.1} s"
        );
    }

    /// Ends the program if a promise was broken, or if there were fewer points than `floor`, or too many that were not
    /// what they were meant to be. For a slice the floor is its share of what a whole walk has besides the changes, which
    /// a slice leaves out.
    pub fn must_hold(&self, floor: Floor, pace: Pace) -> usize {
        if let Some((index, promise)) = &self.broken {
            panic!("{}, at instruction {index} ({POINT}={index}): {promise}", self.name);
        }
        if std::env::var_os(POINT).is_none() {
            let share = |points: usize| points.saturating_sub(self.changes) * pace.whole / pace.slice;
            let floor = if is_whole() { floor.0 } else { share(floor.0) };
            assert!(self.points >= floor, "{}: {} points, at least {floor} expected", self.name, self.points);
            let odd = self.drifted + self.missed;
            assert!(odd * 4 <= self.points, "{}: {odd} of {} points elsewhere", self.name, self.points);
        }
        self.points
    }
}

/// Whether every instruction is to be walked.
pub fn is_whole() -> bool {
    std::env::var(MODE).is_ok_and(|mode| mode == "whole")
}

/// The way through a region.
struct Survey {
    /// Where the victim stands before each instruction.
    way: Vec<u64>,
    /// The instructions before which others see something new, and those before and behind a system call.
    changes: HashSet<usize>,
}

fn survey(scenario: &mut impl Scenario) -> Survey {
    let victim = scenario.begin();
    let (mut way, mut changes) = (Vec::new(), HashSet::new());
    let visible = |scenario: &mut dyn Scenario| if is_whole() { scenario.visible() } else { 0 };
    let mut seen = visible(scenario);
    while !scenario.is_over() {
        assert!(way.len() < REGION_MAX, "the region has no end");
        if victim.is_at_call() {
            changes.extend([way.len(), way.len() + 1]);
        }
        way.push(victim.address());
        if victim.step() == Stopped::Stop {
            assert!(scenario.is_over(), "the victim paused within the region");
        }
        let now = visible(scenario);
        if std::mem::replace(&mut seen, now) != now {
            changes.insert(way.len());
        }
    }
    Survey { way, changes }
}

/// How to come to a point with few stops: the `passes`-th time that the victim comes to the instruction `from`, and some
/// steps from there.
#[derive(Clone, Copy)]
struct Approach {
    from: usize,
    passes: usize,
}

impl Approach {
    fn stops(self, index: usize) -> usize {
        self.passes + index - self.from
    }
}

/// The best approach to each point. How often the kernel's code for reading clocks goes round is not the same each time,
/// so that none begins there.
fn approaches(way: &[u64]) -> Vec<Approach> {
    let clocks = vdso();
    let mut passes: HashMap<u64, usize> = HashMap::new();
    let mut best = Approach { from: 0, passes: 0 };
    let mut approaches = vec![best];
    for (index, address) in way.iter().enumerate() {
        let passes = passes.entry(*address).or_default();
        *passes += 1;
        let direct = Approach { from: index, passes: *passes };
        // The victim stands at the first instruction already.
        if index > 0 && direct.passes < best.stops(index) && !clocks.contains(address) {
            best = direct;
        }
        if index > 0 {
            approaches.push(best);
        }
    }
    approaches.push(best);
    approaches
}

/// A victim before the `index`-th instruction; `None` if it came another way and never got there.
fn reach(scenario: &mut impl Scenario, way: &[u64], approach: Approach, index: usize) -> Option<Victim> {
    let victim = scenario.begin();
    if approach.passes > 0 && !victim.run_to(way[approach.from], approach.passes, PASS_WAIT) {
        return None;
    }
    for _ in approach.from..index {
        if scenario.is_over() {
            return None;
        }
        victim.step();
    }
    Some(victim)
}

/// Where the kernel's code for reading clocks is mapped.
fn vdso() -> std::ops::Range<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap_or_default();
    let ends = line.split_once(' ').and_then(|(range, _)| range.split_once('-')).unwrap_or_default();
    let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
    number(ends.0)..number(ends.1)
}

/// A number that is another one each time.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
