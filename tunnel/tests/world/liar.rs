//! A node that has another's keys and says what it wants.

use super::{World, address, pod, private_key, state, udp};
use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::engine::{Engine as _, NoiseEngine};
use hawser_tunnel::geneve::{self, Protocol, SourceOption};
use hawser_tunnel::overlay::{self, Ends};
use hawser_tunnel::state::PeerKind;
use hawser_tunnel::vni::Vni;
use std::net::Ipv4Addr;

/// A node that has the keys of 1/1 and says what it wants.
pub struct Liar {
    pub world: World,
    pub engine: NoiseEngine,
}

impl Liar {
    pub fn new(kind: PeerKind) -> Self {
        let mut world = World::new();
        world.apply(1, state(1, kind));
        let key = private_key(0);
        let peer = private_key(1).public();
        let mut engine = NoiseEngine::new(&key, &peer, None, 0x0012_3456);
        let mut message = Vec::new();
        assert!(engine.initiate(false, world.now, &mut message));
        let reply = Self::exchange(&mut world, &message).remove(0);
        engine
            .handle_handshake(&reply, world.now, &mut message)
            .unwrap();
        assert!(Self::exchange(&mut world, &message).is_empty());
        Self { world, engine }
    }

    pub fn exchange(world: &mut World, message: &[u8]) -> Vec<Vec<u8>> {
        let node = &mut world.nodes[1];
        let datagrams = [(0..message.len(), address(0))].into_iter();
        node.device
            .handle_datagrams(&mut node.inbound, message, datagrams, world.now);
        node.delivered
            .extend(node.inbound.frames().flat_map(|frame| frame.split()));
        let replies = node
            .inbound
            .datagrams
            .iter()
            .map(|(reply, _)| reply.to_vec())
            .collect();
        node.inbound.clear();
        replies
    }

    /// Sends a plaintext over the session; returns how many frames came out and the reason counted.
    pub fn say(&mut self, plaintext: &[u8]) -> (usize, Vec<String>) {
        let before = self.world.dropped(1);
        let mut batch = Batch::default();
        batch.push(plaintext, ());
        let mut sealed = Datagrams::default();
        self.engine
            .seal(&batch, address(1), self.world.now, &mut sealed);
        let message = sealed.iter().next().unwrap().0.to_vec();
        Self::exchange(&mut self.world, &message);
        let after = self.world.dropped(1);
        let grown = after
            .into_iter()
            .filter(|(reason, count)| before.get(reason) != Some(count));
        (
            std::mem::take(&mut self.world.nodes[1].delivered).len(),
            grown.map(|(reason, _)| reason).collect(),
        )
    }
}

/// Everything that a plaintext says, to be falsified piece by piece.
#[derive(Clone)]
pub struct Claim {
    pub ends: Ends,
    pub vni: u32,
    pub option: SourceOption,
    pub inner: Vec<u8>,
}

impl Claim {
    pub fn honest() -> Self {
        Self {
            ends: Ends {
                source: Ipv4Addr::new(240, 1, 0, 1),
                destination: Ipv4Addr::new(240, 2, 0, 1),
            },
            vni: 1,
            option: SourceOption {
                cluster: 1,
                flags: 0,
                identity: 1000,
            },
            inner: udp(pod(0), pod(1), b"claim"),
        }
    }

    pub fn plaintext(&self) -> Vec<u8> {
        let header = geneve::encode(Vni::new(self.vni).unwrap(), Protocol::Ipv4, self.option);
        let mut plaintext = vec![0; overlay::LEN];
        overlay::write(&mut plaintext, self.ends, 7, &header, self.inner.len());
        plaintext.extend_from_slice(&self.inner);
        plaintext
    }
}

pub fn claim(change: impl FnOnce(&mut Claim)) -> Vec<u8> {
    let mut claim = Claim::honest();
    change(&mut claim);
    claim.plaintext()
}

/// Changes bytes of the honest plaintext.
pub fn bytes(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut plaintext = Claim::honest().plaintext();
    change(&mut plaintext);
    let length = u16::try_from(plaintext.len()).unwrap();
    plaintext[2..4].copy_from_slice(&length.to_be_bytes());
    plaintext[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    plaintext
}
