//! Probes: control packets of Geneve by which peers watch each other.

use std::net::Ipv4Addr;

use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::ClusterId;
use hawser_tunnel::overlay::{self, Ends};
use hawser_tunnel::probe::{self, Kind, PAYLOAD_LEN, Probe};
use hawser_tunnel::reject::Reject;
use hawser_tunnel::vni::Vni;

use super::source::Source;

/// Target: any bytes as a probe; what is written is read as it was, and by nobody who expects another cluster's.
pub(super) fn packet(input: &[u8]) {
    let cluster = |number: u16| ClusterId::new(number % ClusterId::MAX + 1).expect("in range");
    let mut source = Source::new(input);
    let own = cluster(source.any());
    match probe::parse(input, Vni::DEFAULT, own) {
        Ok(read) => {
            let payload = &input[input.len() - PAYLOAD_LEN..];
            assert_eq!(payload[0], read.kind as u8);
            assert_eq!(payload[8..16], read.sequence.to_be_bytes());
            assert_eq!(payload[16..24], read.cookie.to_be_bytes());
        }
        Err(reason) => assert!(
            (Reject::GeneveTruncated..=Reject::OptionMalformed).contains(&reason)
                || matches!(
                    reason,
                    Reject::GeneveVni
                        | Reject::GeneveControl
                        | Reject::MissingOption
                        | Reject::OptionCluster
                ),
            "{reason} of a probe"
        ),
    }
    let sent = Probe {
        kind: source.pick(&[Kind::Request, Kind::Reply]),
        sequence: source.any(),
        cookie: source.any(),
    };
    let vni = Vni::from_be_bytes(source.array());
    let ends = Ends {
        source: Ipv4Addr::from(source.array::<4>()),
        destination: Ipv4Addr::from(source.array::<4>()),
    };
    let plaintext = probe::encode(ends, vni, own, sent);
    let (read, _) = overlay::parse(&plaintext).expect("what was written is read");
    assert_eq!(read, ends);
    let geneve = overlay::parse_udp(&plaintext[overlay::IPV4_LEN..]).expect("a datagram");
    assert_eq!(probe::parse(geneve, vni, own), Ok(sent));
    let other = cluster(u16::from(own));
    assert_eq!(
        probe::parse(geneve, vni, other),
        Err(Reject::OptionCluster),
        "a probe of another cluster"
    );
    // A reply is never answered, or two nodes would go on for ever.
    let reply = sent.reply();
    assert_eq!(reply.is_some(), sent.kind == Kind::Request);
    assert!(reply.is_none_or(|reply| reply.reply().is_none()));
    let mut lied = geneve.to_vec();
    let identity = lied.len() - PAYLOAD_LEN - size_of::<u32>();
    lied[identity..identity + 4].copy_from_slice(&u32::from(Identity::HOST).to_be_bytes());
    assert_eq!(
        probe::parse(&lied, vni, own),
        Err(Reject::GeneveControl),
        "only the reserved identity probes"
    );
}
