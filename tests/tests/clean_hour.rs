//! False alarms: an hour of every kind of traffic that the lab has, and the sniffers have nothing to say.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Family, Lab, Pair, Topology};
use hawser_tests::sniffer::Kind;
use hawser_tests::traffic::{
    EchoServer, HttpServer, Iperf, LoadSpec, Ping, SequenceLoad, echo, http,
};

/// Packets a second that are numbered and accounted for, beside all else.
const RATE: u32 = 500;
/// Long enough for a machine that others use as well.
const PATIENCE: Duration = Duration::from_secs(10);
const ECHO: u16 = 7100;
const HTTP: u16 = 7101;
const IPERF: u16 = 7102;

#[test]
fn an_hour_of_clean_traffic_raises_no_alarm() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two())?;
    let sniffer = lab.sniffer()?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let body = lab.canary().repeat(4096);
    let mut servers = Vec::new();
    for pod in lab.pods() {
        let web = HttpServer::start(pod.netns(), HTTP, body.clone())?;
        servers.push((EchoServer::start(pod.netns(), ECHO)?, web));
    }
    let pairs = lab.cross_pairs(None);
    let end = Instant::now() + Duration::from_secs(rounds(10, 3_600).into());
    let mut turns = 0;
    for (turn, pair) in pairs.iter().cycle().enumerate() {
        if Instant::now() >= end {
            turns = turn;
            break;
        }
        talk(&lab, pair, turn, &body).with_context(|| format!("{pair:?}, turn {turn}"))?;
    }
    let load = load.stop()?;
    // iperf3 takes what there is, so a queue may overflow; nothing may be altered, repeated, or cut off.
    ensure!(
        load.corrupted == 0
            && load.duplicated == 0
            && load
                .pairs
                .iter()
                .all(|pair| pair.received * 100 >= pair.sent * 95),
        "of {} numbered packets {} were lost, {} repeated, {} altered",
        load.sent,
        load.lost,
        load.duplicated,
        load.corrupted
    );
    drop(servers);
    let report = sniffer.stop()?;
    report.check()?;
    let data = report.of(Kind::WireGuardData);
    writeln!(
        std::io::stdout(),
        "{turns} turns; {} frames, {data} of them WireGuard data; {} of {} numbered packets lost",
        report.frames,
        load.lost,
        load.sent
    )?;
    ensure!(
        turns > 0 && data > 1_000,
        "too little was said: {turns} turns, {data} messages"
    );
    Ok(())
}

/// One pair says a little of everything; every tenth turn it moves as much as it can.
fn talk(lab: &Lab, pair: &Pair, turn: usize, body: &[u8]) -> Result<()> {
    let (from, to) = (lab.pod(&pair.from), lab.pod(&pair.to));
    let address = to.address(pair.family).context("an address")?;
    let canary = lab.canary();
    let (from, to) = (from.netns(), to.netns());
    let at = |port| SocketAddr::new(address, port);
    // From what fits into one packet to what must be cut into many; UDP does not cut.
    let size = [64, 1_300, 1_344, 4_000, 20_000][turn % 5];
    let whole = size.min(1_344);
    echo::udp(from, None, at(ECHO), whole, canary, PATIENCE).context("UDP echo")?;
    echo::tcp(from, None, at(ECHO), size, canary, PATIENCE).context("TCP echo")?;
    let page = http::fetch(from, at(HTTP), "/", PATIENCE).context("HTTP")?;
    ensure!(
        page.status == 200 && page.body == body,
        "the page came changed"
    );
    let ping = Ping::new(address)
        .count(2)
        .interval(Duration::from_millis(20));
    let ping = ping.size(whole).canary(canary).run(from)?;
    ensure!(ping.received == ping.sent, "ping: {}", ping.output);
    if turn.is_multiple_of(10) {
        let iperf = Iperf::new(address, 1).port(IPERF);
        let iperf = match pair.family {
            Family::V4 => iperf,
            Family::V6 => iperf.udp(20_000_000),
        };
        let told = iperf.start(to, from)?.finish()?;
        ensure!(told.bits_per_second > 0.0, "iperf3 moved nothing");
    }
    Ok(())
}
