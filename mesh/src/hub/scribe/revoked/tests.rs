//! Who is cut off, without any network: replicas of a hub on one state directory.

use super::*;
use crate::ca::{Ca, Issued, init};
use crate::config::hub_yaml::HubConfig;
use crate::hub::members::MemberChange;
use crate::hub::scribe::{Order, ScribeError};
use crate::io::ca_store;
use crate::join::offer::tests::offer;
use crate::join::{Grant, Offer};
use crate::record::{Key, Record};
use crate::revocation::{Epoch, List, Revoked};
use crate::wire::decode_record;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(in crate::hub::scribe) struct Replica {
    pub(in crate::hub::scribe) scribe: Scribe,
    pub(in crate::hub::scribe) reports: UnboundedReceiver<Report>,
    orders: mpsc::Receiver<Order>,
}

impl Replica {
    pub(in crate::hub::scribe) fn start(folder: &TempDir, name: &str) -> Result<Self, ScribeError> {
        let at = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "cluster: {{name: east, id: 1}}\nclusterset: {{name: set.example}}\npodCidrs: [10.1.0.0/16]\n\
             stateDirectory: {}\nsource: dir:{}\nname: {name}\n",
            at("state"),
            at("manifests"),
        );
        let config = HubConfig::parse(&text, Path::new("/hub.yaml"), None);
        let config = config.map_err(std::io::Error::other)?;
        for name in ["manifests", "state"] {
            std::fs::create_dir_all(folder.path().join(name))?;
        }
        let state = &config.state_directory;
        let own = ca_store::take_or_make(state, "set.example", "east", SystemTime::now());
        let own = own.map_err(std::io::Error::other)?;
        let (orders, taken) = mpsc::channel();
        let (reporter, reports) = unbounded_channel();
        let own = Some(Arc::new(own));
        let mut scribe = Scribe::open(Arc::new(config), own, name, &orders, reporter)?;
        scribe.take_standing();
        scribe.recall()?;
        scribe.look();
        Ok(Self {
            scribe,
            reports,
            orders: taken,
        })
    }

    /// Becomes the one that writes.
    pub(in crate::hub::scribe) fn write(&mut self) {
        let lock = loop {
            if let Order::Locked(lock) = self.orders.recv().unwrap() {
                break lock;
            }
        };
        self.scribe.begin(lock).unwrap();
        self.scribe.settle().unwrap();
    }

    pub(in crate::hub::scribe) fn member(&mut self, offer: &Offer, may_revoke: bool) {
        let grant = Grant {
            may_revoke,
            ..Grant::default()
        };
        let text = self
            .scribe
            .peers
            .check(&offer.name, &offer.peer(&grant))
            .unwrap();
        self.scribe.peers.put(&offer.name, &text).unwrap();
        self.scribe.look_at_peers();
    }

    pub(in crate::hub::scribe) fn revoke(
        &mut self,
        name: &str,
        kind: Option<Kind>,
    ) -> Result<Cut, &'static str> {
        let cut = self.scribe.revoke(name, kind, SystemTime::now());
        cut.map_err(|refusal| refusal.name())
    }

    fn readmit(&mut self, name: &str, kind: Option<Kind>) -> Result<Cut, &'static str> {
        let cut = self.scribe.readmit(name, kind, SystemTime::now());
        cut.map_err(|refusal| refusal.name())
    }

    /// Members by what was reported: `+west`, `-west`, `!west` for one that was cut off.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            if let Report::Member(MemberChange {
                name,
                peer,
                is_revoked,
                ..
            }) = report
            {
                let sign = match (&peer, is_revoked) {
                    (Some(_), _) => '+',
                    (None, true) => '!',
                    (None, false) => '-',
                };
                told.push(format!("{sign}{name}"));
            }
        }
        told
    }

    /// The list that the journal has for others.
    pub(in crate::hub::scribe) fn published(&mut self) -> Option<Signed> {
        self.scribe.settle().unwrap();
        let key = Key::revocations();
        let (_, value) = self.scribe.live.records.get(&key)?;
        let record = decode_record(&key, value).unwrap();
        let Record::Revocations(signed) = record else {
            panic!("{record:?}");
        };
        Some(signed)
    }

    fn manifest(&mut self, name: &str, text: &str) {
        let path = self.scribe.config.source.join(name);
        std::fs::write(path, text).unwrap();
        // A file that somebody may still be writing is looked at twice.
        self.scribe.look();
        self.scribe.look();
    }

    fn nodes(&mut self) -> Vec<String> {
        self.scribe.settle().unwrap();
        let records = self.scribe.live.records.iter();
        let node = |(key, (_, value)): (&Key, &(_, bytes::Bytes))| {
            if let Record::Node(node) = decode_record(key, value).unwrap() {
                return Some(node.name);
            }
            None
        };
        records.filter_map(node).collect()
    }
}

