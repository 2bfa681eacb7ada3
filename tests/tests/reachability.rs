//! Who reaches whom: pods, hosts and ICMP errors across nodes and clusters, with their own addresses.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Family, Lab, Node, Pod, Topology};
use hawser_tests::traffic::{EchoServer, Ping, echo};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const PORT: u16 = 7007;
const PATIENCE: Duration = Duration::from_secs(3);

fn address(pod: &Pod, family: Family) -> Result<IpAddr> {
    pod.address(family)
        .with_context(|| format!("{} has no address of {family:?}", pod.name()))
}

fn router(node: &Node, family: Family) -> Result<IpAddr> {
    node.router(family)
        .with_context(|| format!("{} has no router of {family:?}", node.name()))
}

#[test]
fn every_pod_reaches_every_pod_of_another_node_with_its_own_address() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two())?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    let pairs = lab.cross_pairs(None);
    ensure!(
        pairs.len() == 96,
        "8 pods with 6 others on other nodes, two families: {}",
        pairs.len()
    );
    let servers = lab
        .pods()
        .map(|pod| Ok((pod.name(), EchoServer::start(pod.netns(), PORT)?)))
        .collect::<Result<Vec<_>>>()?;
    for pair in &pairs {
        let (from, to) = (lab.pod(&pair.from), lab.pod(&pair.to));
        let destination = address(to, pair.family)?;
        let ping = Ping::new(destination)
            .deadline(PATIENCE)
            .run(from.netns())?;
        ensure!(ping.is_complete(), "ping {pair:?}: {}", ping.output);
        let at = SocketAddr::new(destination, PORT);
        echo::udp(from.netns(), None, at, 700, lab.canary(), PATIENCE)
            .with_context(|| format!("UDP {pair:?}"))?;
        echo::tcp(from.netns(), None, at, 70_000, lab.canary(), PATIENCE)
            .with_context(|| format!("TCP {pair:?}"))?;
    }
    for (name, server) in servers {
        let node = lab.pod(name).node();
        let seen: BTreeSet<IpAddr> = server.peers().into_iter().map(|peer| peer.ip()).collect();
        let others = lab.pods().filter(|pod| pod.node() != node);
        let expected: BTreeSet<IpAddr> = others.flat_map(|pod| pod.addresses().to_vec()).collect();
        ensure!(
            seen == expected,
            "{name} saw {seen:?}, not its peers' own addresses {expected:?}"
        );
    }
    sniffer.stop()?.check()
}

#[test]
fn hosts_and_remote_pods_reach_each_other_both_ways() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two())?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    for family in Family::BOTH {
        for node in lab.nodes() {
            for pod in lab.pods().filter(|pod| pod.node() != node.name()) {
                let to_pod = Ping::new(address(pod, family)?)
                    .deadline(PATIENCE)
                    .run(node.netns())?;
                ensure!(
                    to_pod.is_complete(),
                    "{} to {}: {}",
                    node.name(),
                    pod.name(),
                    to_pod.output
                );
                let to_host = Ping::new(router(node, family)?)
                    .deadline(PATIENCE)
                    .run(pod.netns())?;
                ensure!(
                    to_host.is_complete(),
                    "{} to {}: {}",
                    pod.name(),
                    node.name(),
                    to_host.output
                );
            }
        }
        // Over TCP, the pod sees the router address: a legal source, not the underlay's.
        let (node, pod) = (lab.node("east-1"), lab.pod("west-2-b"));
        let server = EchoServer::start(pod.netns(), PORT)?;
        let at = SocketAddr::new(address(pod, family)?, PORT);
        echo::tcp(node.netns(), None, at, 5_000, lab.canary(), PATIENCE)?;
        let seen: Vec<IpAddr> = server.peers().into_iter().map(|peer| peer.ip()).collect();
        ensure!(seen == [router(node, family)?], "the pod saw {seen:?}");
        let listener = EchoServer::start(node.netns(), PORT)?;
        let at = SocketAddr::new(router(node, family)?, PORT);
        echo::tcp(pod.netns(), None, at, 5_000, lab.canary(), PATIENCE)?;
        let seen: Vec<IpAddr> = listener.peers().into_iter().map(|peer| peer.ip()).collect();
        ensure!(seen == [address(pod, family)?], "the host saw {seen:?}");
    }
    sniffer.stop()?.check()
}

#[test]
fn icmp_errors_and_traceroute_come_back_from_a_remote_node() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two())?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    for family in Family::BOTH {
        let (near, far) = (lab.node("east-1"), lab.node("west-2"));
        let (from, to) = (lab.pod("east-1-a"), lab.pod("west-2-a"));
        let destination = address(to, family)?;
        // Hop 1 is the pod's own node, hop 2 the far node, hop 3 the pod.
        let hops = trace(from, destination)?;
        let expected = [router(near, family)?, router(far, family)?, destination];
        ensure!(
            hops == expected,
            "traceroute saw {hops:?}, not {expected:?}"
        );
        // A closed port is answered by the pod itself.
        let refused = echo::udp(
            from.netns(),
            None,
            SocketAddr::new(destination, 9),
            100,
            lab.canary(),
            PATIENCE,
        );
        let text = format!("{:#}", refused.expect_err("nobody listens there"));
        ensure!(text.contains("refused"), "a closed port says: {text}");
        // No such pod: the far node says so, rather than sending the packet out by its default route.
        let absent = match destination {
            IpAddr::V4(v4) => IpAddr::from([v4.octets()[0], v4.octets()[1], v4.octets()[2], 250]),
            IpAddr::V6(v6) => IpAddr::V6(((u128::from(v6) & !0xffff) | 0x2500).into()),
        };
        let ping = Ping::new(absent).deadline(PATIENCE).run(from.netns())?;
        ensure!(
            ping.received == 0,
            "an address that no pod has answered: {}",
            ping.output
        );
        let teller = router(far, family)?.to_string();
        ensure!(
            ping.output.to_lowercase().contains("unreachable") && ping.output.contains(&teller),
            "not told by {teller} that the pod is not there: {}",
            ping.output
        );
    }
    sniffer.stop()?.check()
}

fn trace(from: &Pod, to: IpAddr) -> Result<Vec<IpAddr>> {
    let text = from.netns().output(
        "traceroute",
        &["-n", "-q", "1", "-w", "2", "-m", "5", &to.to_string()],
    )?;
    let hop = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
    };
    let hops: Option<Vec<IpAddr>> = text.lines().skip(1).map(hop).collect();
    hops.with_context(|| format!("traceroute has a hop without an answer: {text}"))
}
