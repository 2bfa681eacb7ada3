//! CAs that change, without any network: replicas of a hub on one state directory.

use super::*;
use crate::ca::Ca;
use crate::hub::joining::Affair;
use crate::hub::members::MemberChange;
use crate::hub::scribe::revoked::tests::Replica;
use crate::io::ca_store::take_or_make;
use crate::join::Offer;
use crate::join::offer::tests::offer;
use crate::record::{Cluster, Key, Record};
use crate::wire::decode_record;
use hawser_tunnel::node::ClusterId;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// What the journal has.
fn record(replica: &mut Replica, key: &Key) -> Option<Record> {
    replica.scribe.settle().unwrap();
    let (_, value) = replica.scribe.live.records.get(key)?;
    Some(decode_record(key, value).unwrap())
}

fn said(replica: &mut Replica) -> Option<Authorities> {
    let record = record(replica, &Key::authorities())?;
    let Record::Authorities(said) = record else {
        panic!("{record:?}");
    };
    Some(said)
}

/// What agents are told of a cluster's CAs.
fn told(replica: &mut Replica, id: u16) -> String {
    let id = ClusterId::new(id).unwrap();
    let record = record(replica, &Key::cluster(id));
    let Some(Record::Cluster(Cluster { ca, .. })) = record else {
        panic!("{record:?}");
    };
    ca
}

fn reported(replica: &mut Replica) -> Vec<Report> {
    let mut reports = Vec::new();
    while let Ok(report) = replica.reports.try_recv() {
        reports.push(report);
    }
    reports
}

fn roll(replica: &mut Replica) -> Result<Rolled, &'static str> {
    let rolled = replica.scribe.roll(SystemTime::now());
    rolled.map_err(|refusal| refusal.name())
}

/// The CA of a cluster that is not here, and that rolls it.
struct Other {
    folder: TempDir,
    offer: Offer,
}

impl Other {
    fn new(name: &str, id: u16, prefix: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = take_or_make(folder.path(), "set.example", name, SystemTime::now()).unwrap();
        let offer = Offer {
            ca: own.pem,
            ..offer(name, id, prefix)
        };
        Self { folder, offer }
    }

    fn roll(&self) -> OwnCa {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now();
        let rolled = ca_store::roll(
            self.folder.path(),
            "set.example",
            &self.offer.name,
            now,
            day,
        );
        rolled.unwrap()
    }

    fn retire(&self) -> OwnCa {
        ca_store::retire(self.folder.path(), None).unwrap();
        take(self.folder.path(), "set.example", &self.offer.name).unwrap()
    }
}

#[test]
fn a_roll_is_told_to_all_by_whichever_replica_is_asked_and_the_old_one_goes_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Replica::start(&folder, "hub-1").unwrap();
    writer.write();
    let mut other = Replica::start(&folder, "hub-2").unwrap();
    let first = writer.scribe.own_ca.clone().unwrap();
    assert_eq!(said(&mut writer), None, "everybody knows it");
    assert_eq!(told(&mut writer, 1), "");
    // What the CA signed before is signed again.
    let west = offer("west", 2, "10.2.0.0/16");
    writer.member(&west, false);
    writer.revoke("west", None).unwrap();
    assert!(writer.published().unwrap().is_by(&first.pem));
    reported(&mut writer);

    let rolled = roll(&mut other).unwrap();
    assert!(rolled.old.is_some() && rolled.until.is_some());
    writer.scribe.look_at_ca();
    let own = writer.scribe.own_ca.clone().unwrap();
    assert_ne!(own.pem, first.pem);
    let reports = reported(&mut writer);
    let is_told =
        |report: &Report| matches!(report, Report::Ca(told) if told.bundle() == own.bundle());
    assert!(reports.iter().any(is_told));
    let authorities = said(&mut writer).unwrap();
    assert_eq!(authorities.vouched(&first.pem), Some(own.bundle()));
    assert_eq!(told(&mut writer, 1), own.bundle());
    let list = writer.published().unwrap();
    assert!(list.is_by(&own.pem) && !list.is_by(&first.pem));

    assert_eq!(roll(&mut writer).unwrap_err(), "ca_rolling");
    // One who writes next does not begin anew.
    let mut third = Replica::start(&folder, "hub-3").unwrap();
    assert_eq!(third.scribe.own_ca.as_ref().unwrap().bundle(), own.bundle());
    third.scribe.look_at_ca();
    assert!(
        third.scribe.own_ca.as_ref().unwrap().old.is_some(),
        "its time is not over"
    );
    let retired = other.scribe.retire().unwrap();
    assert_eq!((retired.old, retired.until), (None, None));
    writer.scribe.look_at_ca();
    assert_eq!(told(&mut writer, 1), own.pem);
    assert_eq!(
        said(&mut writer).unwrap().vouched(&first.pem),
        Some(own.pem.clone())
    );
    let refused = other.scribe.retire().map_err(|refusal| refusal.name());
    assert_eq!(refused.unwrap_err(), "ca_none_old");
}

