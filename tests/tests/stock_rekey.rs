//! Stock WireGuard peers through two rekeys: both implementations, both roles, both underlay families, with and without
//! a pre-shared key, sixteen peers of one node at once, and no packet lost.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Family, Node, wait_until};
use hawser_tests::sniffer::Sniffer;
use hawser_tests::stock::{
    self, Implementation, Meeting, MessageKind, StockLoad, StockPeer, StockSpec, WireLog, packet,
};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

/// Packets a second, each way, of each peer.
const RATE: u32 = 50;
/// The first handshake and two rekeys.
const HANDSHAKES: usize = 3;
/// Two times 120 s, and what a timer of either side may add to each.
const PATIENCE: Duration = Duration::from_secs(262);
const FIRST: Duration = Duration::from_secs(20);
/// WireGuard's REKEY_AFTER_TIME, and what a busy machine may add.
const REKEY: std::ops::Range<f64> = 119.0..131.0;
/// Nobody answers there; nobody says so either.
const SILENT: u16 = 7009;

struct Case {
    peer: StockPeer,
    /// Who speaks first, and so at every rekey.
    stock_initiates: bool,
    /// The distinct times that `wg show latest-handshakes` has told.
    seen: BTreeSet<SystemTime>,
}

impl Case {
    fn title(&self) -> String {
        let spec = self.peer.spec();
        format!(
            "{} {:<12} {} underlay, {}, {} initiates",
            self.peer.name(),
            spec.implementation.name(),
            spec.family,
            if spec.preshared { "PSK   " } else { "no PSK" },
            if self.stock_initiates {
                "stock "
            } else {
                "Hawser"
            },
        )
    }
}

fn hawser_handshakes(node: &Node, peer: &StockPeer) -> Result<u64> {
    let status = node.status()?;
    let lane = stock::lane(&status, peer.name())?;
    lane["handshakes"]
        .as_u64()
        .context("no count of handshakes")
}

