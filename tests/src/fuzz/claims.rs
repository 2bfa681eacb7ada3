//! What a peer says, sealed by its own engine: believed only as far as its key goes.

use std::time::Duration;

use hawser_tunnel::capture::Wants;
use hawser_tunnel::inbound::{Inbound, accept};
use hawser_tunnel::node::NodeId;
use hawser_tunnel::reject::{Drops, Reject};
use hawser_tunnel::virtio;

use super::packet::{Shape, UDP};
use super::source::Source;
use super::world::{FOREIGN_IDENTITY, PUBLISHED, Speaker, World, id};

mod plaintext;

use plaintext::{datagram, plaintexts};

/// Plaintexts of an input at most: two halves of a few packets, crossing.
const MOST_PLAINTEXTS: usize = 12;

/// Target: judges the Geneve packet of a peer without its encryption.
pub(super) fn accepted(input: &[u8]) {
    World::with_used(|world| {
        let mut source = Source::new(input);
        let speaker = if source.once_in(3) {
            &world.foreign
        } else {
            &world.native
        };
        let table = world.device.table().expect("a state in force");
        let peer = table.peer(speaker.id).expect("a peer of the table");
        let datagram = match source.once_in(4) {
            true => source.rest().to_vec(),
            false => datagram(&mut source),
        };
        if let Ok(accepted) = accept(&table, peer, &datagram) {
            let claim = Delivered {
                packet: accepted.packet,
                ether_type: accepted.protocol as u16,
                mac: accepted.source,
                header: virtio::Header::COMPLETE,
            };
            claim.check(speaker.id);
            assert!(!accepted.checksum_left || accepted.ip.checksum_offset().is_some());
            assert!(datagram.ends_with(accepted.packet));
        }
    });
}

/// Target: plaintexts sealed by real peers into a data plane, whole and in fragments, as time passes.
pub(super) fn sealed(input: &[u8]) {
    World::with_used(|world| {
        let World {
            device,
            native,
            foreign,
            now,
            ..
        } = world;
        let mut source = Source::new(input);
        let watching = source.once_in(4).then(|| {
            device.capture().subscribe(Wants {
                geneve: true,
                plain: true,
                peer: None,
                snap_length: 96,
            })
        });
        let mut inbound = Inbound::default();
        let mut said = 0;
        while !source.is_empty() && said < MOST_PLAINTEXTS {
            let speaker = if source.once_in(3) {
                &mut *foreign
            } else {
                &mut *native
            };
            for plaintext in plaintexts(&mut source) {
                said += 1;
                let message = speaker.seal(&plaintext, *now);
                let before = counts(device.drops());
                speaker.tell(device, &mut inbound, &message, *now);
                let reasons = grown(&before, device.drops());
                judge(&plaintext, &inbound, &reasons, speaker);
                inbound.clear();
            }
            // Halves are given up by time.
            *now += Duration::from_millis(source.pick(&[0, 1, 400, 1_000]));
            if source.once_in(4) {
                device.handle_inbound_timeout(&mut inbound, *now);
            }
        }
        if let Some(watching) = watching {
            assert_eq!(watching.lost(), 0);
            for captured in watching.packets.try_iter() {
                assert!(captured.bytes.len() <= captured.length.min(96));
            }
        }
    });
}

pub(super) fn counts(drops: &Drops) -> Vec<u64> {
    Reject::ALL.iter().map(|&reason| drops.of(reason)).collect()
}

/// The reasons that were counted since, as often as they were.
pub(super) fn grown(before: &[u64], drops: &Drops) -> Vec<Reject> {
    let all = Reject::ALL.iter().zip(before);
    all.flat_map(|(&reason, &before)| (before..drops.of(reason)).map(move |_| reason))
        .collect()
}

