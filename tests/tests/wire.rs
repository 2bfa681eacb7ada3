//! The wires of a lab: faults as they were asked for, on packets, the same for the same seed, and none on a clean wire.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::{PacketRing, PacketSocket};
use hawser_tests::lab::{Lab, Topology, Wire, wait_until};
use hawser_tests::wire::{Direction, Dropped, Impairment, LogLine, Schedule, Way};
use std::time::{Duration, SystemTime};

const PATIENCE: Duration = Duration::from_secs(20);
/// For experiments on a local network (IEEE 802): no kernel answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// Frames sent before the wire is waited for: well below the queue of its device.
const BURST: u64 = 4_000;

/// A node whose wire carries what the test sends and nothing else.
struct Bench {
    /// Removed with this value.
    _lab: Lab,
    wire: Wire,
    socket: PacketSocket,
    ring: PacketRing,
    sent: u64,
}

impl Bench {
    fn new(seed: u64) -> Result<Self> {
        let topology = format!(
            "clusters: [{{name: e, id: 1, nodes: 1, pods: 0}}]\nunderlay: {{wired: all, seed: {seed}}}"
        );
        let lab = Lab::new(Topology::parse(&topology)?)?;
        let (wire, node) = (lab.wire("e-1")?, lab.node("e-1"));
        // The kernels' own frames come when they like, and would shift the numbers of ours.
        for netns in [node.netns(), lab.router()] {
            netns.sysctl_set("net.ipv6.conf.all.disable_ipv6", "1")?;
        }
        // They were asked to leave groups, of which they tell the network.
        let mut before = None;
        wait_until("the kernels are quiet", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(100));
            let now = wire.counts()?;
            Ok(before.replace(now.clone()) == Some(now))
        })?;
        let socket = PacketSocket::open(node.netns(), "eth0")?;
        let ring = PacketRing::open(lab.router(), node.port_device())?;
        wire.rewind(None)?;
        Ok(Self {
            _lab: lab,
            wire,
            socket,
            ring,
            sent: 0,
        })
    }

    /// Sends so many frames, numbered on, and waits until the wire has read all of them.
    fn send(&mut self, count: u64, length: impl Fn(u64) -> usize) -> Result<()> {
        let end = self.sent + count;
        while self.sent < end {
            let until = end.min(self.sent + BURST);
            for number in self.sent..until {
                self.socket.send(&frame(number, length(number)))?;
            }
            self.sent = until;
            wait_until("the wire has read all frames", PATIENCE, || {
                Ok(self.wire.counts()?.of(Direction::Out).frames >= until)
            })?;
        }
        Ok(())
    }

    /// What came out so far, with the time, waiting for so many.
    fn received(&mut self, count: usize) -> Result<Vec<(SystemTime, Vec<u8>)>> {
        let mut frames = Vec::new();
        wait_until(&format!("{count} frames have come out"), PATIENCE, || {
            self.ring.drain(usize::MAX, |frame| {
                frames.push((frame.at, frame.bytes.to_owned()));
            });
            Ok(frames.len() >= count)
        })?;
        ensure!(self.ring.lost()? == 0, "the test's own ring lost frames");
        Ok(frames)
    }

    /// Starts anew, with frame 0.
    fn rewind(&mut self, seed: u64) -> Result<()> {
        self.wire.rewind(Some(seed))?;
        self.sent = 0;
        Ok(())
    }

    /// The log, which must account for every frame sent and for nothing else.
    fn log(&self) -> Result<Vec<LogLine>> {
        let log = self.wire.log()?;
        let counts = self.wire.counts()?;
        ensure!(
            counts.overruns(Direction::Both) == 0,
            "the device lost frames"
        );
        ensure!(
            counts.of(Direction::Both).refused == 0,
            "the device refused frames"
        );
        let own = log.iter().enumerate().all(|(place, line)| {
            line.way == Way::Out && usize::try_from(line.ordinal).is_ok_and(|own| own == place)
        });
        ensure!(
            own && log.len() == usize::try_from(self.sent)?,
            "frames of others on the wire"
        );
        Ok(log)
    }
}

fn frame(number: u64, length: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; length];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x77]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x66]);
    frame[12..14].copy_from_slice(&ETHER_TYPE);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> Result<u64> {
    let bytes = frame.get(14..22).context("a short frame")?;
    Ok(u64::from_be_bytes(bytes.try_into()?))
}

