//! Messages between peers that trust each other.

use crate::members::{Cluster, listen, pair, soon};
use bytes::Bytes;
use hawser_mesh::io::quic::{Ended, Stream};
use hawser_mesh::trust::PeerId;
use hawser_mesh::wire::MAX_MESSAGE;

#[tokio::test]
async fn a_node_and_its_hub_know_each_other_and_talk_on_both_streams() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let (mut node, mut hub) = pair(&east, &mut listener, address).await;
    assert_eq!(node.peer, PeerId::hub("east", "hub-1"));
    assert_eq!(hub.peer, PeerId::node("east", "worker"));

    let big = Bytes::from(vec![7; MAX_MESSAGE]);
    for (from, to) in [(&node.tx, &mut hub.rx), (&hub.tx, &mut node.rx)] {
        for stream in Stream::ALL {
            for message in [Bytes::new(), Bytes::from_static(b"small"), big.clone()] {
                from.writable(stream).await;
                from.try_send(stream, message.clone()).unwrap();
                let came = soon("a message", to.recv()).await;
                assert!(came == Some((stream, message)), "on {stream:?}");
            }
        }
    }
    hub.tx.close("gone_for_lunch");
    assert_eq!(soon("the end", node.rx.recv()).await, None);
    assert_eq!(
        node.rx.ended(),
        Some(Ended::ByPeer("gone_for_lunch".into()))
    );
    assert_eq!(hub.rx.ended(), Some(Ended::ByUs("gone_for_lunch".into())));
}
