//! Every fuzz target over its corpus and mutations of it, the same in every run (docs/testing.md, "Fuzzing").

use std::fs;

use hawser_tests::depth::rounds;
use hawser_tests::fuzz::driver::{Plan, drive};
use hawser_tests::fuzz::{Corpus, MAX_INPUT, TARGETS, reached};
use hawser_tunnel::reject::Reject;

/// Where the inputs of this suite are drawn from; other seeds are for `fuzz --seed`.
const SEED: u64 = 1;

/// How much longer an input of a target takes than one of a pure parser: handshakes, files, sockets, tables as JSON.
const COSTS: [(&str, u32); 16] = [
    ("capture", 10),
    ("certificate", 10),
    ("claims", 2),
    ("control", 40),
    ("datagrams", 100),
    ("guard_plan", 100),
    ("handshake_limit", 80),
    ("journal_frames", 4),
    ("key_file", 4),
    ("manifests", 60),
    ("reassembly", 10),
    ("replica_messages", 2),
    ("replica_session", 100),
    ("state_changes", 40),
    ("state_file", 30),
    ("stream_frames", 4),
];

/// Reasons that no single input of a target leads to: what comes of many handshakes, of changes of state while packets
/// wait, of probes that were sent before, and of the kernel.
const OUT_OF_REACH: [Reject; 11] = [
    Reject::WgSourceLimit,
    Reject::WgUnderLoad,
    Reject::WgNoPresharedKey,
    Reject::QueueFull,
    Reject::QueueExpired,
    Reject::NoPresharedKey,
    Reject::PeerRemoved,
    Reject::NoState,
    Reject::ProbeStale,
    Reject::UdpSend,
    Reject::TapWrite,
];

fn inputs(target: &str) -> u64 {
    let cost = COSTS.iter().find(|(dear, _)| *dear == target);
    u64::from(rounds(60_000, 1_000_000) / cost.map_or(1, |(_, cost)| *cost))
}

#[test]
fn every_target_keeps_its_promises_for_any_input() {
    let mut all = 0;
    for &(name, target) in TARGETS {
        let corpus = Corpus::load(name).expect("the corpus is committed");
        let plan = Plan {
            seed: SEED,
            runs: inputs(name),
            time: None,
        };
        assert!(
            plan.runs > corpus.inputs().len() as u64,
            "{name}: nothing but its corpus would be run"
        );
        let started = std::time::Instant::now();
        match drive(name, &target, &corpus, &plan, &mut |_| ()) {
            Ok(runs) => {
                all += runs;
                println!(
                    "{name}: {runs} inputs in {:.1} s",
                    started.elapsed().as_secs_f64()
                );
            }
            Err(crash) => panic!("{crash}"),
        }
    }
    println!("{all} inputs");
    let reached = reached();
    let missed: Vec<_> = Reject::ALL
        .iter()
        .filter(|reason| !reached.contains_key(reason.name()) && !OUT_OF_REACH.contains(reason))
        .collect();
    assert!(
        missed.is_empty(),
        "reasons that no input reaches: {missed:?}"
    );
}

#[test]
fn every_target_has_a_corpus_of_small_files_and_every_corpus_a_target() {
    let (mut files, mut bytes) = (0, 0);
    for (name, _) in TARGETS {
        let corpus = Corpus::load(name).expect("the corpus is committed");
        assert!(!corpus.inputs().is_empty(), "{name}: has no corpus");
        for input in corpus.inputs() {
            assert!(
                input.len() <= MAX_INPUT,
                "{name}: an input of {} bytes",
                input.len()
            );
            bytes += input.len();
        }
        files += corpus.inputs().len();
    }
    assert!(
        files <= 240 && bytes <= 200_000,
        "{files} files, {bytes} bytes"
    );
    for entry in fs::read_dir(Corpus::folder()).expect("the corpora are committed") {
        let name = entry.expect("a folder").file_name();
        let known = TARGETS.iter().any(|(target, _)| *target == name);
        assert!(known, "{}: a corpus without a target", name.display());
    }
}
