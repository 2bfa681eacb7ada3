//! All clusters but the one under test, in one thread.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use hawser_mesh::ca::{self, Ca, LEAF_LIFE};
use hawser_mesh::io::quic::{Listener, Tls};
use hawser_mesh::record::{Key, Version};
use hawser_mesh::trust::{Credentials, Trust};
use hawser_tunnel::node::ClusterId;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::population::{Change, FIRST_NODE_PORT, FLOODING, Population};
use super::size::Size;
use crate::io::Netns;
use crate::lab::ClusterPeer;

mod cluster;

use cluster::Cluster;

/// Where the hub of the first listens; the others follow.
const FIRST_HUB_PORT: u16 = 7_000;
/// The incarnation of every origin.
const INCARNATION: u64 = 1;

/// What a cluster is told to write, in one revision.
#[derive(Debug)]
struct Order {
    changes: Vec<Change>,
    tell: mpsc::Sender<Written>,
}

/// What a cluster has written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// When.
    pub(super) at: Instant,
    /// Whose.
    pub(super) origin: ClusterId,
    /// What.
    pub(super) keys: Vec<Key>,
    /// The state afterwards.
    pub(super) version: Version,
}

/// A cluster whose endpoints become unready and ready in turn, as fast as one likes.
#[derive(Debug)]
pub(super) struct Flood {
    population: Population,
    orders: UnboundedSender<Order>,
    turn: u32,
}

impl Flood {
    /// Has so many change, in one revision, and tells `tell` when that is written.
    pub(super) fn write(&mut self, count: u32, tell: &mpsc::Sender<Written>) -> Result<()> {
        let turn = |number: u32| {
            let ready = number / FLOODING % 2 == 1;
            self.population.flood(number, ready)
        };
        let changes = (self.turn..).take(count as usize).map(turn);
        let changes = changes.collect::<Result<Vec<_>>>()?;
        self.turn = self.turn.wrapping_add(count);
        let tell = tell.clone();
        let order = self.orders.send(Order { changes, tell });
        order.map_err(|_| anyhow!("the flooding cluster has ended"))
    }
}

