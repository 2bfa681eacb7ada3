//! Two agents derive the same keys from a session, by the group that both know, and only with the node that was meant.

use crate::groups::Curious;
use crate::members::{Cluster, loopback, trust};
use hawser_mesh::io::quic::{Arrival, HandshakeError, KEY_ALPN, KeySession, Listener, Tls};
use hawser_mesh::psk::{Answer, Group, Keys, Refusal, Request, Side, Terms};
use hawser_mesh::trust::{Expected, PeerId, Untrusted};
use hawser_tunnel::key::PublicKey;
use rustls::NamedGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use std::net::SocketAddr;
use std::sync::Arc;

fn terms() -> Terms {
    Terms {
        epoch: 8,
        client: vec![PublicKey::new([1; 32]), PublicKey::new([2; 32])],
        server: vec![PublicKey::new([3; 32])],
    }
}

fn west_1() -> Expected {
    Expected::Node {
        cluster: "west".to_owned(),
        name: "west-1".to_owned(),
    }
}

/// The agent of west-1, and those of two clusters that it may hear.
fn west(clusters: [&Cluster; 2]) -> (Listener, SocketAddr) {
    let tls = Tls::new(clusters[1].node("west-1"), trust(&clusters));
    let listener = Listener::bind_for_keys(loopback(), tls).unwrap();
    let address = listener.local_address().unwrap();
    (listener, address)
}

/// Answers one request as an agent does. Returns who asked, by which group, and the keys.
async fn answer(listener: &mut Listener) -> (PeerId, Group, Keys) {
    let Some(Arrival::Guest(guest)) = listener.accept().await else {
        panic!("one that asks");
    };
    let request = Request::decode(guest.request()).unwrap();
    let terms = &request.terms;
    assert!(
        terms
            .confirms(&guest, Side::Client, &request.confirmation)
            .unwrap()
    );
    let keys = terms.keys(&guest).unwrap();
    let (peer, group) = (guest.peer.clone().unwrap(), guest.group.unwrap());
    let confirmation = terms.confirmation(&guest, Side::Server).unwrap();
    guest
        .answer(Answer::Accepted { confirmation }.encode())
        .await;
    (peer, group, keys)
}

async fn ask(session: &KeySession) -> Keys {
    let confirmation = terms().confirmation(session, Side::Client).unwrap();
    let terms = terms();
    let request = Request {
        terms: terms.clone(),
        confirmation,
    };
    let answer = session.ask(request.encode()).await.unwrap();
    let Answer::Accepted { confirmation } = Answer::decode(&answer).unwrap() else {
        panic!("refused");
    };
    assert!(
        terms
            .confirms(session, Side::Server, &confirmation)
            .unwrap()
    );
    terms.keys(session).unwrap()
}

#[tokio::test]
async fn both_ends_derive_the_same_keys_and_know_by_which_group() {
    let (east, west_) = (Cluster::new("east"), Cluster::new("west"));
    let (mut listener, address) = west([&east, &west_]);
    let tls = Tls::new(east.node("east-1"), trust(&[&east, &west_]));
    let mut before = None;
    for group in [Group::Hybrid, Group::Classical] {
        let calls = async {
            let session = KeySession::open(address, &tls, west_1(), group)
                .await
                .unwrap();
            ask(&session).await
        };
        let (keys, (peer, seen, theirs)) = tokio::join!(calls, answer(&mut listener));
        assert_eq!((&keys, seen), (&theirs, group));
        assert_eq!(peer, PeerId::node("east", "east-1"));
        assert_ne!(before.as_ref(), Some(&keys), "another session, other keys");
        before = Some(keys);
    }
}

