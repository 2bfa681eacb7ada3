//! Clusters that join, without any network: two replicas of a hub on one state directory.

use super::*;
use crate::config::hub_yaml::HubConfig;
use crate::join::offer::tests::offer;
use std::path::Path;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::unbounded_channel;

fn scribe(folder: &TempDir, replica: &str) -> Scribe {
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "cluster: {{name: east, id: 1}}\nclusterset: {{name: set.example}}\npodCidrs: [10.1.0.0/16]\n\
         stateDirectory: {}\nsource: dir:{}\ntls: {{ca: ca.crt, certificate: hub.crt, key: hub.key}}\n",
        at("state"),
        at("manifests"),
    );
    let config = HubConfig::parse(&text, Path::new("/hub.yaml"), None).unwrap();
    let (orders, _) = mpsc::channel();
    let (reports, _) = unbounded_channel();
    Scribe::open(Arc::new(config), None, replica, &orders, reports).unwrap()
}

fn invited(scribe: &mut Scribe, ours: &Offer, name: &str) -> Token {
    let invitation = Invitation {
        ours: ours.clone(),
        name: name.to_owned(),
        grant: Grant::default(),
        life: MAX_LIFE,
    };
    let invited = scribe.invite(&invitation, SystemTime::now()).unwrap();
    Token::parse_for(Purpose::Cluster, &invited.token).unwrap()
}

fn guest(ours: &Offer, token: &Token, offer: &Offer, agreed: Option<[u8; 32]>) -> Guest {
    Guest {
        ours: ours.clone(),
        hash: token.secret.hash(),
        offer: offer.clone(),
        time: seconds(SystemTime::now()),
        agreed,
    }
}

/// What came of two that join at the same moment, by two replicas.
fn race(replicas: &mut [Scribe; 2], guests: [Guest; 2]) -> [Result<(), &'static str>; 2] {
    let start = Barrier::new(2);
    let [first, second] = replicas;
    let run = |scribe: &mut Scribe, guest: Guest| {
        start.wait();
        let joined = scribe.guest(&guest, SystemTime::now());
        joined.map(drop).map_err(|refusal| refusal.name())
    };
    let [one, other] = guests;
    let run = &run;
    thread::scope(|scope| {
        let one = scope.spawn(move || run(first, one));
        let other = scope.spawn(move || run(second, other));
        [one.join().unwrap(), other.join().unwrap()]
    })
}

fn look(scribe: &mut Scribe, guest: Guest) -> [u8; 32] {
    scribe.guest(&guest, SystemTime::now()).unwrap().digest()
}

#[test]
fn of_two_that_come_by_one_token_at_the_same_moment_one_joins() {
    let folder = tempfile::tempdir().unwrap();
    let mut replicas = [scribe(&folder, "hub-1"), scribe(&folder, "hub-2")];
    let ours = offer("east", 1, "10.1.0.0/16");
    let racers = [(); 2].map(|()| offer("west", 2, "10.2.0.0/16"));
    for _ in 0..20 {
        let token = invited(&mut replicas[0], &ours, "west");
        let agreed = look(&mut replicas[1], guest(&ours, &token, &racers[0], None));
        let guests = racers
            .each_ref()
            .map(|racer| guest(&ours, &token, racer, Some(agreed)));
        let mut came = race(&mut replicas, guests);
        came.sort();
        assert_eq!(came, [Ok(()), Err("token_used")]);
        replicas[1].leave("west").unwrap();
    }
}

#[test]
fn of_two_that_want_the_same_prefix_at_the_same_moment_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut replicas = [scribe(&folder, "hub-1"), scribe(&folder, "hub-2")];
    let ours = offer("east", 1, "10.1.0.0/16");
    let racers = [
        offer("west", 2, "10.2.0.0/16"),
        offer("south", 3, "10.2.8.0/24"),
    ];
    for _ in 0..20 {
        let guests = racers.each_ref().map(|racer| {
            let token = invited(&mut replicas[0], &ours, &racer.name);
            let agreed = look(&mut replicas[1], guest(&ours, &token, racer, None));
            guest(&ours, &token, racer, Some(agreed))
        });
        let came = race(&mut replicas, guests);
        let winner = match came {
            [Ok(()), Err("prefix_taken")] => "west",
            [Err("prefix_taken"), Ok(())] => "south",
            other => panic!("{other:?}"),
        };
        for replica in &mut replicas {
            replica.look_at_peers();
            let members: Vec<_> = replica.members.accepted().keys().collect();
            assert_eq!(members, [winner]);
        }
        replicas[0].leave(winner).unwrap();
    }
}

