//! Guests: who asks one thing over `hawser-enrol/1`, with a token or with a certificate, and what a bad one can do.

use crate::initial::{datagram, hello_of_tls12};
use crate::members::{
    CLUSTERSET, Cluster, LONG, assert_unharmed, credentials, listen, loopback, soon, trust, until,
};
use crate::raw::Client;
use bytes::Bytes;
use hawser_mesh::ca::{Ca, LEAF_LIFE};
use hawser_mesh::enrol::message::{Answer, MAX_MESSAGE, Request};
use hawser_mesh::io::quic::{
    Answered, Arrival, AskCheck, AskError, ENROL_ALPN, Guest, Listener, Tls, ask, connect,
};
use hawser_mesh::token::Pin;
use hawser_mesh::trust::{Expected, PeerId, Pinned};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn pinned(cluster: &Cluster) -> Pinned {
    Pinned {
        pin: Pin::of_ca(&cluster.root.certificate).unwrap(),
        clusterset: CLUSTERSET.to_owned(),
        cluster: cluster.name.to_owned(),
    }
}

async fn guest(listener: &mut Listener) -> Guest {
    match soon("a guest", listener.accept()).await {
        Some(Arrival::Guest(guest)) => guest,
        other => panic!("{other:?} is no guest"),
    }
}

/// A guest asks, and is answered with what it asked.
async fn echoed(
    listener: &mut Listener,
    hubs: &[String],
    check: AskCheck,
) -> (Answered, Option<PeerId>) {
    let asked = Bytes::from_static(b"what");
    let serve = async {
        let guest = guest(listener).await;
        let peer = guest.peer.clone();
        let answer = guest.request().clone();
        guest.answer(answer).await;
        peer
    };
    let (answered, peer) = tokio::join!(ask(hubs, check, asked), serve);
    (answered.unwrap(), peer)
}

/// Nobody answers this guest; why, as it is told.
async fn unanswered(address: SocketAddr, check: AskCheck) -> String {
    let hubs = [address.to_string()];
    let asked = ask(&hubs, check, Bytes::from_static(b"what"));
    let error = soon("an answer", asked).await.unwrap_err();
    assert_eq!(error.name(), "enrol_no_answer");
    error.to_string()
}

#[tokio::test]
async fn a_guest_without_certificate_knows_the_hub_by_its_cas_key() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let check = AskCheck::Pinned(pinned(&east));
    let (answered, peer) = echoed(&mut listener, &[address.to_string()], check).await;
    assert_eq!(answered.peer, PeerId::hub("east", "hub-1"));
    assert_eq!(&*answered.answer, b"what");
    assert_eq!(Pin::of_ca(&answered.ca), Some(pinned(&east).pin));
    assert_eq!(peer, None);
    assert!(listener.refusals().is_empty());
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn a_guest_with_a_certificate_is_known_and_knows_the_hub_by_its_ca() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let tls = Tls::new(east.node("worker"), trust(&[&east]));
    let check = AskCheck::Known(Arc::clone(&tls));
    let (answered, peer) = echoed(&mut listener, &[address.to_string()], check).await;
    assert_eq!(answered.peer, PeerId::hub("east", "hub-1"));
    assert_eq!(peer, Some(PeerId::node("east", "worker")));
    // The same certificate opens a connection as ever.
    let expected = Expected::HubOf("east".to_owned());
    let (node, hub) = tokio::join!(connect(address, &tls, expected), listener.accept_peer());
    assert_eq!(hub.unwrap().peer, PeerId::node("east", "worker"));
    drop(node.unwrap());
}

#[tokio::test]
async fn the_first_hub_that_answers_is_enough() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let nobody = UdpSocket::bind(loopback()).unwrap();
    let (_other, impostor) = listen(&Cluster::new("east"), &[]);
    let hubs = [
        nobody.local_addr().unwrap().to_string(),
        impostor.to_string(),
        "no-such-name.invalid:6082".to_owned(),
        address.to_string(),
    ];
    let check = AskCheck::Pinned(pinned(&east));
    let (answered, _) = echoed(&mut listener, &hubs, check).await;
    assert_eq!(answered.peer, PeerId::hub("east", "hub-1"));
}

#[tokio::test]
async fn a_hub_under_another_key_is_not_told_the_secret() {
    let (east, other) = (Cluster::new("east"), Cluster::new("east"));
    let (mut listener, address) = listen(&other, &[&other]);
    let told = unanswered(address, AskCheck::Pinned(pinned(&east))).await;
    assert!(told.contains("pin_other"), "{told}");
    // The same with a certificate.
    let tls = Tls::new(east.node("worker"), trust(&[&east]));
    let told = unanswered(address, AskCheck::Known(tls)).await;
    assert!(told.contains("issuer_unknown"), "{told}");
    assert_unharmed(&other, &mut listener, address).await;
}