/// Every plaintext comes to one end: a frame, a name, a keepalive, or a half that waits.
fn judge(plaintext: &[u8], inbound: &Inbound, reasons: &[Reject], speaker: &Speaker) {
    let given_up = |reason: &&Reject| **reason == Reject::OverlayReassembly;
    let reasons: Vec<_> = reasons.iter().filter(|reason| !given_up(reason)).collect();
    let is_fragment = plaintext.len() >= 20 && plaintext[6] & 0x3f != 0
        || plaintext.get(7).is_some_and(|&low| low != 0);
    let ends = inbound.frames().len() + reasons.len();
    match (plaintext.is_empty(), is_fragment) {
        (true, _) => assert_eq!(ends, 0, "a keepalive is nothing"),
        (false, true) => assert!(ends <= 1, "{reasons:?} of one plaintext"),
        (false, false) => assert_eq!(ends, 1, "{reasons:?} of one plaintext"),
    }
    for reason in reasons {
        let after_decryption =
            *reason >= Reject::WgPlaintext && *reason <= Reject::DestinationNotLocal;
        assert!(after_decryption, "{reason} of an honest message");
    }
    assert!(inbound.datagrams.is_empty(), "data is not answered");
    for (header, frame) in inbound
        .frames()
        .map(|frame| (frame.header(), frame.to_vec()))
    {
        let (ethernet, packet) = frame.split_at(14);
        assert_eq!(ethernet[..6], [2, 0, 0, 0, 0, 2], "to the TAP");
        let delivered = Delivered {
            packet,
            ether_type: u16::from_be_bytes([ethernet[12], ethernet[13]]),
            mac: ethernet[6..12].try_into().expect("six bytes"),
            header,
        };
        delivered.check(speaker.id);
        if !is_fragment {
            let inner = 36 + usize::from(plaintext[28] & 0x3f) * 4;
            assert_eq!(
                packet,
                &plaintext[inner..inner + packet.len()],
                "delivered as it was said"
            );
        }
    }
}

/// What reaches the kernel.
struct Delivered<'a> {
    packet: &'a [u8],
    ether_type: u16,
    mac: [u8; 6],
    header: virtio::Header,
}

impl Delivered<'_> {
    /// Nothing that the peer is not entitled to say.
    fn check(&self, peer: NodeId) {
        let shape = Shape::of(self.packet).expect("an IP packet");
        assert_eq!(
            shape.ether_type, self.ether_type,
            "the version is the Ethertype's"
        );
        let (from, to) = shape.ends;
        let owns = |text: &str| {
            text.parse::<ipnet::IpNet>()
                .expect("a prefix")
                .contains(&from)
        };
        let owned = match peer == id("1/1") {
            true => owns("10.1.0.0/16") && !owns("10.1.2.0/24") || owns("fd01:1:1::/64"),
            false => owns("10.3.1.0/24") || owns("fd01:3:1::/64"),
        };
        assert!(owned, "{from} is not {peer}'s");
        let here = ["10.2.1.0/24", "fd01:2:1::/64"];
        let local = here.iter().any(|text| {
            text.parse::<ipnet::IpNet>()
                .expect("a prefix")
                .contains(&to)
        });
        assert!(local, "{to} is not here");
        let told = match self.ether_type {
            0x0800 => usize::from(u16::from_be_bytes([self.packet[2], self.packet[3]])),
            _ => 40 + usize::from(u16::from_be_bytes([self.packet[4], self.packet[5]])),
        };
        assert_eq!(told, self.packet.len(), "a packet is as long as it says");
        let (protocol, ports) = (shape.upper.0, shape.ports(self.packet));
        let nested = protocol == UDP && ports.is_some_and(|(_, to)| to == 6081);
        assert!(!nested, "Geneve inside Geneve");
        let mac = self
            .mac
            .iter()
            .fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
        let (cluster, identity) = (
            mac >> 28 & 0xfff,
            u32::try_from(mac & 0xfff_ffff).expect("28 bits"),
        );
        assert_eq!(
            (mac >> 40, cluster),
            (2, u64::from(u16::from(peer.cluster)))
        );
        match peer == id("1/1") {
            true => assert!(
                identity == 2 || PUBLISHED.contains(&identity),
                "identity {identity}"
            ),
            false => assert_eq!(identity, FOREIGN_IDENTITY),
        }
        if self.header != virtio::Header::COMPLETE {
            assert_eq!(
                (self.header.flags, self.header.gso_type),
                (virtio::Header::NEEDS_CSUM, 0)
            );
            let field = usize::from(self.header.csum_start) + usize::from(self.header.csum_offset);
            assert!(
                field + 2 <= self.packet.len() + 14,
                "the checksum lies outside the frame"
            );
        }
    }
}