#[test]
fn nothing_else_is_taken_than_what_was_agreed_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut scribe = scribe(&folder, "hub-1");
    let (ours, west) = (
        offer("east", 1, "10.1.0.0/16"),
        offer("west", 2, "10.2.0.0/16"),
    );
    let token = invited(&mut scribe, &ours, "west");
    let agreed = look(&mut scribe, guest(&ours, &token, &west, None));
    // Its hub has another configuration by now.
    let mut other = ours.clone();
    other.pod_cidrs.push("10.11.0.0/16".parse().unwrap());
    let changed = scribe.guest(
        &guest(&other, &token, &west, Some(agreed)),
        SystemTime::now(),
    );
    assert_eq!(changed.unwrap_err().name(), "terms_changed");
    assert!(scribe.members.accepted().is_empty());
    // That used nothing up; nor does it matter how often the same one comes.
    for _ in 0..2 {
        let joined = scribe.guest(
            &guest(&ours, &token, &west, Some(agreed)),
            SystemTime::now(),
        );
        assert_eq!(joined.unwrap().digest(), agreed);
        assert_eq!(scribe.members.accepted().len(), 1);
    }
    // It came by that token, and may not become another with it.
    let mut grown = west.clone();
    grown.id = hawser_tunnel::node::ClusterId::new(9).unwrap();
    let changed = scribe.guest(
        &guest(&ours, &token, &grown, Some(agreed)),
        SystemTime::now(),
    );
    assert_eq!(changed.unwrap_err().name(), "name_taken");
}

#[test]
fn who_has_no_token_learns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut scribe = scribe(&folder, "hub-1");
    let ours = offer("east", 1, "10.1.0.0/16");
    let mut token = invited(&mut scribe, &ours, "west");
    token.secret = Secret::generate().unwrap();
    // It conflicts with all that there is, and is not told so.
    let other = offer("west", 1, "10.1.0.0/16");
    let refused = scribe.guest(&guest(&ours, &token, &other, None), SystemTime::now());
    assert_eq!(refused.unwrap_err().for_guest().0, "token_unknown");
}

#[test]
fn an_invitation_that_makes_no_sense_makes_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut scribe = scribe(&folder, "hub-1");
    let ours = offer("east", 1, "10.1.0.0/16");
    let mut refused = |name: &str, life: u64, hubs: usize| {
        let invitation = Invitation {
            ours: Offer {
                hubs: vec!["192.0.2.1:6082".to_owned(); hubs],
                ..ours.clone()
            },
            name: name.to_owned(),
            grant: Grant::default(),
            life: Duration::from_secs(life),
        };
        let refused = scribe.invite(&invitation, SystemTime::now());
        refused.map(drop).unwrap_err().to_string()
    };
    for (told, expected) in [
        (refused("We st", 900, 1), "NAME: We st: must be a DNS label"),
        (
            refused("east", 900, 1),
            "NAME: east: is this cluster itself",
        ),
        (refused("west", 0, 1), "--ttl: 0 s: must be 1 to 900"),
        (refused("west", 901, 1), "--ttl: 901 s: must be 1 to 900"),
        (refused("west", 900, 0), "hubs: none: "),
        (refused("west", 900, 9), "--hubs: 9: must be at most 8"),
    ] {
        assert!(told.starts_with(expected), "{told}");
    }
    let tokens = std::fs::read_dir(folder.path().join("state/tokens")).unwrap();
    assert_eq!(tokens.count(), 0);
}