fn list_of(by: &Issued, issuer: &str, epoch: u64, names: &[&Offer]) -> Signed {
    let revoked = |offer: &&Offer| {
        let entry = Revoked {
            pins: offer.pins(),
            since: Epoch(epoch),
        };
        (offer.name.clone(), entry)
    };
    let list = List {
        clusterset: "set.example".to_owned(),
        issuer: issuer.to_owned(),
        epoch: Epoch(epoch),
        clusters: names.iter().map(revoked).collect(),
    };
    Signed::new(list, &Ca::from_pem(&by.certificate, &by.key).unwrap()).unwrap()
}

#[test]
fn a_member_that_is_revoked_is_cut_off_by_all_replicas_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Replica::start(&folder, "hub-1").unwrap();
    writer.write();
    let mut other = Replica::start(&folder, "hub-2").unwrap();
    let (west, south) = (
        offer("west", 2, "10.2.0.0/16"),
        offer("south", 3, "10.3.0.0/16"),
    );
    for offer in [&west, &south] {
        writer.member(offer, false);
    }
    other.scribe.look_at_peers();
    assert_eq!(
        (writer.told(), other.told()),
        (
            vec!["+west".to_owned(), "+south".to_owned()],
            vec!["+south".to_owned(), "+west".to_owned()]
        )
    );
    assert_eq!(writer.published(), None);
    // Whichever replica is asked.
    let cut = other.revoke("west", None).unwrap();
    assert!(cut.is_published && cut.kind == Kind::Cluster);
    writer.scribe.look_at_revoked();
    assert_eq!(
        (writer.told(), other.told()),
        (vec!["!west".to_owned()], vec!["!west".to_owned()])
    );
    let list = writer.published().unwrap();
    assert!(list.is_by(&writer.scribe.own_ca.as_ref().unwrap().pem));
    assert_eq!(list.list().epoch, Epoch(cut.epoch));
    assert_eq!(list.list().clusters["west"].pins, west.pins());
    let lines: Vec<_> = writer.scribe.revoked_lines().collect();
    assert!(
        lines[0].starts_with("ClusterPeer west: was revoked here, epoch "),
        "{lines:?}"
    );
    // Twice is no news.
    assert_eq!(writer.revoke("west", None).unwrap().epoch, cut.epoch);
    // Another process.
    drop((writer, other));
    let mut after = Replica::start(&folder, "hub-1").unwrap();
    after.write();
    assert_eq!(after.told(), ["+south"]);
    assert_eq!(after.published(), Some(list));
    let back = after.readmit("west", None).unwrap();
    assert!(back.epoch > cut.epoch);
    assert_eq!(after.told(), ["+west"]);
    assert!(after.published().unwrap().list().clusters.is_empty());
    assert_eq!(after.readmit("west", None).unwrap_err(), "not_revoked");
}

#[test]
fn a_name_that_is_nobodys_or_twos_is_asked_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Replica::start(&folder, "hub-1").unwrap();
    hub.member(&offer("west", 2, "10.2.0.0/16"), false);
    hub.manifest(
        "west.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: west}\nspec: {podCIDRs: [10.1.1.0/24]}\n",
    );
    assert_eq!(hub.revoke("west", None).unwrap_err(), "name_ambiguous");
    assert_eq!(hub.revoke("nobody", None).unwrap_err(), "name_unknown");
    assert_eq!(
        hub.revoke("a/b", Some(Kind::Cluster)).unwrap_err(),
        "offer_malformed"
    );
    assert_eq!(
        hub.revoke("a/b", Some(Kind::Node)).unwrap_err(),
        "offer_malformed"
    );
    assert_eq!(
        hub.revoke("east", Some(Kind::Cluster)).unwrap_err(),
        "cluster_itself"
    );
    // Before it comes, if it is said what it is.
    assert!(hub.revoke("later", Some(Kind::Cluster)).is_ok());
    for kind in [Kind::Cluster, Kind::Node] {
        hub.revoke("west", Some(kind)).unwrap();
    }
    assert_eq!(hub.readmit("west", None).unwrap_err(), "name_ambiguous");
    for kind in [Kind::Cluster, Kind::Node] {
        hub.readmit("west", Some(kind)).unwrap();
    }
    assert_eq!(hub.readmit("west", None).unwrap_err(), "not_revoked");
}

