//! A probe: a control packet of Geneve (RFC 8926, section 3.4) that asks a peer whether it is there.
//!
//! It goes through the tunnel as a pod packet does, so that an answer proves all that a pod packet
//! needs: both directions, the keys, and a data plane at the other end that opens and seals.
//!
//! ```text
//! IPv4 overlay │ UDP → 6081 │ Geneve 8 B, O set │ option 12 B │ kind 8 B │ sequence 8 B │ cookie 8 B │ 8 B
//! ```

use crate::geneve::{self, SourceOption};
use crate::identity::Identity;
use crate::node::ClusterId;
use crate::overlay::{self, Ends};
use crate::reject::Reject;
use crate::vni::Vni;

/// The Ethertype of the payload: IEEE 802's first for local experiments, so that nobody takes it for IP.
pub const PROTOCOL: u16 = 0x88b5;

/// Bytes of the payload; see docs/wire.md.
pub const PAYLOAD_LEN: usize = 32;

/// Bytes of the plaintext: whole cipher blocks, as of every other.
pub const LEN: usize = overlay::LEN + PAYLOAD_LEN;

const _: () = assert!(
    LEN.is_multiple_of(crate::mtu::BLOCK as usize),
    "a probe needs no padding"
);

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Asks for a reply.
    Request = 1,
    /// Says back what a request said.
    Reply = 2,
}

/// A request, or the reply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which of the two.
    pub kind: Kind,
    /// The number of the request.
    pub sequence: u64,
    /// Whatever the asker put there. A reply that answers another run of its program does not have it.
    pub cookie: u64,
}

impl Probe {
    /// The reply to a request; `None` to a reply, or two nodes would go on for ever.
    pub fn reply(self) -> Option<Self> {
        match self.kind {
            Kind::Request => Some(Self {
                kind: Kind::Reply,
                ..self
            }),
            Kind::Reply => None,
        }
    }
}

/// Writes the plaintext of a probe from a node of `cluster`.
pub fn encode(ends: Ends, vni: Vni, cluster: ClusterId, probe: Probe) -> [u8; LEN] {
    let option = SourceOption::new(cluster, 0, Identity::HEALTH);
    let header = geneve::encode_control(vni, PROTOCOL, option);
    let mut plaintext = [0; LEN];
    let (head, payload) = plaintext.split_at_mut(overlay::LEN);
    overlay::write(head, ends, 0, &header, PAYLOAD_LEN);
    payload[0] = probe.kind as u8;
    payload[8..16].copy_from_slice(&probe.sequence.to_be_bytes());
    payload[16..24].copy_from_slice(&probe.cookie.to_be_bytes());
    plaintext
}

