//! Two clusters on time that the test drives: a hub and a node each, made of the product's own state machines. Records go
//! from hub to hub and to the nodes; what comes of them goes into the nodes' devices, and packets from one to the other.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hawser_mesh::agent::follower::{Event, Follower, Keep};
use hawser_mesh::agent::replicated::compose;
use hawser_mesh::config::NodeConfig;
use hawser_mesh::hub::core::{Action, Core};
use hawser_mesh::hub::journal::{Frame, Live};
use hawser_mesh::hub::manifest::{ClusterPeer, QuotaLimits};
use hawser_mesh::hub::members::Members;
use hawser_mesh::kept::{KeptOrigin, Loaded};
use hawser_mesh::record::{
    Cluster, IdentityRecord, Key, LaneRecord, Node, Pod, Record, Revision, Version,
};
use hawser_mesh::replica::{SessionId, Transmit};
use hawser_mesh::trust::PeerId;
use hawser_mesh::wire::encode_record;
use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::Device;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use hawser_tunnel::outbound::Outbound;
use hawser_tunnel::state::Digest;
use ipnet::IpNet;

/// A cluster's name.
fn name(site: usize) -> &'static str {
    ["east", "west"][site]
}

/// Where pods of packets are, behind their node's prefix.
pub(super) const POD: u8 = 10;

/// Kept of each origin, as on a disk.
type Disk = BTreeMap<ClusterId, KeptOrigin>;

/// Everything.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) sites: [Site; 2],
    /// Datagrams on the wire, in order: from, to, what.
    pub(super) wire: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Open sessions by number: who subscribes at which cluster's hub.
    sessions: BTreeMap<SessionId, (Speaker, usize)>,
    opened: SessionId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Hub(usize),
    Node(usize),
}

/// A cluster.
pub(crate) struct Site {
    pub(super) hub: Option<Core>,
    /// What the hub has in its state directory: of its own cluster, and of others.
    journal: Live,
    kept: Disk,
    revision: u64,
    config: NodeConfig,
    pub(super) follower: Follower,
    /// What the agent has on disk, and what that is a part of.
    agent_kept: Disk,
    scope: Bytes,
    pub(super) device: Device,
    pub(super) outbound: Outbound,
    pub(super) inbound: Inbound,
    pub(super) delivered: Vec<Vec<u8>>,
    /// What the data plane was told last, and how often it was told something else.
    told: Option<Digest>,
    pub(crate) changes: u32,
    /// Handshakes that its device began.
    pub(crate) initiations: u32,
}

pub(crate) fn cluster_id(site: usize) -> ClusterId {
    ClusterId::new(u16::try_from(site).unwrap() + 1).unwrap()
}

fn second(site: usize) -> u8 {
    u8::try_from(site).unwrap() + 1
}

fn net(text: String) -> IpNet {
    text.parse().unwrap()
}

fn pod_cidr(site: usize) -> IpNet {
    net(format!("10.{}.0.0/16", second(site)))
}

pub(super) fn underlay(site: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, second(site)], 51820))
}

fn private_key(site: usize) -> PrivateKey {
    PrivateKey::from_random([second(site); 32])
}

fn lanes(site: usize) -> Vec<LaneRecord> {
    vec![LaneRecord {
        public_key: private_key(site).public(),
        peer_endpoint: Some(underlay(site)),
        key_port: None,
    }]
}

fn index() -> NodeIndex {
    NodeIndex::new(1).unwrap()
}

/// A pod and its identity.
pub(crate) fn pod(site: usize, host: u8) -> [Record; 2] {
    let number = 1_000 * u32::from(second(site)) + u32::from(host);
    let identity = Identity::new(number).unwrap();
    let labels = BTreeMap::from([("app".to_owned(), format!("app-{host}"))]);
    [
        Record::Identity(IdentityRecord {
            number: identity,
            namespace: "shop".to_owned(),
            labels,
        }),
        Record::Pod(Pod {
            node: index(),
            namespace: "shop".to_owned(),
            name: format!("pod-{host}"),
            addresses: vec![address(site, host)],
            identity,
        }),
    ]
}

