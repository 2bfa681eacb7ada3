//! A node with a pod, and a crowd of peers at the other end of its link.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::state::{Lane, State};

use super::stream::greet;
use crate::bench::meter::{Meter, peak_memory};
use crate::crowd::{self, Crowd, FIRST_PORT};
use crate::io::{Netns, device_bytes};
use crate::lab::{Family, Lab, Node, Topology, wait_until};

/// How long a busy machine may take until all is in place: a state with 25,000 peers is large.
const READY: Duration = Duration::from_secs(120);
/// One of so many runs is heard by the crowd.
pub(super) const HEARD: u32 = 64;
/// The path counts as empty when next to nothing has passed for so long.
const EMPTY: Duration = Duration::from_millis(100);
/// Bytes that are next to nothing.
const QUIET: u64 = 50_000;
/// The node under test, and the namespace where the crowd is.
const NODES: [&str; 2] = ["east-1", "west-1"];

/// How large a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// 100 peers, all of them active.
    Hundred,
    /// 25,000 peers, 200 of them active.
    Many,
}

pub(super) const HUNDRED: &str = "peers-100";
pub(super) const MANY: &str = "peers-25000";
/// Their names.
pub(super) const NAMES: [&str; 2] = [HUNDRED, MANY];

impl Size {
    pub(super) const ALL: [Self; 2] = [Self::Hundred, Self::Many];

    /// The size of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name() == name)
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hundred => HUNDRED,
            Self::Many => MANY,
        }
    }

    /// Peers that the node is told of.
    pub(super) const fn configured(self) -> u16 {
        match self {
            Self::Hundred => 100,
            Self::Many => 25_000,
        }
    }

    /// Peers that are there.
    pub(super) const fn active(self) -> u16 {
        match self {
            Self::Hundred => 100,
            Self::Many => 200,
        }
    }
}

/// The node and its crowd. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Site {
    size: Size,
    crowd: Crowd,
    /// The test is the node's agent as long as this is open.
    _control: ControlClient,
    lab: Lab,
}

impl Site {
    /// Builds the network, starts the node, tells it of the crowd, and waits until each active peer has a session.
    pub(super) fn build(size: Size) -> Result<Self> {
        let topology = Topology::parse(
            "clusters: [{name: east, id: 1, nodes: 1, pods: 1}, {name: west, id: 2, nodes: 1, pods: 1}]",
        )?;
        let mut lab = Lab::new(topology.direct())?;
        lab.configure()?;
        let node = lab.node_mut(NODES[0]);
        node.start_keeper()?;
        node.start_agent()?;
        let node = lab.node(NODES[0]);
        wait_until("the agent has set up the node", READY, || {
            node.route_pods()?;
            // Routes come first; the data plane is told behind them.
            Ok(node.status()?["revision"]["number"].is_u64())
        })?;
        route_cluster(node)?;
        // The agent would take the crowd for a mistake.
        lab.node_mut(NODES[0]).stop_agent()?;

        let node = lab.node(NODES[0]);
        let mut control = ControlClient::connect(&node.tunnel_socket(), Role::Agent)?;
        let mut state = state(&mut control)?;
        let west = lab.node(NODES[1]);
        let at = west.underlay(Family::V4);
        let (pod, active) = (node.pod("a"), size.active());
        silence(west.netns(), active)?;
        let crowd = Crowd::start(west.netns(), at, active, &state, &lanes(node, &control)?)?;
        state.peers = crowd::peers(&state, size.configured(), at)?;
        let state = Box::new(state);
        let response = control.request(&Request::Replace { state })?;
        if !matches!(response, Response::Applied { .. }) {
            bail!("told the node of its peers, got {response:?}");
        }
        wait_until("each active peer has heard of the pod", READY, || {
            let silent = crowd.got().iter().filter(|got| **got == 0).count();
            if silent > 0 {
                greet(pod.netns(), pod.v4(), active)?;
            }
            Ok(silent == 0)
        })?;
        sample(west.netns(), active)?;
        Ok(Self {
            size,
            crowd,
            _control: control,
            lab,
        })
    }

    /// Removes everything and says what could not be removed.
    pub(super) fn remove(self) -> Result<()> {
        let Self { crowd, lab, .. } = self;
        drop(crowd);
        lab.remove()
    }

