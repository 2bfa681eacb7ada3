//! The cluster under test, and all others around it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::agent_socket::{AgentSocket, Watch};
use super::far::{Far, Flood, Written};
use super::guest::Guest;
use super::population::Change;
use super::size::Size;
use super::wire_bytes::WireBytes;
use crate::bench::meter::processor_time;
use crate::lab::{CLUSTERSET, Family, HUB_PORT, Hub, Lab, Node, Topology, address, wait_until};

/// How long a busy machine may take until all is in place.
const READY: Duration = Duration::from_secs(300);
/// How long a change may take until it is taken as lost.
pub(super) const LOST: Duration = Duration::from_secs(30);
/// An agent that takes less than this share of a core has nothing to do.
const IDLE: f64 = 0.04;
/// For how long it is looked at: it writes to disk once a second at most.
const LOOK: Duration = Duration::from_millis(1500);
/// The node with the agent; hubs are on those before it.
const NODE: &str = "east-3";
/// The nodes whose certificates the bench itself uses.
pub(super) const GUESTS: [&str; 2] = ["east-2", "east-1"];
/// As which node of the cluster's network the others are there.
const FAR: u16 = 90;

/// The clusters. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Site {
    size: Size,
    lab: Lab,
    far: Far,
    wire: WireBytes,
    /// Which hub runs.
    serving: usize,
    /// Whose turn it is.
    turn: usize,
    /// How often an endpoint of each cluster has changed.
    turns: Vec<u64>,
    /// The same for those of the large service.
    backend_turns: u64,
    /// Bytes on the wire of the last cold start.
    pub(super) snapshot: u64,
}

impl Site {
    /// Builds the network, starts the other clusters, one hub and one node, and waits until its agent knows everything.
    pub(super) fn build(size: Size) -> Result<Self> {
        let topology =
            Topology::parse("clusters: [{name: east, id: 1, nodes: 3, pods: 1, hubs: 2}]")?;
        let mut lab = Lab::new(topology)?;
        lab.configure()?;
        let far = lab.netns_add("far")?;
        lab.attach_underlay(&far, 1, FAR)?;
        let at = address::underlay(1, FAR, Family::V4);
        let ca = lab.authority("east").join("ca.crt");
        let ca =
            fs::read_to_string(&ca).with_context(|| format!("failed to read {}", ca.display()))?;
        let far = Far::start(&far, size, at, CLUSTERSET, ("east", &ca))?;
        let manifests = lab.manifests("east")?;
        for peer in far.peers() {
            manifests.cluster_peer(peer)?;
        }
        let node = lab.node(NODE);
        node.edit_config(|config| {
            if let Some(hub) = &mut config.hub {
                hub.endpoints = Some("all".to_owned());
            }
        })?;
        let wire = WireBytes::start(node.netns())?;
        let mut site = Self {
            size,
            lab,
            far,
            wire,
            serving: 0,
            turn: 0,
            turns: vec![0; usize::from(size.clusters())],
            backend_turns: 0,
            snapshot: 0,
        };
        site.start_hub(0)?;
        site.lab.node_mut(NODE).start_keeper()?;
        site.start_agent()?;
        site.wait_complete(READY)?;
        Ok(site)
    }

    /// Removes everything and says what could not be removed.
    pub(super) fn remove(self) -> Result<()> {
        let Self { lab, far, .. } = self;
        drop(far);
        lab.remove()
    }

    pub(super) const fn size(&self) -> Size {
        self.size
    }

    pub(super) const fn far(&self) -> &Far {
        &self.far
    }

    fn node(&self) -> &Node {
        self.lab.node(NODE)
    }

    /// The agent's process id.
    pub(super) fn agent(&self) -> Result<i32> {
        self.node().agent_pid().context("no agent")
    }

    /// The process id of the hub that serves.
    pub(super) fn hub(&self) -> Result<i32> {
        self.lab.hubs()[self.serving].pid().context("no hub")
    }

    /// The data plane's process id.
    pub(super) fn tunnel(&self) -> Result<i32> {
        self.node().data_plane_pid().context("no data plane")
    }

    /// Bytes between agent and hubs until now.
    pub(super) fn bytes(&self) -> Result<u64> {
        self.wire.count()
    }

    /// The agent's own socket.
    pub(super) fn socket(&self) -> AgentSocket {
        AgentSocket::new(self.node().agent_socket())
    }

    /// Every endpoint's event from now on.
    pub(super) fn watch(&self) -> Result<Watch> {
        self.socket().watch()
    }

    /// Stops the agent, and what it kept is gone.
    pub(super) fn forget(&mut self) -> Result<()> {
        let kept = self.node().kept_dir();
        self.lab.node_mut(NODE).stop_agent()?;
        fs::remove_dir_all(&kept).with_context(|| format!("failed to remove {}", kept.display()))
    }

    pub(super) fn start_agent(&mut self) -> Result<()> {
        self.lab.node_mut(NODE).start_agent()
    }

    /// Waits until the agent has nothing left to do of what was before, such as writing to disk.
    pub(super) fn settle(&self) -> Result<()> {
        let agent = self.agent()?;
        wait_until("the agent is idle", READY, || {
            let before = processor_time(agent)?;
            thread::sleep(LOOK);
            Ok(processor_time(agent)? - before <= IDLE * LOOK.as_secs_f64())
        })
    }