/// What comes out of a wire of which the log says this about frames of these lengths.
fn expected(log: &[LogLine]) -> Vec<Vec<u8>> {
    // A frame that is held back comes right after the one that it waits for, and those that wait for the same by age.
    let mut places = Vec::new();
    for line in log.iter().filter(|line| line.fate.dropped.is_none()) {
        let mut frame = frame(line.ordinal, line.length);
        if let Some(bit) = line.fate.corrupted {
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let (after, held) = match line.fate.delayed_past {
            Some(frames) => (line.ordinal + u64::from(frames), true),
            None => (line.ordinal, false),
        };
        for _ in 0..=u8::from(line.fate.duplicated) {
            places.push(((after, held, line.ordinal), frame.clone()));
        }
    }
    places.sort_by_key(|(place, _)| *place);
    places.into_iter().map(|(_, frame)| frame).collect()
}

const FRAMES: u64 = 20_000;

/// 20,000 frames and three clean ones that bring out what is held back; the log's bytes and the frames that came out.
fn round(bench: &mut Bench) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let faults = "loss 5% duplicate 2% reorder 1% hold 10s corrupt 1%";
    bench.wire.schedule(
        &Schedule::new()
            .at_frame(0, Direction::Both, faults.parse()?)
            .at_frame(FRAMES, Direction::Both, Impairment::default()),
    )?;
    bench.send(FRAMES + 3, |number| {
        60 + usize::try_from(number * 7 % 1455).unwrap_or_default()
    })?;
    let log = bench.log()?;
    let expected = expected(&log);
    let out = bench.received(expected.len())?;
    let out: Vec<Vec<u8>> = out.into_iter().map(|(_, frame)| frame).collect();
    ensure!(out == expected, "what came out is not what the log says");
    Ok((std::fs::read(bench.wire.log_path())?, out))
}

#[test]
fn the_same_seed_in_another_lab_gives_the_same_log_and_the_same_frames() -> Result<()> {
    let (mut one, mut two) = (Bench::new(7)?, Bench::new(7)?);
    let first = round(&mut one)?;
    ensure!(
        first == round(&mut two)?,
        "seed 7 twice made two different logs"
    );
    for seed in 8..u64::from(rounds(9, 30)) {
        one.rewind(seed)?;
        let other = round(&mut one)?;
        ensure!(other.0 != first.0, "seed {seed} made the log of seed 7");
        two.rewind(seed)?;
        ensure!(
            other == round(&mut two)?,
            "seed {seed} twice made two different logs"
        );
    }
    Ok(())
}

#[test]
fn the_frames_that_are_missing_are_those_that_the_log_calls_lost() -> Result<()> {
    let mut bench = Bench::new(3)?;
    bench.wire.impair(Direction::Out, "loss 5%")?;
    bench.send(10_000, |_| 60)?;
    let log = bench.log()?;
    let lost = |line: &&LogLine| line.fate.dropped == Some(Dropped::Lost);
    let kept = log
        .iter()
        .filter(|line| !lost(line))
        .map(|line| line.ordinal);
    let kept: Vec<u64> = kept.collect();
    ensure!(
        (300..700).contains(&(10_000 - kept.len())),
        "5 % of 10,000 came to {}",
        kept.len()
    );
    let out = bench.received(kept.len())?;
    let out = out.iter().map(|(_, frame)| number(frame));
    ensure!(
        out.collect::<Result<Vec<u64>>>()? == kept,
        "others are missing"
    );
    ensure!(bench.wire.counts()?.of(Direction::Out).lost == 10_000 - u64::try_from(kept.len())?);
    Ok(())
}

#[test]
fn what_was_sent_before_a_change_meets_what_was_in_force_then() -> Result<()> {
    let mut bench = Bench::new(1)?;
    for _ in 0..rounds(20, 1000) {
        bench.rewind(1)?;
        // No waiting: the wire may not have read one of them yet.
        for number in 0..500 {
            bench.socket.send(&frame(number, 60))?;
        }
        bench.wire.cut(Direction::Out)?;
        for number in 500..600 {
            bench.socket.send(&frame(number, 60))?;
        }
        bench.wire.clean()?;
        let counts = bench.wire.counts()?.of(Direction::Out);
        ensure!((counts.passed, counts.cut) == (500, 100), "{counts:?}");
    }
    Ok(())
}

#[test]
fn a_rate_holds_on_the_wire() -> Result<()> {
    let mut bench = Bench::new(1)?;
    // 1,000 bytes at 10 Mbit/s take 0.8 ms.
    let nominal = 500.0 * 0.0008;
    bench
        .wire
        .impair(Direction::Out, "rate 10mbit queue 1mib")?;
    let start = SystemTime::now();
    bench.send(500, |_| 1000)?;
    let out = bench.received(500)?;
    let numbers = out.iter().map(|(_, frame)| number(frame));
    ensure!(numbers.collect::<Result<Vec<u64>>>()? == (0..500).collect::<Vec<_>>());
    let (last, _) = out.last().context("nothing came out")?;
    let took = last.duration_since(start)?.as_secs_f64();
    // Never faster; slower only as far as the machine is busy.
    ensure!(
        (nominal..nominal * 2.0).contains(&took),
        "{took} s, not {nominal} s"
    );
    Ok(())
}
