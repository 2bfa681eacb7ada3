//! Each defence against hostile members, nodes and guests is missed by a test when it is removed (T8 to T19,
//! docs/testing.md, "Removals").

use std::process::Command;

use hawser_tests::plants::{DEFENCES, PLANTS, REMOVALS, Tests, VARIABLE, build_tests};
use hawser_tests::say;

#[test]
fn every_defence_that_is_removed_is_missed_by_its_test() {
    let built = [Tests::Mesh, Tests::Claims]
        .map(|of| (of, build_tests(of).expect("the copy with the plants")));
    let run = |of: Tests, filter: &str, removal: Option<&str>| {
        let built = built.iter().find(|(built, _)| *built == of);
        let (_, program) = built.expect("it was built");
        let mut command = Command::new(program);
        command.arg(filter);
        if let Some(removal) = removal {
            command.env(VARIABLE, removal);
        }
        let output = command.output().expect("the tests run");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    };
    let mut unmissed = Vec::new();
    for defence in DEFENCES {
        let (passed, said) = run(defence.program(), defence.tests, None);
        assert!(
            passed && !said.contains("running 0 tests"),
            "{}, with all defences: {said}",
            defence.tests
        );
        let (passed, said) = run(defence.program(), defence.tests, Some(defence.removal));
        let failed = said.lines().find(|line| line.ends_with("... FAILED"));
        let failed = failed.unwrap_or("nothing failed");
        say(format_args!(
            "{:<4} {:<28} {failed}",
            defence.threat, defence.removal
        ));
        if passed || failed == "nothing failed" {
            unmissed.push(defence.removal);
        }
    }
    assert!(
        unmissed.is_empty(),
        "removed, and no test missed it: {unmissed:?}"
    );
}

#[test]
fn every_removal_is_in_the_table_of_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    for defence in DEFENCES {
        let mut plants = PLANTS.iter().chain(REMOVALS);
        let plant = plants.find(|plant| plant.name == defence.removal);
        let plant = plant.expect("a plant has this name");
        let row = format!(
            "| {} | `{}` | {} | `{}` |",
            defence.threat, plant.name, plant.bug, defence.tests
        );
        assert!(page.contains(&row), "docs/testing.md lacks: {row}");
    }
}
