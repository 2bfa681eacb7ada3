//! Bugs that were planted in a copy of the product are all found (docs/testing.md, "Simulation").

use std::process::Command;
use std::time::Instant;

use hawser_tests::plants::{PLANTS, VARIABLE, build};
use hawser_tests::say;

/// A plant must be found among so many seeds.
const SEEDS: u32 = 500;

#[test]
fn every_planted_bug_is_found() {
    let simulate = build().expect("the copy with the plants");
    let play = |plant: Option<&str>, seeds: u32| {
        let mut command = Command::new(&simulate);
        command.args(["--seeds", &format!("0..{seeds}"), "--whole"]);
        if let Some(plant) = plant {
            command.env(VARIABLE, plant);
        }
        let output = command.output().expect("simulate runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = play(None, 20);
    assert_eq!(code, Some(0), "without a plant: {said}");
    let mut missed = Vec::new();
    for plant in PLANTS {
        let begin = Instant::now();
        let (code, said) = play(Some(plant.name), SEEDS);
        let line = said.lines().next().unwrap_or_default();
        let seconds = begin.elapsed().as_secs_f64();
        say(format_args!("{:<32} {line} ({seconds:.1} s)", plant.name));
        if code != Some(1) || !line.contains(" broke ") {
            missed.push(plant.name);
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

#[test]
fn every_planted_bug_is_in_the_table_of_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    for plant in PLANTS {
        let row = format!("| `{}` | {} |", plant.name, plant.bug);
        assert!(page.contains(&row), "docs/testing.md lacks: {row}");
    }
}
