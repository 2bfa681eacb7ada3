//! Many peers of one node in one thread: each is a data plane of its own, out of the product's library, behind a UDP
//! socket of its own. They answer handshakes, open what they are sent, and say nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use blake2::{Blake2s256, Digest as _};
use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::{Device, TICK};
use hawser_tunnel::guard::Guard;
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::node::{ClusterId, NodeId, NodeIndex};
use hawser_tunnel::state::{Lane, Peer, State};
use ipnet::IpNet;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::io::Netns;

/// Where the first of them listens; the others follow.
pub const FIRST_PORT: u16 = 20_000;
/// The longest datagram.
const LONGEST: usize = 65_536;
/// Datagrams that one of them reads before the others have their turn.
const BATCH: usize = 64;

/// Who is in a crowd, whether it is there or not.
#[derive(Clone, Copy, Debug)]
pub struct Member(pub u16);

impl Member {
    /// The pod that its node would have: the 257th address of the cluster and those behind.
    #[must_use]
    pub fn pod(self) -> Ipv4Addr {
        let [high, low] = (256 + self.0).to_be_bytes();
        Ipv4Addr::new(10, 2, high, low)
    }

    /// Where it listens if it is there.
    #[must_use]
    pub const fn port(self) -> u16 {
        FIRST_PORT + self.0
    }

    /// Its node in `cluster`.
    ///
    /// # Errors
    /// When the cluster has no such node.
    pub fn id(self, cluster: ClusterId) -> Result<NodeId> {
        let index = NodeIndex::new(self.0 + 1)?;
        Ok(NodeId { cluster, index })
    }

    fn key(self) -> PrivateKey {
        let seed = Blake2s256::new()
            .chain_update(b"crowd")
            .chain_update(self.0.to_be_bytes());
        PrivateKey::from_random(seed.finalize().into())
    }

    fn prefixes(self) -> BTreeSet<IpNet> {
        [IpNet::from(IpAddr::V4(self.pod()))].into()
    }
}

/// What a node is told of a crowd of `count` members at `at`: in place of the peer that it has, the same many times.
///
/// # Errors
/// When the node has no peer.
pub fn peers(state: &State, count: u16, at: IpAddr) -> Result<BTreeMap<NodeId, Peer>> {
    let (id, model) = state.peers.iter().next().context("the node has no peer")?;
    let peer = |member: Member| -> Result<(NodeId, Peer)> {
        let lane = Lane {
            public_key: member.key().public(),
            endpoint: Some(SocketAddr::new(at, member.port())),
            preshared_key: None,
            needs_key: false,
        };
        let peer = Peer {
            name: format!("crowd-{}", member.0),
            prefixes: member.prefixes(),
            lanes: vec![lane],
            ..model.clone()
        };
        Ok((member.id(id.cluster)?, peer))
    };
    (0..count).map(|number| peer(Member(number))).collect()
}

/// The members that are there. Dropping it ends them.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Pod packets that each has got.
    got: Vec<AtomicU64>,
}

struct Present {
    socket: UdpSocket,
    device: Device,
    inbound: Inbound,
}