#[test]
fn sixteen_stock_peers_go_through_two_rekeys_and_lose_nothing() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut cases = Vec::new();
    let mut index = 11;
    for implementation in Implementation::TESTED {
        for stock_initiates in [true, false] {
            for family in Family::BOTH {
                for preshared in [true, false] {
                    let cluster = stock::CLUSTER;
                    let spec = StockSpec {
                        implementation,
                        cluster,
                        index,
                        family,
                        preshared,
                    };
                    let mut peer = StockPeer::start(&mut lab, spec)?;
                    let meeting = Meeting {
                        endpoint: stock_initiates,
                        keepalive: None,
                    };
                    peer.meet(lab.node("east-1"), meeting)?;
                    cases.push(Case {
                        peer,
                        stock_initiates,
                        seen: BTreeSet::new(),
                    });
                    index += 1;
                }
            }
        }
    }
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let log = WireLog::start(node.link())?;
    let addresses: Vec<_> = cases.iter().map(|case| case.peer.endpoint().ip()).collect();
    let mut allow = lab.allow();
    allow.nodes.extend(addresses);
    allow.unpadded_data = true;
    let sniffer = Sniffer::start(&[node.link().clone()], allow, lab.canary())?;
    let declared: Vec<_> = cases
        .iter()
        .map(|case| case.peer.declaration(!case.stock_initiates))
        .collect();
    stock::declare(node, &declared)?;

    // The first packet of those that initiate; whoever does not has nothing to say before it is spoken to.
    let silent = SocketAddr::new(pod.v4(), SILENT);
    let _silent = pod.netns().run(|| UdpSocket::bind(silent))??;
    for case in cases.iter().filter(|case| case.stock_initiates) {
        let from = SocketAddr::new(case.peer.inner(Family::V4), SILENT);
        case.peer
            .geneve()?
            .send(&packet::udp(from, silent, b"good morning"))?;
    }
    wait_until("every peer has shaken hands", FIRST, || {
        for case in &cases {
            ensure!(
                hawser_handshakes(node, &case.peer)? == 1,
                "{}",
                case.title()
            );
            ensure!(
                case.peer.latest_handshake()?.is_some(),
                "{}: by wg",
                case.title()
            );
        }
        Ok(true)
    })?;

    let start = Instant::now();
    let peers: Vec<&StockPeer> = cases.iter().map(|case| &case.peer).collect();
    let load = StockLoad::start(&lab, pod, &peers, RATE)?;
    drop(peers);
    wait_until("every peer has had two rekeys", PATIENCE, || {
        // They come every two minutes: seldom enough to be asked for once in a while.
        std::thread::sleep(Duration::from_secs(2));
        for case in &mut cases {
            case.seen.extend(case.peer.latest_handshake()?);
        }
        for case in &cases {
            let own = log.said_by(case.peer.endpoint(), MessageKind::Initiation);
            ensure!(
                case.seen.len() >= HANDSHAKES,
                "{}: {} handshakes by wg, at {:?}; {} by Hawser, {} initiations of its own",
                case.title(),
                case.seen.len(),
                case.seen,
                hawser_handshakes(node, &case.peer)?,
                own.len()
            );
        }
        Ok(true)
    })
    .with_context(|| lab.account())?;
    // The last of the new sessions carry packets for a moment.
    let enough = load.received() + u64::from(RATE) * 2 * cases.len() as u64;
    wait_until("packets went over the last sessions", FIRST, || {
        Ok(load.received() > enough)
    })?;
    let report = load.stop()?;
    let took = start.elapsed();

    let sent: u64 = report.flows.iter().map(|(_, flow)| flow.sent).sum();
    let lost: u64 = report.flows.iter().map(|(_, flow)| flow.lost).sum();
    println!("{sent} packets in {took:.0?}, {lost} lost");
    for (at, case) in cases.iter().enumerate() {
        let gap = report
            .flows
            .iter()
            .filter(|(flow, _)| flow.peer == at)
            .map(|(_, flow)| flow.longest_gap);
        let own = log.said_by(case.peer.endpoint(), MessageKind::Initiation);
        println!(
            "{}: {} handshakes by Hawser, {} by wg; {} initiations of its own; longest gap {:.0?}",
            case.title(),
            hawser_handshakes(node, &case.peer)?,
            case.seen.len(),
            own.len(),
            gap.max().unwrap_or_default()
        );
    }
    report.check().with_context(|| lab.account())?;
    let messages = log.messages();
    for case in &cases {
        let title = case.title();
        let count = hawser_handshakes(node, &case.peer)?;
        ensure!(
            count >= HANDSHAKES as u64,
            "{title}: {count} handshakes by Hawser"
        );
        let spec = case.peer.spec();
        let hawser = SocketAddr::new(node.underlay(spec.family), node.endpoint().port());
        let (from, to) = match case.stock_initiates {
            true => (case.peer.endpoint(), hawser),
            false => (hawser, case.peer.endpoint()),
        };
        let said = |kind, from, to| {
            let of = messages
                .iter()
                .filter(move |m| (m.kind, m.from, m.to) == (kind, from, to));
            of.map(|message| message.at).collect::<Vec<_>>()
        };
        let initiations = said(MessageKind::Initiation, from, to);
        let responses = said(MessageKind::Response, to, from);
        ensure!(
            initiations.len() >= HANDSHAKES && responses.len() >= HANDSHAKES,
            "{title}: {} initiations, {} responses",
            initiations.len(),
            responses.len()
        );
        let other = said(MessageKind::Initiation, to, from).len();
        ensure!(
            other == 0,
            "{title}: the other side initiated {other} times"
        );
        for pair in initiations.windows(2) {
            let apart = pair[1].duration_since(pair[0])?.as_secs_f64();
            ensure!(
                REKEY.contains(&apart),
                "{title}: initiations {apart:.1} s apart"
            );
        }
    }
    sniffer.stop()?.check()
}
