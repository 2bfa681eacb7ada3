//! Clusters on virtual time: thousands of seeds, each a world of its own (docs/testing.md, "Simulation").

use std::env;
use std::panic;
use std::time::Instant;

use hawser_tests::depth::rounds;
use hawser_tests::say;
use hawser_tests::simulation::{Story, explain, run_seeds};

/// A world is many small things that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of a run of CI, and of a soak.
const SEEDS: (u32, u32) = (5_000, 100_000);

fn seeds() -> u64 {
    let said = env::var("HAWSER_SEEDS").ok();
    let said = said.map(|text| text.parse().expect("HAWSER_SEEDS is a number"));
    said.unwrap_or_else(|| rounds(SEEDS.0, SEEDS.1).into())
}

#[test]
fn whatever_fails_nobody_holds_what_was_not_said_and_all_agree_once_it_heals() {
    let seeds = seeds();
    let begin = Instant::now();
    let hook = panic::take_hook();
    // Panics of worlds are told by their seed.
    panic::set_hook(Box::new(|_| {}));
    let end = run_seeds(0..seeds, 2, |begun| say(format_args!("{begun} seeds")));
    let failure = end
        .err()
        .map(|(seed, broken)| (seed, broken, explain(seed)));
    panic::set_hook(hook);
    if let Some((seed, broken, failure)) = failure {
        let story = failure.map_or_else(|| broken.to_string(), |failure| failure.to_string());
        panic!(
            "seed {seed} broke {}; again by: cargo run --release -p hawser-tests --bin simulate -- --seed {seed}\n{story}",
            broken.name()
        );
    }
    say(format_args!(
        "{seeds} seeds in {:.1} s",
        begin.elapsed().as_secs_f64()
    ));
}

#[test]
fn every_world_has_its_share_of_faults() {
    for seed in 0..100 {
        let story = Story::of(seed);
        assert!(story.faults() >= 200, "seed {seed}: {}", story.faults());
    }
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..5 {
        let play = || format!("{:?}", hawser_tests::simulation::run(&Story::of(seed)));
        assert_eq!(play(), play(), "seed {seed}");
    }
}
