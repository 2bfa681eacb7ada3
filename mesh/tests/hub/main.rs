//! Hubs as processes, over QUIC on loopback: what one cluster writes, the others and their agents have.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it stands and says why"
)]

mod agent;
mod attacker;
mod config;
mod enrolment;
mod joining;
#[path = "../mangle/mod.rs"]
mod mangle;
mod site;
mod source;
mod takeover;

use agent::{Agent, count, decoded};
use hawser_mesh::kept::Kept;
use hawser_mesh::record::{Kind, LaneRecord, Record, Scope};
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::ClusterId;
use site::Site;

fn records_of(status: &serde_json::Value, cluster: u8) -> u64 {
    let origins = status["origins"].as_array().into_iter().flatten();
    let mut of_cluster = origins.filter(|origin| origin["cluster"] == cluster);
    of_cluster
        .next()
        .map_or(0, |origin| origin["records"].as_u64().unwrap())
}

#[tokio::test]
async fn two_clusters_see_each_others_nodes_identities_services_and_endpoints() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    for (site, other) in [(&east, &west), (&west, &east)] {
        site.nodes();
        site.pod("web-1", "web", 11);
        site.service("web-1", 11);
        site.knows(other);
    }
    let (_east_hub, west_hub) = (east.start(0), west.start(0));
    let (mut of_east, mut of_west) = (Agent::new(), Agent::new());
    of_east.connect(&east, 0).await;
    of_west.connect(&west, 0).await;
    for (agent, own, other) in [(&mut of_east, 1, 2), (&mut of_west, 2, 1)] {
        let knows = |replica: &hawser_mesh::replica::Replica| {
            // Of the endpoint there are two: as a backend, and as a bearer of its identity.
            let of = |kind| count(replica, other, kind);
            (
                of(Kind::Node),
                of(Kind::Identity),
                of(Kind::Service),
                of(Kind::Endpoint),
            ) == (2, 1, 1, 2)
                && count(replica, own, Kind::Cluster) == 2
        };
        agent.until("both clusters are known", knows).await;
        let backend = decoded(&agent.replica, other)
            .into_iter()
            .find_map(|record| {
                let Record::Endpoint(endpoint) = record else {
                    return None;
                };
                matches!(endpoint.scope, Scope::Service { .. }).then_some(endpoint)
            });
        let address = backend.unwrap().addresses[0].to_string();
        assert_eq!(address, format!("10.{other}.1.11"));
        assert_eq!(count(&agent.replica, own, Kind::Pod), 1);
        assert_eq!(count(&agent.replica, other, Kind::Pod), 0, "private");
    }
    // A pod is a file; the far agent has it, and so has the far hub's disk.
    east.pod("db-1", "db", 12);
    of_west
        .until("the new pod is known", |replica| {
            count(replica, 1, Kind::Endpoint) == 3
        })
        .await;
    let version = west_hub.origin(1).unwrap()["version"].clone();
    west_hub.stop();
    let file = west.path(&format!("state/kept-hub-1-{}.redb", west.ports[0]));
    let (_, loaded) = Kept::open(&file).unwrap();
    let kept = &loaded.origins[&ClusterId::new(1).unwrap()];
    assert_eq!(kept.version.to_string(), version.as_str().unwrap());
    let endpoints = kept
        .records
        .iter()
        .filter(|(_, key, _)| key.kind() == Some(Kind::Endpoint));
    assert_eq!((kept.complete, endpoints.count()), (true, 3));
    // And when it is gone, it is gone there too.
    drop(loaded);
    let _west_hub = west.start(0);
    of_west.connect(&west, 0).await;
    east.remove("pod-db-1.yaml");
    of_west
        .until("the pod is gone", |replica| {
            count(replica, 1, Kind::Endpoint) == 2
        })
        .await;
}

#[tokio::test]
async fn a_hub_serves_what_it_knew_of_others_while_they_are_away() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    east.nodes();
    west.nodes();
    east.knows(&west);
    west.knows(&east);
    let (east_hub, west_hub) = (east.start(0), west.start(0));
    west_hub.until("east is known", |status| records_of(status, 1) == 2);
    east_hub.kill();
    west_hub.stop();
    let _west_hub = west.start(0);
    let mut agent = Agent::new();
    agent.connect(&west, 0).await;
    agent
        .until("east is served", |replica| {
            count(replica, 1, Kind::Node) == 2
        })
        .await;
}

