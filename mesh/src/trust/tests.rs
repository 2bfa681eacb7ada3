use super::*;
use crate::ca::{Ca, LEAF_LIFE, init};
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

fn ca(cluster: &str) -> (Ca, String) {
    let root = init("set.example", cluster, now()).unwrap();
    let ca = Ca::from_pem(&root.certificate, &root.key).unwrap();
    (ca, root.certificate)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_certificate_speaks_for_its_node_on_either_side_while_it_lasts() {
    let (ca, root) = ca("east");
    let mut trust = Trust::new("set.example");
    trust.set("east", &root).unwrap();
    let node = der(&ca.node("worker-1", 2 * DAY, now()).unwrap().certificate);
    let check = |side, time| trust.verify(&node, &[], side, unix(time));
    for side in [Side::Client, Side::Server] {
        let early = now() - Duration::from_secs(299);
        assert_eq!(check(side, early), Ok(PeerId::node("east", "worker-1")));
        assert_eq!(
            check(side, early - Duration::from_secs(2)),
            Err(Untrusted::NotYetValid)
        );
        assert!(check(side, now() + 2 * DAY).is_ok());
        let late = now() + 2 * DAY + Duration::from_secs(1);
        assert_eq!(check(side, late), Err(Untrusted::Expired));
    }
}

#[test]
fn a_ca_that_rolls_over_is_trusted_beside_the_next_and_then_no_longer() {
    let ((old, old_root), (new, new_root)) = (ca("east"), ca("east"));
    let certificate = |ca: &Ca| der(&ca.hub("hub-1", LEAF_LIFE, now()).unwrap().certificate);
    let (by_old, by_new) = (certificate(&old), certificate(&new));
    let mut trust = Trust::new("set.example");
    let verify = |trust: &Trust, der: &CertificateDer<'_>| {
        trust.verify(der, &[], Side::Client, unix(now())).map(drop)
    };
    trust.set("east", &old_root).unwrap();
    assert_eq!(verify(&trust, &by_new), Err(Untrusted::IssuerUnknown));
    trust
        .set("east", &[old_root, new_root.clone()].concat())
        .unwrap();
    assert_eq!(
        (verify(&trust, &by_old), verify(&trust, &by_new)),
        (Ok(()), Ok(()))
    );
    trust.set("east", &new_root).unwrap();
    assert_eq!(verify(&trust, &by_old), Err(Untrusted::IssuerUnknown));
    trust.remove("east");
    let unknown = Untrusted::ClusterUnknown("east".to_owned());
    assert_eq!(verify(&trust, &by_new), Err(unknown));
}

