//! Invariant I3: a node that has turned hostile, with its own good keys, on the real wire against the
//! real data plane (T8).

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tests::io::Netns;
use hawser_tests::lab::{Lab, Topology};
use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::engine::{Engine as _, NoiseEngine};
use hawser_tunnel::geneve::{self, Protocol, SourceOption};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::io::key_file;
use hawser_tunnel::ip::checksum;
use hawser_tunnel::lane::LaneNumber;
use hawser_tunnel::overlay::{self, Ends};
use hawser_tunnel::reject::Reject;
use hawser_tunnel::status::Counters;
use hawser_tunnel::vni::Vni;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const LIES: u64 = 10_000;
/// Lies that are under way at once: well below what the receiver's socket holds.
const WINDOW: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(10);

/// West-2's place, taken by somebody with west-2's key.
struct Liar {
    socket: UdpSocket,
    engine: NoiseEngine,
    victim: SocketAddr,
}

impl Liar {
    /// Shakes hands with east-1 as west-2, whose own processes were stopped.
    fn take_over(lab: &mut Lab) -> Result<Self> {
        let victim = lab.node("east-1").endpoint();
        let victim_key = lab.node("east-1").public_key()?.parse()?;
        let node = lab.node_mut("west-2");
        node.stop_agent()?;
        node.stop_keeper()?;
        let port = node.endpoint().port();
        let socket = node
            .netns()
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        let key = key_file::load_or_make(&node.state_dir(), LaneNumber::FIRST)?;
        let mut engine = NoiseEngine::new(&key, &victim_key, None, 0x00c0_ffee & 0xff_ffff);
        let mut message = Vec::new();
        ensure!(
            engine.initiate(false, Instant::now(), &mut message),
            "no initiation"
        );
        socket.send_to(&message, victim)?;
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket
                .recv_from(&mut buffer)
                .context("no answer to the handshake")?;
            // Others of the mesh still talk to west-2.
            if from == victim && buffer[0] == 2 {
                engine
                    .handle_handshake(&buffer[..length], Instant::now(), &mut message)
                    .map_err(|reason| anyhow::anyhow!("handshake: {reason}"))?;
                socket.send_to(&message, victim)?;
                return Ok(Self {
                    socket,
                    engine,
                    victim,
                });
            }
        }
    }

    fn say(&mut self, plaintext: &[u8]) -> Result<()> {
        let mut batch = Batch::default();
        batch.push(plaintext, ());
        let mut sealed = Datagrams::default();
        self.engine
            .seal(&batch, self.victim, Instant::now(), &mut sealed);
        let (message, _) = sealed.iter().next().context("sealed")?;
        self.socket.send_to(message, self.victim)?;
        Ok(())
    }
}

/// Everything that west-2 may say, to be falsified piece by piece.
struct Claim {
    ends: Ends,
    protocol: Protocol,
    option: SourceOption,
    inner: Vec<u8>,
}

impl Claim {
    fn plaintext(&self) -> Vec<u8> {
        let header = geneve::encode(Vni::DEFAULT, self.protocol, self.option);
        let mut plaintext = vec![0; overlay::LEN];
        overlay::write(&mut plaintext, self.ends, 7, &header, self.inner.len());
        plaintext.extend_from_slice(&self.inner);
        plaintext
    }

    /// The same without any Geneve option.
    fn without_option(&self) -> Vec<u8> {
        let mut plaintext = self.plaintext();
        plaintext[28] = 0;
        plaintext.drain(36..48);
        let length = u16::try_from(plaintext.len()).unwrap_or_default();
        plaintext[2..4].copy_from_slice(&length.to_be_bytes());
        plaintext[24..26].copy_from_slice(&(length - 20).to_be_bytes());
        plaintext
    }
}

/// A UDP packet between any two addresses of one family.
fn udp(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    const UDP_LEN: u8 = 16;
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [
                &[0x45, 0, 0, 20 + UDP_LEN, 0, 0, 0, 0, 64, 17, 0, 0][..],
                &from.octets(),
                &to.octets(),
            ]
            .concat();
            let sum = !checksum::fold(checksum::sum(&header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => [
            &[0x60, 0, 0, 0, 0, UDP_LEN, 17, 64][..],
            &from.octets(),
            &to.octets(),
        ]
        .concat(),
        _ => panic!("one family: {from} {to}"),
    };
    packet.extend_from_slice(&[0x0f, 0xa0]);
    packet.extend_from_slice(&port.to_be_bytes());
    packet.extend_from_slice(&[0, UDP_LEN, 0, 0]);
    packet.extend_from_slice(b"not true");
    packet
}

fn counters(client: &mut ControlClient) -> Result<Counters> {
    let response = client.request(&Request::Counters)?;
    let Response::Counters(counters) = response else {
        bail!("asked for counters, got {response:?}");
    };
    Ok(counters)
}

/// Frames that the TAP of a node handed to its kernel.
fn delivered(netns: &Netns) -> Result<u64> {
    let text = netns.output("cat", &["/proc/net/dev"])?;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("hawser0:"))
        .context("no hawser0")?;
    line.split_whitespace()
        .nth(2)
        .context("no packets")?
        .parse()
        .context("no number")
}