/// The clusters. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Far {
    populations: Vec<Population>,
    peers: Vec<ClusterPeer>,
    orders: Vec<UnboundedSender<Order>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Far {
    /// Starts the hubs of all of them, in `netns` at `at`. They trust the cluster called `guest`, whose CA's certificate is
    /// `ca`.
    pub(super) fn start(
        netns: &Netns,
        size: Size,
        at: IpAddr,
        clusterset: &str,
        guest: (&str, &str),
    ) -> Result<Self> {
        silence(netns, size)?;
        let populations: Vec<Population> = (0..size.clusters())
            .map(|number| Population::new(size, number, at))
            .collect();
        let (mut peers, mut orders, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
        for (number, population) in (0..).zip(&populations) {
            let address = SocketAddr::new(at, FIRST_HUB_PORT + number);
            let (tls, ca) = identity(clusterset, &population.name(), guest)?;
            peers.push(ClusterPeer {
                name: population.name(),
                id: population.id()?.into(),
                prefixes: vec![population.prefix()?],
                hubs: vec![address.to_string()],
                ca,
            });
            let (order, taken) = unbounded_channel();
            orders.push(order);
            let cluster = Cluster::new(population.id()?, population.records()?);
            clusters.push((cluster, address, tls, taken));
        }
        let (ready, is_ready) = mpsc::channel();
        let netns = netns.clone();
        let work = move || {
            netns.run(|| -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let mut tasks = JoinSet::new();
                    for (cluster, address, tls, taken) in clusters {
                        let listener = Listener::bind(address, tls);
                        let listener =
                            listener.with_context(|| format!("failed to bind {address}"))?;
                        tasks.spawn(cluster.run(listener, taken));
                    }
                    ready.send(()).ok();
                    while let Some(ended) = tasks.join_next().await {
                        ended.context("a cluster died")??;
                    }
                    Ok(())
                })
            })?
        };
        let thread = thread::Builder::new().name("far".into()).spawn(work);
        let mut far = Self {
            populations,
            peers,
            orders,
            thread: Some(thread.context("failed to start a thread")?),
        };
        match is_ready.recv() {
            Ok(()) => Ok(far),
            Err(_) => Err(far
                .end()
                .err()
                .unwrap_or_else(|| anyhow!("no cluster listens"))),
        }
    }

    /// As what the hub under test is told of them.
    pub(super) fn peers(&self) -> &[ClusterPeer] {
        &self.peers
    }

    /// What there is in each.
    pub(super) fn populations(&self) -> &[Population] {
        &self.populations
    }

    /// Has a cluster write, and tells `tell` when it did.
    pub(super) fn order(
        &self,
        cluster: usize,
        changes: Vec<Change>,
        tell: &mpsc::Sender<Written>,
    ) -> Result<()> {
        let order = self.orders.get(cluster).context("no such cluster")?;
        let tell = tell.clone();
        order
            .send(Order { changes, tell })
            .map_err(|_| anyhow!("cluster {cluster} has ended"))
    }

    /// Has a cluster write, and waits until it did.
    pub(super) fn write(&self, cluster: usize, changes: Vec<Change>) -> Result<Written> {
        let (tell, told) = mpsc::channel();
        self.order(cluster, changes, &tell)?;
        drop(tell);
        told.recv().context("the cluster has ended")
    }

    /// One of them, to write without end.
    pub(super) fn flood(&self, cluster: usize) -> Result<Flood> {
        let population = self.populations.get(cluster).copied();
        let orders = self.orders.get(cluster).cloned();
        let (population, orders) = population.zip(orders).context("no such cluster")?;
        Ok(Flood {
            population,
            orders,
            turn: 0,
        })
    }

    /// The state of each.
    pub(super) fn versions(&self) -> Result<BTreeMap<ClusterId, Version>> {
        let (tell, told) = mpsc::channel();
        for cluster in 0..self.orders.len() {
            self.order(cluster, Vec::new(), &tell)?;
        }
        drop(tell);
        let versions: BTreeMap<ClusterId, Version> = told
            .into_iter()
            .map(|written| (written.origin, written.version))
            .collect();
        anyhow::ensure!(versions.len() == self.orders.len(), "a cluster has ended");
        Ok(versions)
    }

    fn end(&mut self) -> Result<()> {
        self.orders.clear();
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread
            .join()
            .map_err(|_| anyhow!("the thread of the clusters died"))?
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.end().ok();
    }
}

/// What a cluster's hub shows and whom it trusts, and its CA's certificate.
fn identity(
    clusterset: &str,
    cluster: &str,
    (guest, guest_ca): (&str, &str),
) -> Result<(std::sync::Arc<Tls>, String)> {
    let now = SystemTime::now();
    let issued = ca::init(clusterset, cluster, now)?;
    let authority = Ca::from_pem(&issued.certificate, &issued.key)?;
    let hub = authority.hub("hub-1", LEAF_LIFE, now)?;
    let credentials = Credentials::from_pem(&hub.certificate, &hub.key)?;
    let mut trust = Trust::new(clusterset);
    trust.set(guest, guest_ca)?;
    Ok((Tls::new(credentials, trust), issued.certificate))
}

/// Nobody answers for the nodes, not even the kernel.
fn silence(netns: &Netns, size: Size) -> Result<()> {
    let nodes = u32::from(size.clusters()) * u32::from(size.nodes());
    let rule = format!(
        "add table netdev far; \
         add chain netdev far in {{ type filter hook ingress device eth0 priority 0; }}; \
         add rule netdev far in udp dport {FIRST_NODE_PORT}-{} drop",
        u32::from(FIRST_NODE_PORT) + nodes - 1
    );
    netns.output("nft", &[&rule]).map(drop)
}
