//! Messages that were recorded on the wire and are sent again: not one is delivered (T2).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::PacketSocket;
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use hawser_tests::wire::Kind;
use hawser_tunnel::reject::Reject;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Recorded messages.
const RECORDED: usize = 1_000;
/// Replays that are under way at once: well below what the receiver's socket holds.
const WINDOW: u64 = 500;

/// Frames to east-1 from now on, of a kind.
fn record(lab: &Lab, kind: Kind, count: usize) -> Result<Vec<Vec<u8>>> {
    let node = lab.node("east-1");
    let socket = PacketSocket::open(lab.router(), node.port_device())?;
    let mac = node
        .netns()
        .output("cat", &["/sys/class/net/eth0/address"])?;
    let mac: Vec<u8> = mac
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    let (mut frames, mut buffer) = (Vec::new(), vec![0; 65_536]);
    while frames.len() < count {
        let length = socket.receive(&mut buffer, PATIENCE)?;
        let frame = &buffer[..length.context("nothing to record")?];
        // One message a frame: the tunnel's runs are cut where a link has no offloads.
        if frame.starts_with(&mac) && Kind::of(frame) == kind {
            frames.push(frame.to_vec());
        }
    }
    Ok(frames)
}

/// Sends every frame `times` times to east-1, and waits for `reason` to count each.
fn replay(lab: &Lab, frames: &[Vec<u8>], times: u64, reasons: &[Reject]) -> Result<u64> {
    let node = lab.node("east-1");
    let socket = PacketSocket::open(lab.router(), node.port_device())?;
    let refused = || -> Result<u64> { reasons.iter().map(|reason| node.dropped(*reason)).sum() };
    let before = refused()?;
    let mut sent = 0;
    for round in 0..times {
        for frame in frames {
            socket.send(frame)?;
            sent += 1;
            if sent % WINDOW == 0 {
                wait_until("the replays to be refused", PATIENCE, || {
                    Ok(refused()? - before >= sent)
                })
                .with_context(|| {
                    format!(
                        "round {round}, {sent} sent, {} refused",
                        refused().unwrap_or(0)
                    )
                })?;
            }
        }
    }
    wait_until("the last replays to be refused", PATIENCE, || {
        Ok(refused()? - before >= sent)
    })?;
    let counted = refused()? - before;
    ensure!(counted == sent, "{sent} replays, {counted} refused");
    Ok(sent)
}

#[test]
fn a_million_replayed_datagrams_deliver_nothing() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    let pair = Pair {
        from: "west-1-a".to_owned(),
        to: "east-1-a".to_owned(),
        family: Family::V4,
    };
    let spec = LoadSpec {
        pairs: vec![pair],
        rate: 2_000,
        size: 200,
    };
    let load = SequenceLoad::start(&lab, spec)?;
    let data = record(&lab, Kind::Data, RECORDED)?;
    let delivered = load.stop()?;
    delivered.check()?;

    // Nobody sends any more: whatever comes out of the tunnel now is a replay.
    let before = lab.node("east-1").counters()?;
    let times = u64::from(rounds(100, 1_000));
    let sent = replay(&lab, &data, times, &[Reject::WgReplay])?;
    let after = lab.node("east-1").counters()?;
    say(format_args!(
        "{sent} data messages replayed, {} delivered",
        after.rx_packets - before.rx_packets
    ));
    ensure!(
        after.rx_packets == before.rx_packets,
        "replays were delivered: {after:?}"
    );
    ensure!(
        after.rx_bytes == before.rx_bytes,
        "replays were delivered: {after:?}"
    );
    Ok(())
}

/// T3, F42: an old initiation is neither answered nor followed to where it came from.
#[test]
fn replayed_handshakes_change_nothing() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    let rekey = || lab.node("west-1").rekey();
    let initiations = std::thread::scope(|scope| -> Result<_> {
        let recorder = scope.spawn(|| record(&lab, Kind::Initiation, 3));
        wait_until("three initiations", PATIENCE, || {
            rekey()?;
            Ok(recorder.is_finished())
        })?;
        recorder
            .join()
            .map_err(|_| anyhow::anyhow!("the recorder died"))?
    })?;
    let status = || -> Result<(u64, String)> {
        let node = lab.node("east-1");
        let status = node.status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let endpoints = peers
            .iter()
            .map(|peer| peer["lanes"][0]["endpoint"].to_string());
        Ok((node.handshakes()?, endpoints.collect()))
    };
    let before = status()?;
    let reasons = [Reject::WgTimestamp, Reject::WgSourceLimit];
    let sent = replay(&lab, &initiations, u64::from(rounds(100, 1_000)), &reasons)?;
    say(format_args!(
        "{sent} initiations replayed: {:?}",
        lab.node("east-1").counters()?.drops
    ));
    ensure!(status()? == before, "{before:?} became {:?}", status()?);
    // And everybody is still served.
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 2_000))?;
    wait_until("traffic", PATIENCE, || Ok(load.received() > 500))?;
    load.stop()?.check()
}