#[tokio::test]
async fn one_group_is_offered_and_a_server_without_it_gets_no_session() {
    let (east, west_) = (Cluster::new("east"), Cluster::new("west"));
    let tls = Tls::new(east.node("east-1"), trust(&[&east, &west_]));
    let node = west_.forge(|params| {
        let name = PeerId::node("west", "west-1").uri(crate::members::CLUSTERSET);
        params.subject_alt_names = vec![crate::members::uri(&name)];
    });
    let (server, curious) = Curious::serve(&node, kx_group::X25519, KEY_ALPN);
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    connection.closed().await;
                }
            });
        }
    });
    let open = |group| KeySession::open(address, &tls, west_1(), group);
    let refused = open(Group::Hybrid).await.map(drop);
    assert_eq!(refused, Err(HandshakeError::NoneInCommon));
    assert_eq!(curious.offered(), [NamedGroup::X25519MLKEM768]);
    assert!(open(Group::Classical).await.is_ok());
    assert_eq!(curious.offered(), [NamedGroup::X25519]);
}

#[tokio::test]
async fn a_refusal_is_told_and_counted_by_its_name() {
    let (east, west_) = (Cluster::new("east"), Cluster::new("west"));
    let (mut listener, address) = west([&east, &west_]);
    let tls = Tls::new(east.node("east-1"), trust(&[&east, &west_]));
    let refuses = async {
        let Some(Arrival::Guest(guest)) = listener.accept().await else {
            panic!("one that asks");
        };
        let name = Refusal::EpochOld.name();
        let answer = Answer::Refused {
            name: name.to_owned(),
            epoch: 9,
        };
        guest.note_refusal(name, "old");
        guest.answer(answer.encode()).await;
    };
    let calls = async {
        let session = KeySession::open(address, &tls, west_1(), Group::Hybrid).await;
        let answer = session.unwrap().ask(b"anything".as_slice().into()).await;
        Answer::decode(&answer.unwrap()).unwrap()
    };
    let (answer, ()) = tokio::join!(calls, refuses);
    let name = "key_epoch_old".to_owned();
    assert_eq!(answer, Answer::Refused { name, epoch: 9 });
    assert_eq!(listener.refusals()["key_epoch_old"], 1);
}

#[tokio::test]
async fn another_node_a_hub_and_a_stranger_get_no_session() {
    let (east, west_) = (Cluster::new("east"), Cluster::new("west"));
    let (listener, address) = west([&east, &west_]);
    let open = |tls: Arc<Tls>, expected| async move {
        let session = KeySession::open(address, &tls, expected, Group::Hybrid).await;
        match session {
            Ok(session) => session.ask(b"anything".as_slice().into()).await.map(drop),
            Err(error) => Err(error),
        }
    };
    let all = [&east, &west_];
    let other = Expected::Node {
        cluster: "west".to_owned(),
        name: "west-2".to_owned(),
    };
    let refused = open(Tls::new(east.node("east-1"), trust(&all)), other).await;
    let found = Untrusted::NodeOther("west-1".to_owned());
    assert_eq!(refused, Err(HandshakeError::Untrusted(found)));
    let elsewhere = Expected::Node {
        cluster: "east".to_owned(),
        name: "west-1".to_owned(),
    };
    let refused = open(Tls::new(east.node("east-1"), trust(&all)), elsewhere).await;
    let found = Untrusted::ClusterOther("west".to_owned());
    assert_eq!(refused, Err(HandshakeError::Untrusted(found)));
    let unknown = open(Tls::new(east.node("east-1"), trust(&[&east])), west_1()).await;
    let found = Untrusted::ClusterUnknown("west".to_owned());
    assert_eq!(unknown, Err(HandshakeError::Untrusted(found)));
    // The other end refuses as well.
    assert!(
        open(Tls::new(east.hub("hub-1"), trust(&all)), west_1())
            .await
            .is_err()
    );
    let north = Cluster::new("north");
    let stranger = Tls::new(north.node("north-1"), trust(&[&north, &west_]));
    assert!(open(stranger, west_1()).await.is_err());
    crate::members::until("both refusals", || {
        let refusals = listener.refusals();
        let names = ["role_other", "cluster_unknown"];
        names.iter().all(|name| refusals.get(name) == Some(&1))
    })
    .await;
}