#[tokio::test]
async fn lanes_that_an_agent_tells_any_replica_reach_the_other_cluster() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    east.nodes();
    west.nodes();
    east.knows(&west);
    west.knows(&east);
    let (writer, follower) = (east.start(0), east.start(1));
    writer.until("it writes", |status| status["role"] == "writer");
    assert_eq!(follower.status()["role"], "follower");
    let _west_hub = west.start(0);
    let mut far = Agent::new();
    far.connect(&west, 0).await;
    let lane = |byte: u8| LaneRecord {
        public_key: PublicKey::new([byte; 32]),
        peer_endpoint: Some(format!("192.0.2.{byte}:51820").parse().unwrap()),
        key_port: None,
    };
    for (hub, byte) in [(1, 7), (0, 8), (1, 7)] {
        let mut agent = Agent::new();
        agent.connect(&east, hub).await;
        agent.announce(vec![lane(byte)]);
        let told = |replica: &hawser_mesh::replica::Replica, cluster| {
            decoded(replica, cluster)
                .into_iter()
                .any(|record| {
                    matches!(record, Record::Node(node) if node.name == "n1" && node.lanes == [lane(byte)])
                })
        };
        agent
            .until("its own node has the lane", |replica| told(replica, 1))
            .await;
        far.until("the far side has the lane", |replica| told(replica, 1))
            .await;
    }
}

#[tokio::test]
async fn a_node_that_comes_again_before_its_old_sessions_are_known_dead_is_served() {
    let site = Site::new("east", 1);
    site.nodes();
    let hub = site.start(0);
    // Nobody reads or closes the earlier ones, as if their processes hung.
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut agent = Agent::new();
        agent.connect(&site, 0).await;
        agent
            .until("it is served", |replica| count(replica, 1, Kind::Node) == 2)
            .await;
        silent.push(agent);
        let sessions = hub.status()["sessions"].as_array().unwrap().len();
        assert!(sessions <= 3, "the oldest went: {sessions}");
    }
    // And the last one stays.
    site.pod("web-1", "web", 11);
    let mut last = silent.pop().unwrap();
    last.until("the new pod is known", |replica| {
        count(replica, 1, Kind::Endpoint) == 1
    })
    .await;
}

#[tokio::test]
async fn what_another_cluster_says_outside_its_grant_is_refused_by_name() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    east.nodes();
    east.pod("web-1", "web", 11);
    west.nodes();
    east.knows(&west);
    west.knows(&east);
    let peer = west.path("manifests/peer-east.yaml");
    let granted = std::fs::read_to_string(peer).unwrap();
    west.manifest(
        "peer-east.yaml",
        &granted.replace("10.1.0.0/16", "10.1.2.0/24"),
    );
    let (east_hub, west_hub) = (east.start(0), west.start(0));
    // One node and the identity are inside.
    let status = west_hub.until("east is known", |status| records_of(status, 1) == 2);
    assert_eq!(status["refusals"]["prefix_outside_grant"], 1);
    assert_eq!(status["refusals"]["address_outside_grant"], 1);
    site::until("the source is told", || {
        east_hub
            .log()
            .contains("prefix_outside_grant")
            .then_some(())
    });
    let status = east_hub.until("both are shown", |status| {
        status["refusedByOthers"]
            .as_array()
            .is_some_and(|shown| shown.len() == 2)
    });
    let shown = status["refusedByOthers"].as_array().unwrap().iter();
    let shown: std::collections::BTreeSet<_> = shown
        .map(|one| (one["by"].as_str().unwrap(), one["reason"].as_str().unwrap()))
        .collect();
    let expected = [
        ("west", "address_outside_grant"),
        ("west", "prefix_outside_grant"),
    ];
    assert_eq!(shown, expected.into());
    assert_eq!(status["refusalsByOthers"]["prefix_outside_grant"], 1);
    // A wider grant lets them in.
    west.manifest("peer-east.yaml", &granted);
    west_hub.until("all is taken", |status| records_of(status, 1) == 4);
}
