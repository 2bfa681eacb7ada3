//! Both families.

use crate::members::{Cluster, accept, soon, trust};
use hawser_mesh::io::quic::{Listener, Tls, connect};
use hawser_mesh::trust::Expected;
use std::net::SocketAddr;

#[tokio::test]
async fn a_listener_of_all_addresses_takes_both_families() {
    let east = Cluster::new("east");
    let at_hub = Tls::new(east.hub("hub-1"), trust(&[&east]));
    let mut listener = Listener::bind("[::]:0".parse().unwrap(), at_hub).unwrap();
    let port = listener.local_address().unwrap().port();
    let node = Tls::new(east.node("worker"), trust(&[&east]));
    for address in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let expected = Expected::HubOf("east".to_owned());
        let dialled = soon("a connection", connect(address, &node, expected));
        let (connection, _hub) = tokio::join!(dialled, accept(&mut listener));
        assert_eq!(connection.unwrap().address, address);
    }
}