#[test]
fn more_certificates_than_a_chain_has_are_not_looked_into() {
    let (ca, root) = ca("east");
    let mut trust = Trust::new("set.example");
    trust.set("east", &root).unwrap();
    let leaf = der(&ca.node("worker", LEAF_LIFE, now()).unwrap().certificate);
    for (side, most) in [(Side::Client, 2), (Side::Server, 6)] {
        let shown = vec![der(&root); most + 1];
        let verify = |shown: &[CertificateDer<'_>]| trust.verify(&leaf, shown, side, unix(now()));
        assert!(verify(&shown[1..]).is_ok());
        assert_eq!(verify(&shown), Err(Untrusted::ChainTooLong));
    }
}

#[test]
fn nothing_outlives_its_ca() {
    let (ca, _) = ca("east");
    let late = now() + crate::ca::CA_LIFE - DAY;
    assert!(ca.node("worker", DAY, late).is_ok());
    let refused = ca.node("worker", 2 * DAY, late).unwrap_err();
    assert!(matches!(refused, crate::ca::IssueError::OutlivesCa));
}

#[test]
fn a_leaf_signs_nobody_and_a_ca_is_no_peer() {
    let (ca, root) = ca("east");
    let leaf = ca.hub("hub-1", LEAF_LIFE, now()).unwrap();
    let mut trust = Trust::new("set.example");
    assert_eq!(trust.set("east", &leaf.certificate), Err(CaError::NotCa));
    assert!(Ca::from_pem(&leaf.certificate, &leaf.key).is_err());
    trust.set("east", &root).unwrap();
    let as_peer = trust.verify(&der(&root), &[], Side::Client, unix(now()));
    assert_eq!(as_peer, Err(Untrusted::IdentityMalformed));
}

#[test]
fn what_is_no_ca_is_refused_and_changes_nothing() {
    let (ca, root) = ca("east");
    let mut trust = Trust::new("set.example");
    trust.set("east", &root).unwrap();
    for (text, error) in [
        (String::new(), CaError::None),
        ("east".to_owned(), CaError::None),
        (root.replace("MII", "!!!"), CaError::Malformed),
        (root.replace("CERTIFICATE", "PRIVATE KEY"), CaError::None),
        (root.repeat(MAX_CAS + 1), CaError::TooMany),
    ] {
        assert_eq!(trust.set("east", &text), Err(error), "{text}");
    }
    let hub = der(&ca.hub("hub-1", LEAF_LIFE, now()).unwrap().certificate);
    assert!(trust.verify(&hub, &[], Side::Server, unix(now())).is_ok());
}

#[test]
fn credentials_are_a_certificate_and_the_key_to_it() {
    let (ca, root) = ca("east");
    let (own, other) = (
        ca.node("worker", LEAF_LIFE, now()).unwrap(),
        ca.node("worker", LEAF_LIFE, now()).unwrap(),
    );
    let good = Credentials::from_pem(&own.certificate, &own.key).unwrap();
    assert_eq!(good.id(), &PeerId::node("east", "worker"));
    assert_eq!(
        (good.clusterset(), good.expires()),
        ("set.example", now() + LEAF_LIFE)
    );
    let refused = |chain: &str, key: &str| Credentials::from_pem(chain, key).unwrap_err();
    let identity = CredentialError::Identity(Untrusted::IdentityMalformed);
    assert_eq!(refused(&root, &own.key), identity);
    assert_eq!(
        refused(&own.certificate, &other.key),
        CredentialError::Mismatch
    );
    assert_eq!(
        refused(&own.certificate, &own.certificate),
        CredentialError::Key
    );
    assert_eq!(refused(&own.key, &own.key), CredentialError::Certificate);
    assert_eq!(refused("", ""), CredentialError::Certificate);
    let shown = format!("{good:?} {own:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn names_in_certificates_are_those_of_clusters_nodes_and_hubs() {
    for peer in [
        PeerId::node("east", "worker-1.zone.example"),
        PeerId::hub("a", "b"),
    ] {
        let parsed = PeerId::parse(&peer.uri("set.example"));
        assert_eq!(parsed, Ok(("set.example".to_owned(), peer)));
    }
    for bad in [
        "",
        "spiffe://",
        "spiffe://set.example",
        "spiffe://set.example/cluster/east",
        "spiffe://set.example/cluster/east/node/",
        "spiffe://set.example/cluster//node/worker",
        "spiffe:///cluster/east/node/worker",
        "spiffe://set.example/cluster/ea.st/node/worker",
        "spiffe://set.example/cluster/east/node/Worker",
        "spiffe://set.example/cluster/east/node/worker/",
        "spiffe://set.example/cluster/east/node/../hub/x",
        "spiffe://set.example/clusters/east/node/worker",
        "SPIFFE://set.example/cluster/east/node/worker",
        "spiffe://set.example:1/cluster/east/node/worker",
        "spiffe://set.example/cluster/east/node/worker?x",
    ] {
        assert_eq!(
            PeerId::parse(bad),
            Err(Untrusted::IdentityMalformed),
            "{bad}"
        );
    }
}

#[test]
fn a_refusal_is_told_by_its_name() {
    for refusal in [
        Untrusted::Malformed,
        Untrusted::ClustersetOther("x".to_owned()),
        Untrusted::RoleOther,
        Untrusted::Expired,
    ] {
        assert!(refusal.to_string().starts_with(refusal.name()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// A stranger's certificate is looked into before anything about it is known to be right.
    #[test]
    fn ten_thousand_damaged_certificates_are_each_refused(seed: u64) {
        let (ca, root) = ca("east");
        let mut trust = Trust::new("set.example");
        trust.set("east", &root).unwrap();
        let good = der(&ca.node("worker", LEAF_LIFE, now()).unwrap().certificate).to_vec();
        let mut state = seed | 1;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(bound).unwrap()).unwrap()
        };
        for _ in 0..2500 {
            let mut bad = good.clone();
            for _ in 0..=below(4) {
                let at = below(bad.len());
                match below(4) {
                    0 => bad.truncate(at.max(1)),
                    1 => bad[at] = u8::try_from(below(256)).unwrap(),
                    2 => bad[at] ^= 1 << below(8),
                    _ => bad.insert(at, 0xff),
                }
            }
            if bad != good {
                let verified = trust.verify(&bad.into(), &[], Side::Client, unix(now()));
                prop_assert!(verified.is_err());
            }
        }
    }

    #[test]
    fn any_text_is_a_name_or_is_refused(text in "(spiffe://)?[a-z/.A-Z%]{0,60}") {
        if let Ok((clusterset, peer)) = PeerId::parse(&text) {
            prop_assert_eq!(peer.uri(&clusterset), text);
        }
    }
}