#[test]
fn a_hostile_node_is_believed_nothing_ten_thousand_times_each() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    // Nothing else is to reach east-1's TAP while the lies are counted.
    for node in ["east-2", "west-1"] {
        lab.node_mut(node).stop_agent()?;
        lab.node_mut(node).stop_keeper()?;
    }
    let mut liar = Liar::take_over(&mut lab)?;
    let victim = lab.node("east-1");
    let own = lab.pod("west-2-a");
    let to = lab.pod("east-1-a");
    let identity = own.identity();
    let honest = || Claim {
        ends: Ends {
            source: Ipv4Addr::new(240, 2, 0, 2),
            destination: Ipv4Addr::new(240, 1, 0, 1),
        },
        protocol: Protocol::Ipv4,
        option: SourceOption {
            cluster: 2,
            flags: 0,
            identity,
        },
        inner: udp(own.v4(), to.v4(), 5000),
    };
    let claim = |change: &dyn Fn(&mut Claim)| {
        let mut claim = honest();
        change(&mut claim);
        claim.plaintext()
    };
    let from = |source: IpAddr| {
        claim(&|claim| {
            let to = if source.is_ipv4() { to.v4() } else { to.v6() };
            claim.protocol = if source.is_ipv4() {
                Protocol::Ipv4
            } else {
                Protocol::Ipv6
            };
            claim.inner = udp(source, to, 5000);
        })
    };
    let lies: Vec<(&str, Vec<u8>, Reject)> = vec![
        (
            "as another node",
            claim(&|c| c.ends.source = Ipv4Addr::new(240, 2, 0, 1)),
            Reject::OverlaySource,
        ),
        (
            "as a node of another cluster",
            claim(&|c| c.ends.source = Ipv4Addr::new(240, 1, 0, 2)),
            Reject::OverlaySource,
        ),
        (
            "as another node's pod",
            from(lab.pod("west-1-a").v4()),
            Reject::SourceNotOwned,
        ),
        (
            "as another node's pod, IPv6",
            from(lab.pod("west-1-a").v6()),
            Reject::SourceNotOwned,
        ),
        (
            "as another node's router",
            from(IpAddr::V4(Ipv4Addr::new(10, 2, 1, 1))),
            Reject::SourceNotOwned,
        ),
        (
            "as a pod of another cluster",
            from(lab.pod("east-2-a").v4()),
            Reject::SourceNotOwned,
        ),
        (
            "as a pod of the receiver itself",
            from(lab.pod("east-1-b").v6()),
            Reject::SourceNotOwned,
        ),
        (
            "as a stranger",
            from(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2))),
            Reject::SourceNotOwned,
        ),
        (
            "as the unspecified address",
            from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            Reject::SourceNotOwned,
        ),
        (
            "as another cluster",
            claim(&|c| c.option.cluster = 1),
            Reject::OptionCluster,
        ),
        (
            "with a reserved identity",
            claim(&|c| c.option.identity = 2),
            Reject::IdentityReserved,
        ),
        (
            "with an unpublished identity",
            claim(&|c| c.option.identity = 77_777),
            Reject::IdentityUnpublished,
        ),
        (
            "with the receiver's identity",
            claim(&|c| c.option.identity = to.identity()),
            Reject::IdentityUnpublished,
        ),
        (
            "without the option",
            honest().without_option(),
            Reject::MissingOption,
        ),
        (
            "Geneve inside Geneve",
            claim(&|c| c.inner = udp(own.v4(), to.v4(), 6081)),
            Reject::NestedGeneve,
        ),
        (
            "to another node's pod",
            claim(&|c| c.inner = udp(own.v4(), lab.pod("east-2-a").v4(), 5000)),
            Reject::DestinationNotLocal,
        ),
        (
            "to the host's underlay",
            claim(&|c| c.inner = udp(own.v4(), Ipv4Addr::new(192, 168, 1, 1).into(), 5000)),
            Reject::DestinationNotLocal,
        ),
    ];
    let mut client = ControlClient::connect(&victim.tunnel_socket(), Role::Operator)?;
    let truth = delivered(victim.netns())?;
    liar.say(&honest().plaintext())?;
    wait(|| Ok(delivered(victim.netns())? == truth + 1))
        .context("the honest packet was not delivered")?;
    let start = counters(&mut client)?;
    for (lie, plaintext, reason) in &lies {
        let of = |counters: &Counters| {
            counters
                .drops
                .get(reason.name())
                .copied()
                .unwrap_or_default()
        };
        let before = of(&counters(&mut client)?);
        for told in 1..=LIES {
            liar.say(plaintext)?;
            if told % WINDOW == 0 {
                wait(|| Ok(of(&counters(&mut client)?) >= before + told))
                    .with_context(|| format!("{lie}: not all were counted as {reason}"))?;
            }
        }
        let counted = of(&counters(&mut client)?) - before;
        ensure!(
            counted == LIES,
            "{lie}: {counted} counted as {reason}, not {LIES}"
        );
    }
    let end = counters(&mut client)?;
    ensure!(
        end.rx_packets == start.rx_packets,
        "{} lies were delivered",
        end.rx_packets - start.rx_packets
    );
    ensure!(
        delivered(victim.netns())? == truth + 1,
        "the TAP handed a lie to the kernel"
    );
    // What the kernel says on the device by itself goes the other way.
    let dropped = |counters: &Counters| -> u64 {
        let inbound = counters
            .drops
            .iter()
            .filter(|(reason, _)| *reason != Reject::FrameLinkLocal.name());
        inbound.map(|(_, count)| count).sum()
    };
    let (dropped, told) = (dropped(&end) - dropped(&start), LIES * lies.len() as u64);
    ensure!(
        dropped == told,
        "{dropped} drops for {told} lies: {:?}",
        end.drops
    );
    liar.say(&honest().plaintext())?;
    wait(|| Ok(delivered(victim.netns())? == truth + 2))
        .context("the honest packet after all the lies")
}

fn wait(done: impl FnMut() -> Result<bool>) -> Result<()> {
    hawser_tests::lab::wait_until("the receiver", PATIENCE, done)
}