impl Crowd {
    /// The first `count` members, in `netns` at `at`. `state` is what the node is told, and `lanes` are the node's.
    ///
    /// # Errors
    /// When a port is taken, or the state is no good.
    pub fn start(
        netns: &Netns,
        at: IpAddr,
        count: u16,
        state: &State,
        lanes: &[Lane],
    ) -> Result<Self> {
        let start = Instant::now();
        let (_, model) = state.peers.iter().next().context("the node has no peer")?;
        let node = Peer {
            name: "node".to_owned(),
            prefixes: state.prefixes.clone(),
            lanes: lanes.to_vec(),
            ..model.clone()
        };
        let cluster = state.peers.keys().next().map(|id| id.cluster);
        let cluster = cluster.context("the node has no peer")?;
        let mut present = Vec::new();
        for member in (0..count).map(Member) {
            let own = State {
                node: member.id(cluster)?,
                prefixes: member.prefixes(),
                endpoints: BTreeMap::new(),
                peers: [(state.node, node.clone())].into(),
                guard: Guard {
                    local: member.prefixes(),
                    ..state.guard.clone()
                },
                ..state.clone()
            };
            let address = SocketAddr::new(at, member.port());
            let socket = netns.run(|| UdpSocket::bind(address))?;
            let socket = socket.with_context(|| format!("failed to bind {address}"))?;
            socket
                .set_nonblocking(true)
                .context("failed to make a socket non-blocking")?;
            let device = Device::new(member.key(), Blake2s256::digest(address.to_string()).into());
            // Whoever speaks first is the node: what would be said now has nobody to say it to.
            device.apply(own.check()?, start, &mut Datagrams::default());
            present.push(Present {
                socket,
                device,
                inbound: Inbound::default(),
            });
        }
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("failed to make an epoll")?;
        for (number, member) in (0..).zip(&present) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
            epoll
                .add(&member.socket, event)
                .context("failed to wait for a socket")?;
        }
        let shared = Arc::new(Shared {
            got: present.iter().map(|_| AtomicU64::new(0)).collect(),
            ..Shared::default()
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("crowd".into());
        let thread = thread
            .spawn(move || run(&epoll, &mut present, &own))
            .map_err(|error| anyhow!("failed to start the crowd: {error}"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Pod packets that each member has got.
    #[must_use]
    pub fn got(&self) -> Vec<u64> {
        let got = self.shared.got.iter();
        got.map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn run(epoll: &Epoll, present: &mut [Present], shared: &Shared) {
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; LONGEST];
    let mut ticked = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let wait = TICK.saturating_sub(ticked.elapsed());
        let wait = EpollTimeout::try_from(wait + Duration::from_millis(1));
        let count = epoll.wait(&mut events, wait.unwrap_or(EpollTimeout::ZERO));
        let now = Instant::now();
        for event in &events[..count.unwrap_or_default()] {
            let number = usize::try_from(event.data()).unwrap_or_default();
            if let (Some(member), Some(got)) = (present.get_mut(number), shared.got.get(number)) {
                got.fetch_add(member.read(&mut buffer, now), Ordering::Relaxed);
            }
        }
        if ticked.elapsed() >= TICK {
            ticked = now;
            for member in &*present {
                let mut out = Datagrams::default();
                member.device.handle_timeout(now, &mut out);
                member.send(out.iter());
            }
        }
    }
}

impl Present {
    /// Reads a batch of what is there; returns how many pod packets were in it.
    fn read(&mut self, buffer: &mut [u8], now: Instant) -> u64 {
        let mut packets = 0;
        for _ in 0..BATCH {
            let (length, from) = match self.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let datagram = std::iter::once((0..length, from));
            self.device
                .handle_datagrams(&mut self.inbound, &buffer[..length], datagram, now);
            let frames = self.inbound.frames().map(|frame| frame.packets());
            packets += u64::try_from(frames.sum::<usize>()).unwrap_or_default();
            self.send(self.inbound.datagrams.iter());
            self.inbound.clear();
        }
        packets
    }

    /// What the kernel does not take is lost, as on any network.
    fn send<'a>(&self, datagrams: impl Iterator<Item = (&'a [u8], &'a SocketAddr)>) {
        for (datagram, to) in datagrams {
            self.socket.send_to(datagram, to).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_share_nothing() {
        let members = [0, 1, 255, 256, 24_999].map(Member);
        let pods: BTreeSet<Ipv4Addr> = members.iter().map(|member| member.pod()).collect();
        assert_eq!(pods.len(), members.len());
        assert_eq!(Member(0).pod(), Ipv4Addr::new(10, 2, 1, 0));
        assert_eq!(Member(24_999).pod(), Ipv4Addr::new(10, 2, 98, 167));
        let keys: BTreeSet<_> = members.iter().map(|member| member.key().public()).collect();
        assert_eq!(keys.len(), members.len());
        assert_eq!(Member(24_999).port(), 44_999);
    }
}