/// It shows the right CA, which it has seen, behind a certificate that another CA has signed.
#[tokio::test]
async fn a_man_in_the_middle_with_the_right_ca_in_hand_is_not_told_the_secret() {
    let (east, other) = (Cluster::new("east"), Cluster::new("east"));
    let mut hub = other.ca.hub("hub-1", LEAF_LIFE, SystemTime::now()).unwrap();
    hub.certificate.push_str(&east.root.certificate);
    let tls = Tls::new(credentials(&hub), trust(&[&east]));
    let listener = Listener::bind(loopback(), tls).unwrap();
    let address = listener.local_address().unwrap();
    let told = unanswered(address, AskCheck::Pinned(pinned(&east))).await;
    assert!(told.contains("issuer_unknown"), "{told}");
}

#[tokio::test]
async fn a_node_or_a_hub_of_another_cluster_is_no_hub_to_enrol_at() {
    let east = Cluster::new("east");
    let node = Tls::new(east.node("worker"), trust(&[&east]));
    let listener = Listener::bind(loopback(), node).unwrap();
    let check = AskCheck::Pinned(pinned(&east));
    let told = unanswered(listener.local_address().unwrap(), check).await;
    assert!(told.contains("role_other"), "{told}");
    let (_listener, address) = listen(&east, &[&east]);
    let mut check = pinned(&east);
    check.cluster = "west".to_owned();
    let told = unanswered(address, AskCheck::Pinned(check)).await;
    assert!(told.contains("cluster_unknown"), "{told}");
    let mut check = pinned(&east);
    check.clusterset = "other.set".to_owned();
    let told = unanswered(address, AskCheck::Pinned(check)).await;
    assert!(told.contains("clusterset_other"), "{told}");
}

#[tokio::test]
async fn a_certificate_that_is_not_taken_is_refused_to_guests_too() {
    let (east, other) = (Cluster::new("east"), Cluster::new("east"));
    let (mut listener, address) = listen(&east, &[&east]);
    let client = Client {
        alpn: ENROL_ALPN.to_vec(),
        ..Client::of(&other)
    };
    let told = client.refused(address).await;
    assert!(told.contains("issuer_unknown"), "{told}");
    until("the refusal", || {
        listener.refusals().get("issuer_unknown") == Some(&1)
    })
    .await;
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn a_refusal_is_counted_and_told() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let hubs = [address.to_string()];
    let check = AskCheck::Pinned(pinned(&east));
    let asked = ask(&hubs, check.clone(), Bytes::from_static(b"what"));
    let refuse = async {
        let guest = guest(&mut listener).await;
        guest
            .refuse("token_unknown", "no such token".to_owned())
            .await;
    };
    let (answered, ()) = tokio::join!(asked, refuse);
    let refused = Answer::decode(&answered.unwrap().answer).unwrap();
    let (name, text) = ("token_unknown".to_owned(), "no such token".to_owned());
    assert_eq!(refused, Answer::Refused { name, text });
    assert_eq!(listener.refusals().get("token_unknown"), Some(&1));
    // Where nobody answers guests, they are told at once.
    let asked = ask(&hubs, check, Bytes::from_static(b"what"));
    let turn_away = tokio::time::timeout(LONG, listener.accept_peer());
    let told = tokio::select! {
        asked = asked => asked.unwrap_err().to_string(),
        peer = turn_away => panic!("{peer:?}"),
    };
    assert!(told.contains("guests_not_served"), "{told}");
    assert_eq!(listener.refusals().get("guests_not_served"), Some(&1));
}

fn stranger(east: &Cluster) -> Client {
    Client {
        certificate: None,
        alpn: ENROL_ALPN.to_vec(),
        ..Client::of(east)
    }
}

#[tokio::test]
async fn a_guest_that_asks_nothing_of_the_protocol_is_refused_by_name() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    for bytes in [&b"GET / HTTP/1.1"[..], b"", b"\xff\xff\xff\xff"] {
        let connection = stranger(&east).dial(address).await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let guest = guest(&mut listener).await;
        assert_eq!((guest.request().as_ref(), &guest.peer), (bytes, &None));
        let error = Request::decode(guest.request()).unwrap_err();
        guest.turn_away(error.name());
        let told = soon("the end", connection.closed()).await.to_string();
        assert!(told.contains(error.name()), "{told}");
        assert!(listener.refusals().contains_key(error.name()));
    }
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn a_request_that_is_too_long_or_cut_off_is_refused() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let connection = stranger(&east).dial(address).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    // The other side reads no more of it.
    let _ = send.write_all(&vec![7; MAX_MESSAGE + 1]).await;
    let told = soon("the end", connection.closed()).await.to_string();
    assert!(told.contains("enrol_too_long"), "{told}");
    assert_eq!(listener.refusals().get("enrol_too_long"), Some(&1));

    let connection = stranger(&east).dial(address).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(b"half of").await.unwrap();
    send.reset(0u32.into()).unwrap();
    let told = soon("the end", connection.closed()).await.to_string();
    assert!(told.contains("stream_ended"), "{told}");
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn what_an_unknown_peer_can_leave_here_is_bounded() {
    let east = Cluster::new("east");
    let (_listener, address) = listen(&east, &[&east]);
    let connection = stranger(&east).dial(address).await.unwrap();
    let (_first, second) = (
        connection.open_bi().await.unwrap(),
        connection.open_bi().await,
    );
    let (mut send, _receive) = second.unwrap();
    let mut taken = 0;
    let flood = async {
        while let Ok(written) = send.write(&[7; 4096]).await {
            taken += written;
        }
    };
    // It ends with the connection, three seconds after it began.
    soon("the end", flood).await;
    assert!(taken <= 96 << 10, "{taken} bytes were taken");
    // A third stream is not there to be had.
    let connection = stranger(&east).dial(address).await.unwrap();
    let streams = async {
        let mut streams = Vec::new();
        while let Ok(stream) = connection.open_bi().await {
            streams.push(stream);
        }
        streams.len()
    };
    assert!(soon("the end", streams).await <= 2);
}