    fn node(&self) -> &Node {
        self.lab.node(NODES[0])
    }

    /// Active peers.
    pub(super) const fn active(&self) -> u16 {
        self.size.active()
    }

    /// The peers.
    pub(super) const fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// The pod's namespace.
    pub(super) fn pod(&self) -> &Netns {
        self.node().pod("a").netns()
    }

    /// The pod's address.
    pub(super) fn address(&self) -> IpAddr {
        self.node().pod("a").v4()
    }

    fn data_plane(&self) -> Result<i32> {
        self.node().data_plane_pid().context("no data plane")
    }

    /// Watches the node's processes.
    pub(super) fn meter(&self) -> Result<Meter> {
        let keeper = self.node().keeper_pid().context("no keeper")?;
        Ok(Meter::new(vec![keeper, self.data_plane()?]))
    }

    /// The data plane's peak, in MiB.
    pub(super) fn peak_memory(&self) -> Result<f64> {
        peak_memory(self.data_plane()?)
    }

    /// Bytes that have been on the veth behind the node, both ways. The crowd says next to nothing.
    pub(super) fn carried(&self) -> Result<u64> {
        device_bytes(self.lab.node(NODES[1]).netns(), "eth0")
    }
}

impl Site {
    /// Waits until nothing is on the way any more, so that no measurement begins with the rest of another.
    pub(super) fn drain(&self) -> Result<()> {
        let moved = || anyhow::Ok((self.carried()?, self.crowd.got()));
        wait_until("queues are empty", READY, || {
            let before = moved()?;
            thread::sleep(EMPTY);
            let after = moved()?;
            // A handshake or a keepalive may pass at any time.
            Ok(before.1 == after.1 && after.0 - before.0 < QUIET)
        })
    }
}

/// Leads the other cluster's whole prefix into the tunnel as the agent has led that of its one node.
fn route_cluster(node: &Node) -> Result<()> {
    let show = ["-o", "-4", "route", "show", "10.2.1.0/24", "dev", "hawser0"];
    let mut route = String::new();
    wait_until("the agent has routed the other node's pods", READY, || {
        route = node.netns().output("ip", &show)?;
        Ok(!route.trim().is_empty())
    })?;
    let rest = route.trim().split_once(' ').map(|(_, rest)| rest);
    let rest = rest.context("a route without a next hop")?;
    node.netns()
        .ip_batch(&format!("route replace 10.2.0.0/16 dev hawser0 {rest}\n"))
}

fn state(control: &mut ControlClient) -> Result<State> {
    let response = control.request(&Request::State)?;
    let Response::State(Some(state)) = response else {
        bail!("asked for the state, got {response:?}");
    };
    Ok(*state)
}

/// The node's lanes: one port after the other.
fn lanes(node: &Node, control: &ControlClient) -> Result<Vec<Lane>> {
    let first = node.endpoint();
    let lane = |(number, key): (u16, &String)| -> Result<Lane> {
        Ok(Lane {
            public_key: key.parse()?,
            endpoint: Some(SocketAddr::new(first.ip(), first.port() + number)),
            preshared_key: None,
            needs_key: false,
        })
    };
    let lanes: Vec<Lane> = (0..)
        .zip(control.public_keys())
        .map(lane)
        .collect::<Result<_>>()?;
    ensure!(!lanes.is_empty(), "the node has no key");
    Ok(lanes)
}

/// Nobody answers for the peers that are not there, not even the kernel.
fn silence(netns: &Netns, active: u16) -> Result<()> {
    let rule = format!(
        "add table netdev crowd; \
         add chain netdev crowd in {{ type filter hook ingress device eth0 priority 0; }}; \
         add rule netdev crowd in udp dport {}-65535 drop",
        FIRST_PORT + active
    );
    netns.output("nft", &[&rule]).map(drop)
}

/// From now on the crowd hears one of [`HEARD`] data messages, or runs of them.
fn sample(netns: &Netns, active: u16) -> Result<()> {
    let rule = format!(
        "add rule netdev crowd in udp dport {FIRST_PORT}-{} @th,64,8 4 numgen random mod {HEARD} != 0 drop",
        FIRST_PORT + active - 1
    );
    netns.output("nft", &[&rule]).map(drop)
}