pub(super) fn address(site: usize, host: u8) -> IpAddr {
    Ipv4Addr::new(10, second(site), 1, host).into()
}

/// What a cluster's manifests make, before anybody joined.
fn records(site: usize) -> Vec<Record> {
    let member = |site: usize| {
        Record::Cluster(Cluster {
            id: cluster_id(site),
            name: name(site).to_owned(),
            prefixes: vec![pod_cidr(site)],
            ca: String::new(),
        })
    };
    let node = Record::Node(Node {
        index: index(),
        name: format!("{}-1", name(site)),
        prefixes: vec![net(format!("10.{}.1.0/24", second(site)))],
        lanes: lanes(site),
    });
    let pod = pod(site, POD);
    [member(0), member(1), node]
        .into_iter()
        .chain(pod)
        .collect()
}

fn config(site: usize) -> NodeConfig {
    let name = name(site);
    let text = format!(
        "cluster: {{ name: {name} }}\nnode: {{ name: {name}-1 }}\nunderlay: {{ devices: [eth0] }}\n\
         hub: {{ addresses: ['hub.example:7443'], ca: CA, certificate: CA, key: KEY }}\n"
    );
    NodeConfig::parse(&text, Path::new("node.yaml")).unwrap()
}

fn follower(config: &NodeConfig) -> Follower {
    let hub = config.hub.as_ref().unwrap();
    Follower::new(&config.cluster, &config.name, hub.endpoints)
}

impl Site {
    fn new(site: usize) -> Self {
        let config = config(site);
        Self {
            hub: None,
            journal: Live::default(),
            kept: Disk::default(),
            revision: 0,
            follower: follower(&config),
            config,
            agent_kept: Disk::default(),
            scope: Bytes::new(),
            device: Device::new(private_key(site), [second(site); 32]),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            delivered: Vec::new(),
            told: None,
            changes: 0,
            initiations: 0,
        }
    }

    /// What its device has dropped, by reason.
    pub(crate) fn dropped(&self) -> BTreeMap<String, u64> {
        self.device.drops().by_name()
    }

    /// Agents that know all of both clusters.
    fn is_complete(&self) -> bool {
        let status = self.follower.status();
        (0..2).all(|site| status.get(&cluster_id(site)).is_some_and(|it| it.synced))
    }
}

fn keep(disk: &mut Disk, origin: ClusterId, state: (Version, bool), changes: Changes) {
    let kept = disk.entry(origin).or_default();
    (kept.version, kept.complete) = state;
    for (key, change) in changes {
        kept.records.retain(|(_, at, _)| *at != key);
        let change = change.map(|(revision, value)| (revision, key, value));
        kept.records.extend(change);
    }
    kept.records.sort_by(|a, b| a.1.cmp(&b.1));
}

type Changes = Vec<(Key, Option<(Revision, Bytes)>)>;

fn copied(disk: &Disk) -> Disk {
    let copy = |kept: &KeptOrigin| KeptOrigin {
        version: kept.version,
        complete: kept.complete,
        records: kept.records.clone(),
    };
    disk.iter()
        .map(|(&origin, kept)| (origin, copy(kept)))
        .collect()
}

