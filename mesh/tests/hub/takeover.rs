//! Hubs that start again, and replicas that take over.

use crate::agent::{Agent, records};
use crate::records_of;
use crate::site::{Site, until};
use hawser_mesh::record::{Incarnation, Version};
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;
use std::fs;

/// Each number with what it was given to, from the state directory.
fn numbers(site: &Site) -> BTreeMap<String, String> {
    let mut numbers = BTreeMap::new();
    for kind in ["nodes", "identities"] {
        for entry in fs::read_dir(site.path("state").join(kind)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.starts_with('.') {
                let text = fs::read_to_string(&path).unwrap();
                let object: serde_json::Value = serde_json::from_str(&text).unwrap();
                let claim = object["claim"].as_str().unwrap();
                numbers.insert(format!("{kind}/{name}"), claim.to_owned());
            }
        }
    }
    numbers
}

fn revision(status: &serde_json::Value) -> u64 {
    let version = status["version"].as_str().unwrap();
    version.split_once('.').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn a_hub_that_starts_again_has_the_same_revisions_indices_and_identities() {
    let site = Site::new("east", 1);
    site.nodes();
    for n in 0..5 {
        site.pod(&format!("p{n}"), &format!("app{n}"), 20 + n);
    }
    let hub = site.start(0);
    let before = hub.until("all is known", |status| records_of(status, 1) == 18);
    let mut agent = Agent::new();
    agent.connect(&site, 0).await;
    agent
        .until("the agent has all", |replica| {
            records(replica, 1).len() == 18
        })
        .await;
    let (had, given) = (records(&agent.replica, 1), numbers(&site));
    hub.kill();
    let hub = site.start(0);
    hub.until("it writes", |status| status["role"] == "writer");
    assert_eq!(hub.status()["version"], before["version"]);
    assert_eq!(numbers(&site), given);
    agent.connect(&site, 0).await;
    let bytes = agent.replica.stats().bytes_in;
    agent
        .until("it is in sync", |replica| replica.stats().messages_in > 0)
        .await;
    assert_eq!(records(&agent.replica, 1), had);
    // The agent had all of it: what came is no snapshot.
    site.pod("p9", "app0", 99);
    agent
        .until("the next change", |replica| records(replica, 1).len() == 20)
        .await;
    let bytes = agent.replica.stats().bytes_in - bytes;
    assert!(bytes < 600, "{bytes} bytes for one change");
}

#[tokio::test]
async fn a_replica_takes_over_from_a_killed_writer_and_no_number_and_no_revision_is_used_twice() {
    let site = Site::new("east", 1);
    site.nodes();
    let mut hubs = [Some(site.start(0)), Some(site.start(1))];
    let role = |hubs: &[Option<crate::site::Hub>; 2], hub: usize| {
        hubs[hub].as_ref().unwrap().status()["role"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut agent = Agent::new();
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for round in 0..4u8 {
        let writer = usize::from(role(&hubs, 1) == "writer");
        let follower = 1 - writer;
        assert_eq!(
            (role(&hubs, writer), role(&hubs, follower)),
            ("writer".into(), "follower".into())
        );
        agent.connect(&site, follower).await;
        for n in 0..5 {
            site.pod(
                &format!("p{round}-{n}"),
                &format!("app{round}-{n}"),
                10 + round * 20 + n,
            );
        }
        // The follower serves what the writer wrote; then, in the middle of the next changes, the writer dies.
        let expected = usize::from(round) * 30 + 15 + 3;
        agent
            .until("the follower serves it", |replica| {
                records(replica, 1).len() == expected
            })
            .await;
        for n in 5..10 {
            site.pod(
                &format!("p{round}-{n}"),
                &format!("app{round}-{n}"),
                10 + round * 20 + n,
            );
        }
        hubs[writer].take().unwrap().kill();
        let expected = expected + 15;
        agent
            .until("the next writer goes on", |replica| {
                records(replica, 1).len() == expected
            })
            .await;
        let status = hubs[follower]
            .as_ref()
            .unwrap()
            .until("it writes", |s| s["role"] == "writer");
        assert!(revision(&status) > seen, "revisions go on");
        seen = revision(&status);
        let now = numbers(&site);
        for (number, claim) in &given {
            assert_eq!(now.get(number), Some(claim), "a number stands for the same");
        }
        let claims: std::collections::BTreeSet<_> = now.values().collect();
        assert_eq!(claims.len(), now.len(), "a claim has one number");
        given = now;
        hubs[writer] = Some(site.start(writer));
        // The new follower has exactly what the writer has.
        let follower = hubs[writer].as_ref().unwrap();
        until("both are at the same version", || {
            let [Some(one), Some(other)] = &hubs else {
                return None;
            };
            (one.status()["version"] == other.status()["version"]).then_some(())
        });
        assert_eq!(
            records_of(&follower.status(), 1),
            u64::try_from(expected).unwrap()
        );
        let had = records(&agent.replica, 1);
        let mut other = Agent::new();
        other.connect(&site, writer).await;
        other
            .until("the same from the other", |replica| {
                records(replica, 1) == had
            })
            .await;
    }
    assert_eq!(given.len(), 42);
}

#[tokio::test]
async fn a_newer_state_than_there_is_that_a_follower_hears_of_moves_the_writer() {
    let site = Site::new("east", 1);
    let node =
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.1.1.0/24]}\n";
    site.manifest("nodes.yaml", node);
    let (writer, follower) = (site.start(0), site.start(1));
    writer.until("it writes", |status| status["role"] == "writer");
    follower.until("both know all", |status| records_of(status, 1) == 2);
    // The only agent has what was lost, as after a backup was restored; and it is not at the replica that writes.
    let mut agent = Agent::new();
    let origin = ClusterId::new(1).unwrap();
    agent
        .replica
        .load(origin, Version::new(1, 900), true, Vec::new());
    agent.connect(&site, 1).await;
    agent
        .until("another incarnation is here", |replica| {
            let store = replica.store(origin).unwrap();
            store.version().incarnation == Incarnation(2) && store.len() == 2
        })
        .await;
    assert!(site.path("state/ahead/hub-2-6083").exists());
    // What is in the journal, the follower may have read first.
    for hub in [&writer, &follower] {
        let bumped = |version: &str| version.starts_with("2.");
        hub.until("it goes on there", |status| {
            status["version"].as_str().is_some_and(bumped)
        });
    }
}

#[test]
fn a_damaged_journal_is_put_aside_and_another_incarnation_begins() {
    let site = Site::new("east", 1);
    site.nodes();
    let hub = site.start(0);
    for n in 0..4 {
        site.pod(&format!("p{n}"), "web", 20 + n);
        hub.until("it is known", |status| {
            records_of(status, 1) == 4 + 2 * (u64::from(n) + 1)
        });
    }
    let before = hub.status();
    hub.kill();
    let journal = site.path("state/journal");
    let mut bytes = fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let hub = site.start(0);
    let status = hub.until("it writes", |s| {
        s["role"] == "writer" && records_of(s, 1) == 12
    });
    assert!(
        status["version"].as_str().unwrap().starts_with("2."),
        "{status}"
    );
    assert!(before["version"].as_str().unwrap().starts_with("1."));
    assert!(site.path("state/journal.damaged").exists());
}