#[test]
fn an_old_ca_whose_time_is_over_goes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Replica::start(&folder, "hub-1").unwrap();
    let state = writer.scribe.config.state_directory.clone();
    // And so does what was left by who died in the middle of it.
    std::fs::create_dir(state.join(".ca-0123456789abcdef")).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let rolled = ca_store::roll(
        &state,
        "set.example",
        "east",
        long_ago,
        Duration::from_secs(9),
    );
    rolled.unwrap();
    writer.scribe.look_at_ca();
    assert!(
        writer.scribe.own_ca.as_ref().unwrap().old.is_some(),
        "who writes does it"
    );
    writer.write();
    assert!(!state.join(".ca-0123456789abcdef").exists());
    writer.scribe.look_at_ca();
    assert_eq!(writer.scribe.own_ca.as_ref().unwrap().old, None);
    let pem = writer.scribe.own_ca.as_ref().unwrap().pem.clone();
    assert_eq!(told(&mut writer, 1), pem);
}

#[test]
fn a_members_cas_are_followed_by_all_replicas_and_after_a_restart_and_an_operator_overrules() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Replica::start(&folder, "hub-1").unwrap();
    writer.write();
    let mut other = Replica::start(&folder, "hub-2").unwrap();
    let west = Other::new("west", 2, "10.2.0.0/16");
    writer.member(&west.offer, false);
    other.scribe.look_at_peers();
    for replica in [&mut writer, &mut other] {
        reported(replica);
    }
    let rolled = west.roll();
    // Whoever hears it, all know it.
    let said = rolled.authorities().unwrap();
    other.scribe.hear_authorities("west", &said);
    writer.scribe.look_at_followed();
    for replica in [&mut writer, &mut other] {
        let reports = reported(replica);
        let cas = reports.iter().filter_map(|report| {
            if let Report::Member(MemberChange { peer, .. }) = report {
                return Some(peer.as_ref()?.ca.clone());
            }
            None
        });
        assert_eq!(cas.collect::<Vec<_>>(), [rolled.bundle()]);
    }
    assert_eq!(told(&mut writer, 2), rolled.bundle());
    writer.scribe.hear_authorities("west", &said);
    assert!(
        reported(&mut writer)
            .iter()
            .all(|report| !matches!(report, Report::Member(_)))
    );

    // The old one goes there, so it goes here; also if the disk fails first.
    let retired = west.retire();
    let gone = retired.authorities().unwrap();
    let authorities = writer.scribe.config.state_directory.join("authorities");
    let aside = authorities.with_extension("aside");
    std::fs::rename(&authorities, &aside).unwrap();
    writer.scribe.hear_authorities("west", &gone);
    assert_eq!(told(&mut writer, 2), rolled.bundle());
    assert_eq!(writer.scribe.unkept_authorities["west"], gone);
    std::fs::rename(&aside, &authorities).unwrap();
    writer.scribe.hear_authorities("west", &gone);
    assert_eq!(told(&mut writer, 2), retired.pem);
    // Neither a stranger's CA nor a step that was left out is followed.
    let stranger = Other::new("west", 2, "10.2.0.0/16");
    let false_one = stranger.roll().authorities().unwrap();
    west.roll();
    west.retire();
    let left_out = west.roll().authorities().unwrap();
    for wrong in [&false_one, &left_out] {
        writer.scribe.hear_authorities("west", wrong);
        assert_eq!(told(&mut writer, 2), retired.pem);
    }
    // Nor one of a cluster that is none, or not of that one.
    writer.scribe.hear_authorities("south", &said);
    assert!(writer.scribe.followed.get("south").is_none());

    let mut again = Replica::start(&folder, "hub-3").unwrap();
    assert_eq!(again.scribe.members.accepted()["west"].ca, retired.pem);
    // An operator says another one: that counts, whatever was followed.
    let ca = init_ca("west");
    let anew = Offer {
        ca: ca.clone(),
        ..west.offer.clone()
    };
    again.member(&anew, false);
    assert_eq!(again.scribe.members.accepted()["west"].ca, ca);
    // It leaves, and nothing of it stays.
    let (reply, answer) = oneshot::channel();
    let leave = Affair::Leave("west".to_owned(), reply);
    again.scribe.settle_affair(leave);
    assert!(answer.blocking_recv().unwrap().is_ok());
    assert!(again.scribe.followed.get("west").is_none());
}

fn init_ca(cluster: &str) -> String {
    let root = crate::ca::init("set.example", cluster, SystemTime::now()).unwrap();
    Ca::from_pem(&root.certificate, &root.key).unwrap();
    root.certificate
}
