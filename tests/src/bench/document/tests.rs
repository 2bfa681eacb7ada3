use super::super::figure::Figure;
use super::super::machine::Machine;
use super::super::plan::Plan;
use super::super::sample::tests::sample;
use super::super::spread::Spread;
use super::*;

fn report() -> Report {
    let one = ("base", "speed", "one");
    let other = ("base", "speed", "other");
    let mut samples = vec![
        sample(one, 1, ("m/s", 9.0)),
        sample(one, 1, ("m/s", 3.0)),
        sample(other, 1, ("m/s", 1.5)),
        sample(one, 2, ("m/s", 4.0)),
        sample(other, 2, ("m/s", 1.0)),
    ];
    samples[0].kept = false;
    samples[0].usage.foreign = 0.5;
    samples[1].attempt = 2;
    let samples = Series(samples);
    let figure = |name: &str, unit, bound, spread: Spread| Figure {
        name: name.to_owned(),
        unit,
        bound,
        spread,
    };
    let figures = vec![
        figure(
            "one to other",
            "ratio",
            Bound::AtLeast(5.0, 6.0),
            samples.ratio(one, other, "m/s").unwrap().unwrap(),
        ),
        figure(
            "one alone",
            "m/s",
            Bound::Nothing,
            samples.spread(one, "m/s").unwrap().unwrap(),
        ),
    ];
    Report {
        name: "walk",
        plan: Plan {
            rounds: 2,
            seconds: 4,
            variants: vec!["one", "other"],
            conditions: vec!["base", "rain"],
            measurements: vec!["speed"],
        },
        machine: Machine {
            processor: "Some Processor".to_owned(),
            cores: 2,
            memory: 4.0,
            kernel: "6.1".to_owned(),
            system: "Some Linux 1".to_owned(),
            versions: vec!["walker 0.1.0".to_owned()],
        },
        figures,
        samples,
    }
}

#[test]
fn a_section_has_every_round_and_names_what_is_short() {
    let chart = Chart {
        file: "speed",
        title: "Speed",
        unit: "m/s",
        groups: Vec::new(),
    };
    let text = section(&report(), "People walk.", &[chart], true).unwrap();
    for wanted in [
        "## walk\n",
        "People walk.",
        "[benchmarks/walk.md](benchmarks/walk.md)",
        "| one to other | 3 | [2..4] | ratio | >= 5 | >= 6 | short |",
        "**Short: one to other.**",
        "made again: 1",
        "![Speed](benchmarks/walk-speed.svg)",
        "| measurement | value | one | other |",
        "| speed | m/s | 3.50 [3..4] | 1.25 [1..1.50] |",
        "- walker 0.1.0\n",
        "base,speed,one,m/s,3,4\n",
        "base,speed,one,others,0,0\n",
        "base,speed,one,1,1,0.5,m/s=9\n",
    ] {
        assert!(text.contains(wanted), "{wanted}\nis not in\n{text}");
    }
    assert!(!text.contains("one alone"), "values are in their own table");
    assert!(!text.contains("rain"), "nothing was measured in the rain");
    let without = section(&report(), "People walk.", &[], false).unwrap();
    assert!(!without.contains("walk.md"));
}

#[test]
fn rows_of_a_table_have_the_same_number_of_cells() {
    let text = section(&report(), "People walk.", &[], true).unwrap();
    let mut above = None;
    for line in text.lines() {
        let cells = line.starts_with('|').then(|| line.matches('|').count());
        if let (Some(above), Some(cells)) = (above, cells) {
            assert_eq!(above, cells, "{line}");
        }
        above = cells;
    }
}

#[test]
fn a_section_is_replaced_and_the_others_stay() {
    let names = ["swim", "walk"];
    let first = page("# Something by hand\n", &names, "walk", "## walk\nold");
    assert!(first.starts_with(HEAD) && !first.contains("by hand\n"));
    let both = page(&first, &names, "swim", "## swim\nnew");
    let again = page(&both, &names, "walk", "## walk\nnew");
    assert!(!again.contains("old"), "{again}");
    let (swim, walk) = (
        again.find("## swim").unwrap(),
        again.find("## walk").unwrap(),
    );
    assert!(swim < walk, "in the order of the names");
    assert_eq!(again.matches("<!-- begin").count(), 2);
    assert_eq!(page(&again, &names, "walk", "## walk\nnew"), again);
}