/// Reads the Geneve packet of a probe from a native peer of `cluster`, after its overlay addresses
/// were checked. Foreign peers say nothing that is believed, so they have no probes.
pub fn parse(geneve: &[u8], vni: Vni, cluster: ClusterId) -> Result<Probe, Reject> {
    let control = geneve::parse_control(geneve)?;
    if control.vni != vni {
        return Err(Reject::GeneveVni);
    }
    let option = control.source.ok_or(Reject::MissingOption)?;
    if option.cluster != u16::from(cluster) {
        return Err(Reject::OptionCluster);
    }
    let health = option.identity == u32::from(Identity::HEALTH);
    let payload = <&[u8; PAYLOAD_LEN]>::try_from(control.payload);
    let (PROTOCOL, true, Ok(payload)) = (control.protocol, health, payload) else {
        return Err(Reject::GeneveControl);
    };
    let &[kind, _, _, _, _, _, _, _, ref numbers @ ..] = payload;
    let kind = match kind {
        1 => Kind::Request,
        2 => Kind::Reply,
        _ => return Err(Reject::GeneveControl),
    };
    let number = |at: usize| {
        numbers[at..]
            .first_chunk()
            .copied()
            .map_or(0, u64::from_be_bytes)
    };
    Ok(Probe {
        kind,
        sequence: number(0),
        cookie: number(8),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Body;
    use hex_literal::hex;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::ops::Range;

    const ENDS: Ends = Ends {
        source: Ipv4Addr::new(240, 1, 0, 1),
        destination: Ipv4Addr::new(240, 2, 0, 7),
    };

    const REQUEST: Probe = Probe {
        kind: Kind::Request,
        sequence: 0x0102_0304_0506_0708,
        cookie: 0x1112_1314_1516_1718,
    };

    fn cluster(number: u16) -> ClusterId {
        ClusterId::new(number).unwrap()
    }

    /// The Geneve packet in a plaintext, as a receiver comes to it.
    fn geneve(plaintext: &[u8]) -> &[u8] {
        let (ends, body) = overlay::parse(plaintext).unwrap();
        let Body::Whole(data) = body else {
            panic!("{body:?}")
        };
        assert_eq!(ends, ENDS);
        overlay::parse_udp(&plaintext[Range::from(data)]).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let plaintext = encode(ENDS, Vni::DEFAULT, cluster(1), REQUEST);
        let golden = hex!(
            "45 00 0050 0000 4000 40 11 5a91 f0010001 f0020007"
            "c000 17c1 003c 0000"
            "03 80 88b5 000001 00  ff48 01 02 0001 0000 00000004"
            "01 00000000000000 0102030405060708 1112131415161718 0000000000000000"
        );
        assert_eq!(plaintext, golden);
        assert_eq!(
            parse(geneve(&golden), Vni::DEFAULT, cluster(1)),
            Ok(REQUEST)
        );
    }

    #[test]
    fn a_request_has_a_reply_and_a_reply_has_none() {
        let reply = REQUEST.reply().unwrap();
        assert_eq!(reply.kind, Kind::Reply);
        assert_eq!(
            (reply.sequence, reply.cookie),
            (REQUEST.sequence, REQUEST.cookie)
        );
        assert_eq!(reply.reply(), None);
    }

    #[test]
    fn what_is_no_probe_of_this_peer_is_refused_by_name() {
        let plaintext = encode(ENDS, Vni::DEFAULT, cluster(1), REQUEST);
        let good = geneve(&plaintext);
        let said = |bytes: &[u8]| parse(bytes, Vni::DEFAULT, cluster(1));
        let with = |at: usize, value: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = value;
            said(&bytes)
        };
        let headers = geneve::HEADER_LEN + geneve::SOURCE_OPTION_LEN;
        for short in 0..good.len() {
            let expected = match short < headers {
                true => Reject::GeneveTruncated,
                false => Reject::GeneveControl,
            };
            assert_eq!(said(&good[..short]), Err(expected), "{short} bytes");
        }
        assert_eq!(
            said(&[good, &[0]].concat()),
            Err(Reject::GeneveControl),
            "longer"
        );
        for kind in (0..=u8::MAX).filter(|kind| !(1..=2).contains(kind)) {
            assert_eq!(
                with(headers, kind),
                Err(Reject::GeneveControl),
                "kind {kind}"
            );
        }
        assert_eq!(with(0, 0x43), Err(Reject::GeneveVersion));
        assert_eq!(with(1, 0), Err(Reject::GeneveControl), "for a pod");
        assert_eq!(
            with(2, 0x08),
            Err(Reject::GeneveControl),
            "another Ethertype"
        );
        assert_eq!(with(6, 2), Err(Reject::GeneveVni));
        assert_eq!(with(8, 0), Err(Reject::MissingOption));
        assert_eq!(with(11, 1), Err(Reject::OptionMalformed));
        assert_eq!(with(13, 2), Err(Reject::OptionCluster));
        assert_eq!(
            with(19, 1),
            Err(Reject::GeneveControl),
            "in the name of the host"
        );
        for reserved in (headers + 1..headers + 8).chain(headers + 24..headers + 32) {
            assert_eq!(
                with(reserved, 0xff),
                Ok(REQUEST),
                "reserved bytes are ignored"
            );
        }
    }

    proptest! {
        #[test]
        fn round_trip(reply: bool, sequence: u64, cookie: u64, vni in 0..=Vni::MAX, number in 1..=ClusterId::MAX) {
            let kind = if reply { Kind::Reply } else { Kind::Request };
            let probe = Probe { kind, sequence, cookie };
            let vni = Vni::new(vni).unwrap();
            let plaintext = encode(ENDS, vni, cluster(number), probe);
            prop_assert_eq!(parse(geneve(&plaintext), vni, cluster(number)), Ok(probe));
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes, Vni::DEFAULT, cluster(1));
        }

        #[test]
        fn any_payload_behind_our_header_is_parsed_or_refused(payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let plaintext = encode(ENDS, Vni::DEFAULT, cluster(1), REQUEST);
            let headers = geneve::HEADER_LEN + geneve::SOURCE_OPTION_LEN;
            let bytes = [&geneve(&plaintext)[..headers], &payload].concat();
            let right = payload.len() == PAYLOAD_LEN && (1..=2).contains(&payload[0]);
            prop_assert_eq!(parse(&bytes, Vni::DEFAULT, cluster(1)).is_ok(), right);
        }
    }
}
