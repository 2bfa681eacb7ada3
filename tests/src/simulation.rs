//! Many clusters in one thread on virtual time: the real state machines of hubs and agents, seeded faults, and
//! invariants after every step (docs/testing.md, "Simulation").
//!
//! A seed gives a [`Story`]: what sources change, and what goes wrong, when. [`run`] plays it. The same story always
//! ends in the same way, and one that breaks an invariant is made short by [`explain`].

mod act;
mod allocation;
mod check;
mod clock;
pub mod command;
mod dice;
mod disk;
mod item;
mod mind;
mod network;
mod process;
mod shape;
mod shrink;
mod source;
mod story;
mod tamper;
mod tap;
mod violation;
mod watch;
mod world;

pub use story::Story;
pub use violation::Broken;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ops::Range, thread};

use violation::Violation;

/// Between two that are said to have begun.
const PROGRESS: u64 = 500;

/// What there was in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Things that happened.
    pub steps: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Sessions that were closed because of a hostile message.
    pub rejects: u64,
    /// Incarnations that were begun.
    pub bumps: u64,
}

/// How a story ends.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every invariant held.
    Held(Report),
    /// One did not.
    Broken(Broken),
}

/// A story that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The shortest part of it that was found to break the same one.
    pub story: Story,
    /// How it does.
    pub broken: Broken,
}

/// Plays a story.
#[must_use]
pub fn run(story: &Story) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| world::play(story))) {
        Ok(Ok(report)) => Outcome::Held(report),
        Ok(Err(broken)) => Outcome::Broken(broken),
        Err(payload) => Outcome::Broken(Broken {
            at: u64::MAX,
            place: None,
            violation: Violation::Panicked {
                message: text(payload.as_ref()),
            },
        }),
    }
}

fn text(payload: &(dyn Any + Send)) -> String {
    let literal = payload.downcast_ref::<&str>().map(ToString::to_string);
    literal
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Plays the stories of some seeds on several threads; says now and then how many were begun. Returns how many there
/// were, or the least seed that failed of those that were played.
///
/// # Errors
/// The seed, and how its story ends.
pub fn run_seeds(
    seeds: Range<u64>,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Result<u64, (u64, Broken)> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let play = || {
        let mut first = None;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                return first;
            }
            let begun = seed - seeds.start;
            if begun > 0 && begun.is_multiple_of(PROGRESS) {
                progress(begun);
            }
            if let Outcome::Broken(broken) = run(&Story::of(seed)) {
                failed.fetch_min(seed, Ordering::Relaxed);
                first = Some((seed, broken));
            }
        }
    };
    let ends: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(play)).collect();
        all.into_iter()
            .filter_map(|thread| thread.join().expect("panics of a world are caught"))
            .collect()
    });
    match ends.into_iter().min_by_key(|(seed, _)| *seed) {
        Some(end) => Err(end),
        None => Ok(seeds.end - seeds.start),
    }
}

/// Makes the failing story of a seed short. `None`: it does not fail.
#[must_use]
pub fn explain(seed: u64) -> Option<Failure> {
    let story = Story::of(seed);
    let Outcome::Broken(broken) = run(&story) else {
        return None;
    };
    let (story, broken) = shrink::shrink(&story, broken);
    Some(Failure { story, broken })
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.story, self.broken)
    }
}