#[tokio::test]
async fn a_guest_that_is_slow_is_let_go_after_three_seconds() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    // One says nothing, one begins to, and one does not take its answer.
    let silent = stranger(&east).dial(address).await.unwrap();
    let slow = stranger(&east).dial(address).await.unwrap();
    let (mut send, _receive) = slow.open_bi().await.unwrap();
    send.write_all(b"half of").await.unwrap();
    let deaf = stranger(&east).dial(address).await.unwrap();
    let (mut send, _unread) = deaf.open_bi().await.unwrap();
    send.write_all(b"what").await.unwrap();
    send.finish().unwrap();
    let guest = guest(&mut listener).await;
    let answer = tokio::spawn(guest.answer(Bytes::from(vec![7; MAX_MESSAGE])));
    assert_unharmed(&east, &mut listener, address).await;
    for connection in [silent, slow] {
        soon("the end", connection.closed()).await;
    }
    soon("the end of the answer", answer).await.unwrap();
    soon("the end", deaf.closed()).await;
    assert_eq!(listener.refusals().get("handshake_timeout"), Some(&2));
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn guests_who_are_too_many_leave_room_for_peers() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let client = stranger(&east);
    let dials = (0..20).map(|_| client.dial(address));
    let guests: Vec<_> = futures::future::join_all(dials).await;
    until("four of them are too many", || {
        listener.refusals().get("guests_too_many") == Some(&4)
    })
    .await;
    assert_unharmed(&east, &mut listener, address).await;
    for guest in guests.into_iter().flatten() {
        guest.close(0u32.into(), b"");
    }
    let mut waited = Duration::ZERO;
    // Their places are free again.
    loop {
        let dialled = client.dial(address).await.unwrap();
        let (mut send, _receive) = dialled.open_bi().await.unwrap();
        if send.write_all(b"what").await.is_ok() && send.finish().is_ok() {
            let came = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
            if let Ok(Some(Arrival::Guest(_))) = came {
                break;
            }
        }
        waited += Duration::from_millis(500);
        assert!(waited < LONG, "no place is free");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_both_protocols_is_no_guest_and_none_of_tls_1_2_is() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let mut client = stranger(&east);
    client.also = vec![hawser_mesh::io::quic::ALPN.to_vec()];
    let told = client.refused(address).await;
    assert!(told.contains("certificate_missing"), "{told}");
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket
        .send_to(&datagram(&hello_of_tls12(), *b"tls-12.."), address)
        .unwrap();
    until("the refusal", || {
        listener.refusals().contains_key("tls_version")
    })
    .await;
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn nobody_is_asked_at_what_is_no_address() {
    let east = Cluster::new("east");
    let check = AskCheck::Pinned(pinned(&east));
    let hubs = ["hub".to_owned()];
    let error = ask(&hubs, check.clone(), Bytes::new()).await.unwrap_err();
    assert!(matches!(&error, AskError::Hub { text } if text == "hub"));
    let error = ask(&[], check, Bytes::new()).await.unwrap_err();
    assert_eq!(error, AskError::Failed(Vec::new()));
}

/// While a CA is replaced, a hub shows both.
#[tokio::test]
async fn a_hub_that_trusts_two_cas_is_known_by_the_one_that_signed_it() {
    let (east, next) = (Cluster::new("east"), Cluster::new("east"));
    let mut both = hawser_mesh::trust::Trust::new(CLUSTERSET);
    let pem = [&*east.root.certificate, &next.root.certificate].concat();
    both.set("east", &pem).unwrap();
    let ca: &Ca = &next.ca;
    let hub = credentials(&ca.hub("hub-1", LEAF_LIFE, SystemTime::now()).unwrap());
    let mut listener = Listener::bind(loopback(), Tls::new(hub, both)).unwrap();
    let hubs = [listener.local_address().unwrap().to_string()];
    let check = AskCheck::Pinned(pinned(&next));
    let (answered, _) = echoed(&mut listener, &hubs, check).await;
    assert_eq!(Pin::of_ca(&answered.ca), Some(pinned(&next).pin));
}
