//! Connections that are begun and never finished.

use crate::initial::datagram;
use crate::members::{Cluster, assert_unharmed, listen, loopback, pair, soon, until};
use crate::raw::Client;
use bytes::Bytes;
use hawser_mesh::io::quic::Stream;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::quic::{ClientConnection, Version};
use std::net::UdpSocket;
use std::sync::Arc;

const CLIENTS: u64 = 2000;

#[tokio::test]
async fn two_thousand_half_open_connections_disturb_nobody() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let (mut node, hub) = pair(&east, &mut listener, address).await;
    // A small hello fits into one datagram.
    let client = Client {
        groups: vec![kx_group::X25519],
        ..Client::of(&east)
    };
    let tls = Arc::new(client.tls());
    let socket = UdpSocket::bind(loopback()).unwrap();
    for number in 0..CLIENTS {
        let name = "hub".try_into().unwrap();
        // Transport parameters: initial_source_connection_id alone.
        let connection = number.to_be_bytes();
        let parameters = [&[0x0f, 8][..], &connection].concat();
        let mut hello = Vec::new();
        let mut client =
            ClientConnection::new(Arc::clone(&tls), Version::V1, name, parameters).unwrap();
        assert!(client.write_hs(&mut hello).is_none());
        socket
            .send_to(&datagram(&hello, connection), address)
            .unwrap();
        if number % 100 == 0 {
            let message = Bytes::copy_from_slice(&connection);
            hub.tx.try_send(Stream::Changes, message.clone()).unwrap();
            let came = soon("a message in the flood", node.rx.recv()).await;
            assert_eq!(came, Some((Stream::Changes, message)));
        }
    }
    assert_unharmed(&east, &mut listener, address).await;
    let timed_out = || {
        let refusals = listener.refusals();
        refusals.get("timed_out").copied().unwrap_or(0)
    };
    // Seen: the flood was one. And bounded: who did not show its address got no more than a retry.
    until("the first to time out", || timed_out() >= 64).await;
    assert!(timed_out() <= 2 * 64, "{}", timed_out());
    assert_eq!(hub.rx.ended(), None);
}