#[test]
fn a_node_that_is_revoked_has_no_record_until_it_is_let_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Replica::start(&folder, "hub-1").unwrap();
    hub.write();
    let node = |name: &str, number: u8| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [10.1.{number}.0/24]}}\n"
        )
    };
    hub.manifest("worker-1.yaml", &node("worker-1", 1));
    hub.manifest("worker-2.yaml", &node("worker-2", 2));
    assert_eq!(hub.nodes(), ["worker-1", "worker-2"]);
    let cut = hub.revoke("worker-1", None).unwrap();
    assert_eq!(cut.kind, Kind::Node);
    assert_eq!(hub.nodes(), ["worker-2"]);
    assert_eq!(
        hub.published(),
        None,
        "what others lose is told by the record that goes"
    );
    // Its manifest changes; the process ends and another begins.
    hub.manifest("worker-1.yaml", &node("worker-1", 9));
    assert_eq!(hub.nodes(), ["worker-2"]);
    drop(hub);
    let mut hub = Replica::start(&folder, "hub-1").unwrap();
    hub.write();
    assert_eq!(hub.nodes(), ["worker-2"]);
    let lines: Vec<_> = hub.scribe.revoked_lines().collect();
    assert!(
        lines[0].starts_with("Node worker-1: was revoked here"),
        "{lines:?}"
    );
    hub.readmit("worker-1", None).unwrap();
    assert_eq!(hub.nodes(), ["worker-1", "worker-2"]);
}

#[test]
fn what_a_member_revokes_counts_by_its_grant_and_no_older_list_undoes_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Replica::start(&folder, "hub-1").unwrap();
    let west = offer("west", 2, "10.2.0.0/16");
    let (north, south) = (
        offer("north", 3, "10.3.0.0/16"),
        offer("south", 4, "10.4.0.0/16"),
    );
    hub.member(&west, false);
    hub.member(&north, true);
    hub.member(&south, false);
    hub.told();
    let key = init("set.example", "any", SystemTime::now()).unwrap();
    hub.scribe
        .hear_revocations(&list_of(&key, "west", 7, &[&south]));
    assert_eq!(hub.told(), [""; 0], "west may not");
    hub.scribe
        .hear_revocations(&list_of(&key, "north", 7, &[&south]));
    assert_eq!(hub.told(), ["!south"]);
    hub.scribe.hear_revocations(&list_of(&key, "north", 6, &[]));
    assert_eq!(hub.told(), [""; 0], "that one is older");
    drop(hub);
    let mut hub = Replica::start(&folder, "hub-2").unwrap();
    assert_eq!(hub.told(), ["+north", "+west"]);
    let epochs = hub.scribe.members.standing().epochs();
    assert_eq!(epochs["north"], Epoch(7));
    // Its operator overrules it; the next list that says so anew counts again.
    hub.readmit("south", None).unwrap();
    assert_eq!(hub.told(), ["+south"]);
    hub.scribe
        .hear_revocations(&list_of(&key, "north", 8, &[&south]));
    assert_eq!(hub.told(), ["!south"]);
    hub.scribe.hear_revocations(&list_of(&key, "north", 9, &[]));
    assert_eq!(hub.told(), ["+south"]);
}

#[test]
fn who_is_revoked_is_not_invited_and_no_token_lets_it_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Replica::start(&folder, "hub-1").unwrap();
    let (ours, west) = (
        offer("east", 1, "10.1.0.0/16"),
        offer("west", 2, "10.2.0.0/16"),
    );
    hub.member(&west, false);
    hub.revoke("west", None).unwrap();
    let judged = hub.scribe.check_revoked("west", "").unwrap_err();
    assert_eq!(judged.name(), "cluster_revoked");
    // The same CA under another name.
    let other = Offer {
        name: "other".to_owned(),
        ..west
    };
    let judged = hub
        .scribe
        .check_revoked(&other.name, &other.ca)
        .unwrap_err();
    assert!(
        judged.to_string().contains("was revoked here as west"),
        "{judged}"
    );
    assert!(hub.scribe.check_revoked("fresh", &ours.ca).is_ok());
}

#[test]
fn a_hub_does_not_start_with_revocations_that_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Replica::start(&folder, "hub-1").unwrap();
    hub.revoke("west", Some(Kind::Cluster)).unwrap();
    drop(hub);
    let path = folder.path().join("state/revoked/own.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(Replica::start(&folder, "hub-1").is_err());
    std::fs::write(&path, text).unwrap();
    assert!(Replica::start(&folder, "hub-1").is_ok());
}