impl World {
    /// Both clusters have joined, and every agent knows all.
    #[allow(
        clippy::disallowed_methods,
        reason = "a world starts somewhere in time"
    )]
    pub(crate) fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            sites: [Site::new(0), Site::new(1)],
            wire: VecDeque::new(),
            sessions: BTreeMap::new(),
            opened: 0,
        };
        for site in 0..2 {
            world.say(site, &records(site));
        }
        world.return_of_hubs(false);
        // A node asks for its own pods once it knows which node it is.
        world.pass(Duration::from_secs(1));
        assert!(world.is_complete());
        world
    }

    /// A cluster's manifests say something new.
    pub(crate) fn say(&mut self, site: usize, records: &[Record]) {
        let at = &mut self.sites[site];
        at.revision += 1;
        let change = |record: &Record| (record.key(), Some(encode_record(record)));
        let frame = Frame {
            version: Version::new(1, at.revision),
            changes: records.iter().map(change).collect(),
        };
        at.journal.apply(&frame);
        if let Some(hub) = &mut at.hub {
            hub.write(frame);
        }
    }

    /// All hubs die; nobody is told more than that connections are over.
    pub(crate) fn kill_hubs(&mut self) {
        self.sessions.clear();
        for site in &mut self.sites {
            site.hub = None;
            site.follower.disconnect();
        }
    }

    /// All hubs start with their state directories, or without what they had heard of each other, and everybody is
    /// connected again.
    pub(crate) fn return_of_hubs(&mut self, forgetful: bool) {
        for site in 0..2 {
            let own = Cluster {
                id: cluster_id(site),
                name: name(site).to_owned(),
                prefixes: vec![pod_cidr(site)],
                ca: String::new(),
            };
            let mut hub = Core::new(own, "set.example".to_owned(), QuotaLimits::default());
            let at = &mut self.sites[site];
            hub.load_own(&at.journal);
            let other = 1 - site;
            let mut members = Members::new(cluster_id(site), name(site).to_owned());
            let peer = Arc::new(ClusterPeer {
                id: cluster_id(other),
                pod_cidrs: vec![pod_cidr(other)],
                service_cidrs: Vec::new(),
                namespaces: None,
                hubs: vec!["hub.example:1".to_owned()],
                ca: name(other).to_owned(),
                quotas: QuotaLimits::default(),
                may_revoke: false,
            });
            for change in members.set(name(other), Some(peer)) {
                hub.set_member(change, self.now);
            }
            if forgetful {
                at.kept.clear();
            }
            for (origin, kept) in copied(&at.kept) {
                hub.load(origin, kept);
            }
            hub.set_writer(true);
            at.hub = Some(hub);
        }
        for site in 0..2 {
            self.connect(Speaker::Hub(site), 1 - site);
            self.connect(Speaker::Node(site), site);
        }
        self.settle();
    }

    /// The agent of a cluster's node starts anew with what it has on disk; its data plane notices nothing.
    pub(crate) fn restart_agent(&mut self, site: usize) {
        assert!(self.sessions.is_empty(), "only without hubs");
        let at = &mut self.sites[site];
        at.follower = follower(&at.config);
        at.follower.load(Loaded {
            origins: copied(&at.agent_kept),
            scope: at.scope.clone(),
            damage: None,
        });
        self.settle();
    }

    fn connect(&mut self, subscriber: Speaker, publisher: usize) {
        self.opened += 1;
        let session = self.opened;
        self.sessions.insert(session, (subscriber, publisher));
        let id = match subscriber {
            Speaker::Hub(site) => PeerId::hub(name(site), "hub-0"),
            Speaker::Node(site) => PeerId::node(name(site), format!("{}-1", name(site))),
        };
        let hub = self.sites[publisher].hub.as_mut().unwrap();
        hub.accepted(session, id).unwrap();
        match subscriber {
            Speaker::Hub(site) => {
                let publisher = (cluster_id(publisher), PeerId::hub(name(publisher), "hub-0"));
                let hub = self.sites[site].hub.as_mut().unwrap();
                hub.dialed(session, publisher.0, publisher.1, self.now);
            }
            Speaker::Node(site) => {
                let follower = &mut self.sites[site].follower;
                follower.connect(session, self.now);
                follower.announce(lanes(site));
            }
        }
    }

    /// Carries messages and datagrams until there are none.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = self.deliver();
            for site in 0..2 {
                moved |= self.hub_speaks(site) | self.agent_speaks(site);
            }
            if !moved {
                return;
            }
        }
    }

    fn hub_speaks(&mut self, site: usize) -> bool {
        let at = &mut self.sites[site];
        let Some(hub) = &mut at.hub else {
            return false;
        };
        while let Some(action) = hub.poll_action() {
            match action {
                Action::Keep {
                    origin,
                    version,
                    complete,
                    changes,
                } => keep(&mut at.kept, origin, (version, complete), changes),
                // The record of the node says the same already.
                Action::Announced { lanes: told, .. } => assert_eq!(told, lanes(site)),
                // Everybody knows whom to dial and whom to trust.
                Action::Dial { .. } | Action::Trust { .. } | Action::Synced { .. } => {}
                Action::Forget { .. }
                | Action::Hang { .. }
                | Action::Close { .. }
                | Action::Bump { .. }
                | Action::Ahead { .. }
                | Action::Revocations { .. }
                | Action::Authorities { .. }
                | Action::Redial { .. }
                | Action::Refused { .. } => panic!("the hub of {}: {action:?}", name(site)),
            }
        }
        let said = std::iter::from_fn(|| hub.poll_transmit(self.now)).collect();
        self.carry(Speaker::Hub(site), said)
    }

    fn agent_speaks(&mut self, site: usize) -> bool {
        let at = &mut self.sites[site];
        let mut new = false;
        while let Some(event) = at.follower.poll_event() {
            match event {
                Event::Mesh => new = true,
                Event::Keep(Keep::Changes {
                    origin,
                    version,
                    complete,
                    changes,
                }) => keep(&mut at.agent_kept, origin, (version, complete), changes),
                Event::Keep(Keep::Forget { origin }) => drop(at.agent_kept.remove(&origin)),
                Event::Keep(Keep::Scope(scope)) => at.scope = scope,
                Event::Apply { .. }
                | Event::Delete { .. }
                | Event::Forgotten { .. }
                | Event::Synced { .. } => {}
            }
        }
        let said = std::iter::from_fn(|| at.follower.poll_transmit(self.now)).collect();
        if new {
            self.compose(site);
        }
        self.carry(Speaker::Node(site), said) | new
    }

    /// As the agent does: what it knows makes a state, and the data plane is told where that is another one.
    fn compose(&mut self, site: usize) {
        let at = &mut self.sites[site];
        let learned = at.follower.learned();
        let Ok(composed) = compose(&at.config, learned) else {
            assert!(at.told.is_none(), "what was known is not known any more");
            return;
        };
        assert!(composed.conflicts.is_empty(), "{:?}", composed.conflicts);
        let digest = composed.state.digest();
        if at.told == Some(digest) {
            return;
        }
        at.told = Some(digest);
        at.changes += 1;
        let mut out = Datagrams::default();
        let mut state = composed.state;
        for peer in state.peers.values_mut() {
            peer.path_mtu = 1500;
        }
        at.device.apply(state.check().unwrap(), self.now, &mut out);
        self.send(site, &out);
    }

    /// Brings messages to the other ends of their sessions.
    fn carry(&mut self, from: Speaker, said: Vec<Transmit>) -> bool {
        let moved = !said.is_empty();
        for sent in said {
            let Some(&(subscriber, publisher)) = self.sessions.get(&sent.session) else {
                continue;
            };
            let to = if from == subscriber {
                Speaker::Hub(publisher)
            } else {
                subscriber
            };
            match to {
                Speaker::Hub(site) => {
                    let hub = self.sites[site].hub.as_mut().unwrap();
                    hub.handle_message(sent.session, sent.stream, sent.bytes, self.now);
                }
                Speaker::Node(site) => {
                    let follower = &mut self.sites[site].follower;
                    follower
                        .handle_message(sent.session, sent.stream, sent.bytes, self.now)
                        .unwrap();
                }
            }
        }
        moved
    }

    /// Whether both agents know all of both clusters, by hubs that they are connected to.
    pub(crate) fn is_complete(&self) -> bool {
        self.sites.iter().all(Site::is_complete)
    }
}
