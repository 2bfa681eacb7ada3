//! Whom to trust: revocations, CAs that change, and members that are cut off.

use super::*;
use crate::ca::{Ca, Issued, Successor, init};
use crate::revocation::{List, Revoked, Signed};
use crate::trust::Authorities;

/// Lists of c2, by a CA of that name.
fn revocations(ca: &Issued, epoch: u64, names: &[&str]) -> (Key, Option<Bytes>) {
    let entry = |name: &&str| {
        let revoked = Revoked {
            since: Epoch(epoch),
            ..Revoked::default()
        };
        ((*name).to_owned(), revoked)
    };
    let list = List {
        clusterset: "set.example".to_owned(),
        issuer: "c2".to_owned(),
        epoch: Epoch(epoch),
        clusters: names.iter().map(entry).collect(),
    };
    let signed = Signed::new(list, &Ca::from_pem(&ca.certificate, &ca.key).unwrap());
    let record = Record::Revocations(signed.unwrap());
    (record.key(), Some(encode_record(&record)))
}

#[test]
fn an_older_list_of_revocations_is_refused_in_whatever_state_it_comes() {
    let now = Instant::now();
    let ca = init("set.example", "c2", std::time::SystemTime::now()).unwrap();
    let mut two = hub(2, &[1], now);
    let trusting = |may_revoke: bool| {
        let mut change = member(2);
        let peer = ClusterPeer {
            ca: ca.certificate.clone(),
            may_revoke,
            ..(**change.peer.as_ref().unwrap()).clone()
        };
        change.peer = Some(Arc::new(peer));
        change
    };
    let mut one = hub(1, &[], now);
    one.set_member(trusting(false), now);
    let heard = |core: &mut Core| -> Vec<u64> {
        let mut heard = Vec::new();
        for action in actions(core) {
            if let Action::Revocations { signed } = action {
                heard.push(signed.list().epoch.0);
            }
        }
        heard
    };
    let refused = |core: &Core, reason: &str| core.stats().refusals.get(reason).copied();
    // Who may not revoke says so in vain; the grant changes, and it counts.
    two.write(frame(2, vec![revocations(&ca, 7, &["c3"])]));
    dial(&mut one, &mut two, 7, now);
    assert_eq!(heard(&mut one), [0; 0]);
    assert_eq!(refused(&one, "revocation_not_granted"), Some(1));
    one.set_member(trusting(true), now);
    carry(&mut one, &mut two, now);
    if heard(&mut one).is_empty() {
        // What was refused is asked for with the next change.
        two.write(frame(3, vec![revocations(&ca, 8, &["c3"])]));
        carry(&mut one, &mut two, now);
        assert_eq!(heard(&mut one), [8]);
    }
    // A hub that came back from a backup, in a new incarnation: its list is signed rightly, and older.
    let mut restored = hub(2, &[1], now);
    restored.write(Frame {
        version: Version::new(2, 10),
        changes: vec![revocations(&ca, 6, &[])],
    });
    one.closed(7);
    two.closed(7);
    dial(&mut one, &mut restored, 8, now);
    assert_eq!(heard(&mut one), [0; 0]);
    assert_eq!(refused(&one, "revocation_epoch_older"), Some(1));
    // The same after a restart, by what was kept for good.
    let mut again = hub(1, &[], now);
    again.raise_epochs(BTreeMap::from([("c2".to_owned(), Epoch(7))]));
    again.set_member(trusting(true), now);
    restored.closed(8);
    dial(&mut again, &mut restored, 9, now);
    assert_eq!(heard(&mut again), [0; 0]);
    assert_eq!(refused(&again, "revocation_epoch_older"), Some(1));
    // Forged by who has a certificate of that cluster, but not its CA.
    let other = init("set.example", "c2", std::time::SystemTime::now()).unwrap();
    restored.write(Frame {
        version: Version::new(2, 11),
        changes: vec![revocations(&other, 99, &["c3"])],
    });
    carry(&mut again, &mut restored, now);
    assert_eq!(heard(&mut again), [0; 0]);
    assert_eq!(refused(&again, "revocation_signature"), Some(1));
}

