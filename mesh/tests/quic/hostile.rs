//! Peers with a good certificate and bad manners.

use crate::members::{Cluster, accept, assert_unharmed, listen, pair, soon, until};
use crate::raw::{Client, opened};
use bytes::Bytes;
use hawser_mesh::frame::{Stream, encode};
use hawser_mesh::io::quic::{Connection, Unsent};
use hawser_mesh::wire::MAX_MESSAGE;
use std::time::Duration;

type Pair = (quinn::SendStream, quinn::RecvStream);

/// What a peer with bad manners has.
struct Hostile {
    connection: quinn::Connection,
    changes: Pair,
    bulk: Pair,
}

/// A client that did all right so far, and the hub's end.
async fn hostile(
    east: &Cluster,
    listener: &mut hawser_mesh::io::quic::Listener,
    address: std::net::SocketAddr,
) -> (Hostile, Connection) {
    let connection = Client::of(east).dial(address).await.unwrap();
    let changes = opened(&connection, Stream::Changes).await;
    let bulk = opened(&connection, Stream::Bulk).await;
    let hub = accept(listener).await;
    let hostile = Hostile {
        connection,
        changes,
        bulk,
    };
    (hostile, hub)
}

/// These bytes on a stream, and perhaps its end, make the hub close the connection under this name; others are served.
async fn assert_closed(name: &str, stream: Stream, bytes: &[u8], end: bool) {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let (mut bad, mut hub) = hostile(&east, &mut listener, address).await;
    let (send, _) = match stream {
        Stream::Changes => &mut bad.changes,
        Stream::Bulk => &mut bad.bulk,
    };
    send.write_all(bytes).await.unwrap();
    if end {
        send.finish().unwrap();
    }
    assert_eq!(soon("the end", hub.rx.recv()).await, None);
    assert_eq!(hub.rx.ended().unwrap().name(), name);
    let told = soon("the close", bad.connection.closed()).await.to_string();
    assert!(told.contains(name), "{told}");
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_connection_before_it_came() {
    let header = u32::try_from(MAX_MESSAGE + 2).unwrap().to_be_bytes();
    assert_closed("frame_too_long", Stream::Changes, &header, false).await;
    assert_closed("frame_too_long", Stream::Bulk, &[0xff; 4], false).await;
}

#[tokio::test]
async fn what_would_grow_beyond_a_message_is_not_unpacked() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    let mut frame = u32::try_from(1 + bomb.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    frame.push(1);
    frame.extend(bomb);
    assert_closed("frame_too_long", Stream::Bulk, &frame, false).await;
    let garbage = [0, 0, 0, 4, 1, 9, 9, 9];
    assert_closed("frame_compression", Stream::Bulk, &garbage, false).await;
}

#[tokio::test]
async fn half_a_frame_and_a_stream_that_ends_end_the_connection() {
    let whole = encode(Stream::Changes, b"a message").unwrap();
    let half = &whole[..whole.len() - 1];
    assert_closed("frame_truncated", Stream::Changes, half, true).await;
    assert_closed("stream_ended", Stream::Bulk, b"", true).await;
    assert_closed("frame_empty", Stream::Changes, &[0; 4], false).await;
    let unknown = [0, 0, 0, 2, 9, 0];
    assert_closed("frame_form", Stream::Changes, &unknown, false).await;
}

#[tokio::test]
async fn one_byte_at_a_time_is_slow_and_right() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let (mut bad, mut hub) = hostile(&east, &mut listener, address).await;
    let message = Bytes::from(vec![5; 2000]);
    let frame = encode(Stream::Changes, &message).unwrap();
    let writing = async {
        for byte in &frame {
            bad.changes.0.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ((), came) = tokio::join!(writing, soon("the message", hub.rx.recv()));
    assert_eq!(came, Some((Stream::Changes, message)));
}

#[tokio::test]
async fn there_is_no_third_stream() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let (mut bad, mut hub) = hostile(&east, &mut listener, address).await;
    // Two were there at once; what the hub would allow, it would have allowed with them.
    let frame = encode(Stream::Changes, b"still here").unwrap();
    bad.changes.0.write_all(&frame).await.unwrap();
    assert!(soon("the message", hub.rx.recv()).await.is_some());
    let more = tokio::select! {
        biased;
        third = bad.connection.open_bi() => third.is_ok(),
        one_way = bad.connection.open_uni() => one_way.is_ok(),
        () = std::future::ready(()) => false,
    };
    assert!(!more);
}

#[tokio::test]
async fn streams_that_begin_otherwise_are_refused() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let refusals = |name: &str| listener.refusals().get(name).copied().unwrap_or(0);

    let connection = Client::of(&east).dial(address).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let other = encode(Stream::Changes, b"other").unwrap();
    send.write_all(&other).await.unwrap();
    let told = soon("the close", connection.closed()).await.to_string();
    assert!(told.contains("frame_opening"), "{told}");
    until("the refusal", || refusals("frame_opening") == 1).await;

    let connection = Client::of(&east).dial(address).await.unwrap();
    let _first = opened(&connection, Stream::Bulk).await;
    let _second = opened(&connection, Stream::Bulk).await;
    let told = soon("the close", connection.closed()).await.to_string();
    assert!(told.contains("stream_twice"), "{told}");
    until("the refusal", || refusals("stream_twice") == 1).await;

    let silent = Client::of(&east).dial(address).await.unwrap();
    until("the refusal", || refusals("handshake_timeout") == 1).await;
    drop(silent);
    assert_unharmed(&east, &mut listener, address).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_costs_a_bounded_queue_and_holds_up_nobody() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let (mut lazy, hub) = pair(&east, &mut listener, address).await;
    let message = |n: u32| Bytes::from([n.to_be_bytes().to_vec(), vec![0; 30_000]].concat());
    let mut sent = 0;
    // As much as the windows of both sides take: when nothing was taken for a while, they are full.
    loop {
        match hub.tx.try_send(Stream::Changes, message(sent)) {
            Ok(()) => sent += 1,
            Err(Unsent::Full) => {
                let room = hub.tx.writable(Stream::Changes);
                let wait = Duration::from_millis(500);
                if tokio::time::timeout(wait, room).await.is_err() {
                    break;
                }
            }
            Err(other) => panic!("{other}"),
        }
        assert!(sent < 60, "1.8 MB are held for a peer that reads nothing");
    }
    // The other stream has room of its own, and so have others.
    hub.tx
        .try_send(Stream::Bulk, Bytes::from_static(b"bulk"))
        .unwrap();
    assert_unharmed(&east, &mut listener, address).await;
    assert_eq!(hub.rx.ended(), None);

    let mut next = 0;
    let mut bulk = false;
    while next < sent || !bulk {
        match soon("what waited", lazy.rx.recv()).await.unwrap() {
            (Stream::Bulk, _) => bulk = true,
            (Stream::Changes, came) => {
                assert!(came == message(next), "message {next}");
                next += 1;
            }
        }
    }
}
