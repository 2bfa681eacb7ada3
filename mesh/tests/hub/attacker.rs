//! A member's hub that keeps to the protocol and lies in all that it says, over the wire (T10 to T12).

use crate::agent::{Agent, count};
use crate::site::{Site, until};
use bytes::Bytes;
use hawser_mesh::ca::LEAF_LIFE;
use hawser_mesh::io::quic::{Connection, Listener, Tls};
use hawser_mesh::record::{
    Condition, Endpoint, Key, Kind, LaneRecord, Node, Record, Revision, Scope, Version,
};
use hawser_mesh::replica::{AdmitAll, Audience, Limits, Replica, SessionId};
use hawser_mesh::trust::Credentials;
use hawser_mesh::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// Of each kind of lie.
const LIES: u32 = 12_500;
/// What it may say, among them.
const HONEST: u32 = 1_000;
/// What the hub may keep of it: the keys, to know them again.
const KEPT: u64 = 64 << 20;

fn node(index: u32, prefix: &str, endpoint: &str) -> Record {
    let index = u16::try_from(index).unwrap();
    let key = [[7, 7], index.to_be_bytes()].concat().repeat(8);
    Record::Node(Node {
        index: NodeIndex::new(index).unwrap(),
        name: format!("liar-{index}"),
        prefixes: vec![prefix.parse().unwrap()],
        lanes: vec![LaneRecord {
            public_key: PublicKey::new(key.try_into().unwrap()),
            peer_endpoint: Some(endpoint.parse().unwrap()),
            key_port: None,
        }],
    })
}

fn endpoint(name: &str, namespace: &str, address: IpAddr, identity: u32) -> Record {
    Record::Endpoint(Endpoint {
        scope: Scope::Service {
            namespace: namespace.to_owned(),
            name: "web".to_owned(),
        },
        name: name.to_owned(),
        addresses: vec![address],
        identity: Identity::new(identity).unwrap(),
        node: None,
        condition: Condition::READY,
        hostname: String::new(),
        zone: String::new(),
        ports: Vec::new(),
    })
}

/// One lie of each kind, with the reason for which it must be refused.
fn lies(number: u32) -> Vec<(Key, Bytes, &'static str)> {
    let [_, _, high, low] = number.to_be_bytes();
    let at = |cluster: u8| IpAddr::from([10, cluster, high, low]);
    let name = |kind: &str| format!("{kind}-{number}");
    let records = [
        // A pod of ours, and no pod's, and where it is reached: by our own pods.
        (
            node(number, &format!("10.1.{high}.{low}/32"), "192.0.2.9:51820"),
            "prefix_outside_grant",
        ),
        (
            node(LIES + number, "169.254.169.254/32", "192.0.2.9:51820"),
            "prefix_martian",
        ),
        (
            node(2 * LIES + number, "10.2.1.0/24", "10.1.1.1:51820"),
            "lane_endpoint_in_mesh",
        ),
        (
            endpoint(&name("ours"), "shop", at(1), 300),
            "address_outside_grant",
        ),
        (
            endpoint(&name("self"), "shop", [127, 0, high, low].into(), 300),
            "address_martian",
        ),
        (
            endpoint(&name("dns"), "kube-system", at(2), 300),
            "namespace_protected",
        ),
        (
            endpoint(&name("world"), "shop", at(2), 3),
            "identity_reserved",
        ),
    ];
    let records = records.into_iter();
    let mut lies: Vec<_> = records
        .map(|(record, reason)| (record.key(), encode_record(&record), reason))
        .collect();
    let key = Key::service("shop", &name("noise"));
    lies.push((key, Bytes::from_static(&[0xff; 9]), "record_malformed"));
    lies
}

/// Speaks with whoever comes, as a hub does.
async fn speak(mut listener: Listener, mut liar: Replica) {
    for session in 1.. {
        let Some(connection) = listener.accept_peer().await else {
            return;
        };
        let cluster = ClusterId::new(1).unwrap();
        liar.publish(session, Audience::OtherHub { cluster });
        converse(connection, session, &mut liar).await;
        liar.close(session);
    }
}

async fn converse(mut connection: Connection, session: SessionId, liar: &mut Replica) {
    loop {
        while let Some(transmit) = liar.poll_transmit(Instant::now()) {
            connection.tx.writable(transmit.stream).await;
            if connection
                .tx
                .try_send(transmit.stream, transmit.bytes)
                .is_err()
            {
                return;
            }
        }
        while liar.poll_event().is_some() {}
        let received = tokio::time::timeout(Duration::from_millis(50), connection.rx.recv());
        match received.await {
            Err(_) => liar.handle_timeout(Instant::now()),
            Ok(None) => return,
            Ok(Some((stream, bytes))) => {
                let handled = liar.handle_message(session, stream, bytes, Instant::now());
                handled.expect("an honest hub says what it should");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_thousand_hostile_announcements_over_the_wire_none_is_taken() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    east.nodes();
    east.knows(&west);
    let hub = east.start(0);
    let before = hub.resident();

    let mut liar = Replica::new(Limits::default(), Box::new(AdmitAll));
    liar.own(ClusterId::new(2).unwrap(), Version::new(1, 0));
    let mut expected: BTreeMap<&str, u32> = BTreeMap::new();
    let mut revision = 0;
    let mut write = |changes: Vec<(Key, Option<Bytes>)>| {
        revision += 1;
        assert!(liar.write(Revision(revision), changes));
    };
    for number in 1..=LIES {
        let mut changes = Vec::new();
        for (key, value, reason) in lies(number) {
            *expected.entry(reason).or_default() += 1;
            changes.push((key, Some(value)));
        }
        if number <= HONEST {
            let [_, _, high, low] = number.to_be_bytes();
            let honest = endpoint(
                &format!("good-{number}"),
                "shop",
                [10, 2, high, low].into(),
                300,
            );
            changes.push((honest.key(), Some(encode_record(&honest))));
        }
        write(changes);
    }
    assert_eq!(expected.values().sum::<u32>(), 100_000);

    let issued = west.ca.hub("hub-1", LEAF_LIFE, SystemTime::now()).unwrap();
    let credentials = Credentials::from_pem(&issued.certificate, &issued.key).unwrap();
    let mut trust = west.trust();
    trust.set(east.name, &east.root.certificate).unwrap();
    let listener = Listener::bind(west.address(0), Tls::new(credentials, trust)).unwrap();
    let liar = tokio::spawn(speak(listener, liar));

    let wanted = json!(expected);
    let refusals = |status: &Value| status["refusals"] == wanted;
    let status = hub.until("each lie is counted under its reason", refusals);
    let origin = hub.origin(2).unwrap();
    assert_eq!(origin["records"], HONEST, "{origin}");
    assert_eq!(origin["refused"], 100_000, "{origin}");
    assert_eq!(status["rejects"], json!({}), "it keeps to the protocol");
    let grown = hub.resident().saturating_sub(before);
    assert!(grown <= KEPT, "{grown} bytes");

    // What is not its own to say is not passed on, and what is its own is.
    let mut agent = Agent::new();
    agent.connect(&east, 0).await;
    agent
        .until("what is honest", |replica| {
            count(replica, 2, Kind::Endpoint) == usize::try_from(HONEST).unwrap()
        })
        .await;
    for kind in [Kind::Node, Kind::Service, Kind::Identity] {
        assert_eq!(count(&agent.replica, 2, kind), 0);
    }
    // Its end changes nothing of that.
    liar.abort();
    until("the liar is gone", || liar.is_finished().then_some(()));
    assert_eq!(hub.origin(2).unwrap()["records"], HONEST);
}