#[test]
fn a_member_that_is_cut_off_is_told_why() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    dial(&mut one, &mut two, 7, now);
    actions(&mut one);
    let mut change = member(2);
    change.peer = None;
    change.is_revoked = true;
    one.set_member(change, now);
    let told = actions(&mut one);
    let (session, reason) = (7, "cluster_revoked");
    assert!(
        told.contains(&Action::Close { session, reason }),
        "{told:?}"
    );
    assert!(told.contains(&Action::Forget { origin: id(2) }), "{told:?}");
    assert!(one.store(id(2)).is_none());
    assert_eq!(one.accepted(8, hub_id(2)), Err(Unwelcome::ClusterUnknown));
}

#[test]
fn a_members_next_ca_counts_if_the_one_before_vouches_for_it_and_ends_no_session() {
    let now = Instant::now();
    let root = |name: &str| init("set.example", name, std::time::SystemTime::now()).unwrap();
    let successor = |of: &Issued| {
        let ca = Ca::from_pem(&of.certificate, &of.key).unwrap();
        ca.successor(std::time::SystemTime::now()).unwrap()
    };
    let said = |next: &Successor| {
        let said = Authorities::of_pem(&next.ca.certificate, &next.link).unwrap();
        let record = Record::Authorities(said.clone());
        (said, (record.key(), Some(encode_record(&record))))
    };
    let first = root("c2");
    let with_ca = |ca: &str| {
        let mut change = member(2);
        let peer = ClusterPeer {
            ca: ca.to_owned(),
            ..(**change.peer.as_ref().unwrap()).clone()
        };
        change.peer = Some(Arc::new(peer));
        change
    };
    let (mut one, mut two) = (hub(1, &[], now), hub(2, &[1], now));
    one.set_member(with_ca(&first.certificate), now);
    let heard = |core: &mut Core| -> Vec<Authorities> {
        let of_cas = |action| {
            if let Action::Authorities { name, said } = action {
                assert_eq!(name, "c2");
                return Some(said);
            }
            None
        };
        actions(core).into_iter().filter_map(of_cas).collect()
    };
    // Somebody else's, by who speaks for that cluster and has not its CA.
    let (_, forged) = said(&successor(&root("c2")));
    two.write(frame(2, vec![forged]));
    dial(&mut one, &mut two, 7, now);
    assert!(heard(&mut one).is_empty());
    assert_eq!(one.stats().refusals.get("authorities_unlinked"), Some(&1));
    let next = successor(&first);
    let (right, record) = said(&next);
    two.write(frame(3, vec![record]));
    carry(&mut one, &mut two, now);
    assert_eq!(heard(&mut one), [right]);
    // It is trusted: what is open stays, and is made anew at its time.
    one.set_member(with_ca(&next.ca.certificate), now);
    let told = actions(&mut one);
    let name = "c2".to_owned();
    let ca = Some(next.ca.certificate.clone());
    assert!(told.contains(&Action::Trust { name, ca }), "{told:?}");
    let cluster = id(2);
    assert!(told.contains(&Action::Redial { cluster }), "{told:?}");
    let ends = |action: &Action| matches!(action, Action::Close { .. } | Action::Dial { .. });
    assert!(!told.iter().any(ends), "{told:?}");
    // By the next one alone, from here on.
    let (_, record) = said(&successor(&next.ca));
    two.write(frame(4, vec![record]));
    carry(&mut one, &mut two, now);
    assert_eq!(heard(&mut one).len(), 1);
    // A member that has that CA by what its operator says, and other hubs: dialed as those.
    let mut elsewhere = with_ca(&first.certificate);
    let peer = Arc::make_mut(elsewhere.peer.as_mut().unwrap());
    peer.hubs = vec!["192.0.2.9:6082".to_owned()];
    one.set_member(elsewhere, now);
    let told = actions(&mut one);
    assert!(
        told.iter()
            .any(|action| matches!(action, Action::Dial { .. }))
    );
    assert!(!told.contains(&Action::Redial { cluster }), "{told:?}");
}