    /// Waits until everything that was written is known, and the agent idle.
    pub(super) fn wait_calm(&self) -> Result<()> {
        self.wait_complete(READY)?;
        self.settle()
    }

    /// Waits until the agent has every other cluster in whole, at the version that it is at now.
    pub(super) fn wait_complete(&self, patience: Duration) -> Result<()> {
        let wanted = self.far.versions()?;
        let socket = self.socket();
        let mut ended = None;
        wait_until("the agent knows every cluster", patience, || {
            let node = self.node();
            ended = node.check_agent().err();
            Ok(ended.is_some() || socket.status()?.has(&wanted)?)
        })?;
        ended.map_or(Ok(()), Err)
    }
}

/// Changes.
impl Site {
    /// The next endpoints to change, each of another cluster than the one before: the cluster, and its change. None comes
    /// twice in `count` changes.
    pub(super) fn next_turns(&mut self, count: u32) -> Result<Vec<(usize, Change)>> {
        // The last one is left to floods.
        let clusters = u64::from(self.size.clusters()) - 1;
        let endpoints = u64::from(self.size.endpoints());
        ensure!(
            u64::from(count) <= clusters * endpoints,
            "--seconds: more changes than {} endpoints",
            clusters * endpoints
        );
        (0..count)
            .map(|_| {
                let cluster = self.turn;
                self.turn = (cluster + 1) % (self.turns.len() - 1);
                Ok((cluster, self.next_turn_of(cluster)?))
            })
            .collect()
    }

    /// The next endpoint of a cluster to change.
    pub(super) fn next_turn_of(&mut self, cluster: usize) -> Result<Change> {
        let population = self.far.populations().get(cluster);
        let population = population.context("no such cluster")?;
        let turns = self.turns.get_mut(cluster).context("no such cluster")?;
        let endpoints = u64::from(self.size.endpoints());
        let endpoint = u32::try_from(*turns % endpoints)?;
        // At first all are ready.
        let ready = *turns / endpoints % 2 == 1;
        *turns += 1;
        population.turn(endpoint, ready)
    }

    /// The next backend of the large service to change; it is the first cluster's.
    pub(super) fn next_backend(&mut self) -> Result<Change> {
        let population = self.far.populations()[0];
        let backends = u64::from(population.backends());
        let turn = self.backend_turns;
        self.backend_turns += 1;
        let ready = turn / backends % 2 == 1;
        population.turn_backend(u32::try_from(turn % backends)?, ready)
    }

    /// The cluster that is left to it, as one that writes without end.
    pub(super) fn flood(&self) -> Result<Flood> {
        self.far.flood(usize::from(self.size.clusters()) - 1)
    }

    /// One endpoint changes, and the agent has told of it.
    pub(super) fn turn_one(&mut self, watch: &Watch) -> Result<Written> {
        let mut turns = self.next_turns(1)?;
        let (cluster, change) = turns.pop().context("no change")?;
        let written = self.far.write(cluster, vec![change])?;
        watch.wait_for(&written, LOST)?;
        Ok(written)
    }
}

/// Hubs.
impl Site {
    /// Starts a hub, and waits until it knows everything.
    pub(super) fn start_hub(&mut self, index: usize) -> Result<()> {
        self.hub_mut(index)?.start()?;
        let hub = &self.lab.hubs()[index];
        let wanted = self.far.versions()?;
        self.guest(index)?
            .wait_complete(&wanted, READY, || hub.check())
    }

    /// Kills the hub that serves; another one does from now on.
    pub(super) fn kill_hub(&mut self) -> Result<()> {
        let serving = self.serving;
        self.serving = self.other();
        self.hub_mut(serving)?.kill()
    }

    /// The hub that does not serve.
    pub(super) const fn other(&self) -> usize {
        1 - self.serving
    }

    /// Where the hub listens that serves.
    pub(super) fn serving_address(&self) -> SocketAddr {
        self.address(self.serving)
    }

    /// An agent that the bench itself plays, at the hub that serves.
    pub(super) fn guest_of_serving(&self) -> Result<Guest> {
        self.guest(self.serving)
    }

    /// One of each node that may be played.
    pub(super) fn guests_of_serving(&self) -> Result<Vec<Guest>> {
        let guests = GUESTS.iter();
        guests
            .map(|node| self.guest_as(node, self.serving))
            .collect()
    }

    fn hub_mut(&mut self, index: usize) -> Result<&mut Hub> {
        self.lab.hubs_mut().get_mut(index).context("no such hub")
    }

    fn address(&self, index: usize) -> SocketAddr {
        let node = self.lab.node(self.lab.hubs()[index].node());
        SocketAddr::new(node.underlay(Family::V4), HUB_PORT)
    }

    fn guest(&self, index: usize) -> Result<Guest> {
        self.guest_as(GUESTS[0], index)
    }

    fn guest_as(&self, node: &str, index: usize) -> Result<Guest> {
        let node = self.lab.node(node);
        let tls: PathBuf = node.dir().join("tls");
        Guest::new(
            node.netns(),
            self.address(index),
            &tls,
            &self.lab.authority("east"),
        )
    }
}
