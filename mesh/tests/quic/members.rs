//! Clusters with a CA each, their hubs and nodes.

use hawser_mesh::ca::{Ca, Issued, LEAF_LIFE, init};
use hawser_mesh::io::quic::{Connection, Listener, Tls, connect};
use hawser_mesh::trust::{Credentials, Expected, Trust};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) const CLUSTERSET: &str = "set.example";
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A cluster.
pub(crate) struct Cluster {
    pub(crate) name: &'static str,
    pub(crate) root: Issued,
    pub(crate) ca: Ca,
}

impl Cluster {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::in_clusterset(CLUSTERSET, name)
    }

    pub(crate) fn in_clusterset(clusterset: &str, name: &'static str) -> Self {
        let root = init(clusterset, name, SystemTime::now()).unwrap();
        let ca = Ca::from_pem(&root.certificate, &root.key).unwrap();
        Self { name, root, ca }
    }

    pub(crate) fn hub(&self, name: &str) -> Credentials {
        credentials(&self.ca.hub(name, LEAF_LIFE, SystemTime::now()).unwrap())
    }

    pub(crate) fn node(&self, name: &str) -> Credentials {
        credentials(&self.ca.node(name, LEAF_LIFE, SystemTime::now()).unwrap())
    }
}

pub(crate) fn credentials(issued: &Issued) -> Credentials {
    Credentials::from_pem(&issued.certificate, &issued.key).unwrap()
}

pub(crate) fn trust(clusters: &[&Cluster]) -> Trust {
    let mut trust = Trust::new(CLUSTERSET);
    for cluster in clusters {
        trust.set(cluster.name, &cluster.root.certificate).unwrap();
    }
    trust
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A hub of `cluster` that trusts `trusted`, and where it listens.
pub(crate) fn listen(cluster: &Cluster, trusted: &[&Cluster]) -> (Listener, SocketAddr) {
    let tls = Tls::new(cluster.hub("hub-1"), trust(trusted));
    let listener = Listener::bind(loopback(), tls).unwrap();
    let address = listener.local_address().unwrap();
    (listener, address)
}

/// Both ends of a connection of the node `worker` to its hub.
pub(crate) async fn pair(
    cluster: &Cluster,
    listener: &mut Listener,
    address: SocketAddr,
) -> (Connection, Connection) {
    let tls = Tls::new(cluster.node("worker"), trust(&[cluster]));
    let expected = Expected::HubOf(cluster.name.to_owned());
    let (node, hub) = tokio::join!(connect(address, &tls, expected), accept(listener));
    (node.unwrap(), hub)
}

pub(crate) async fn accept(listener: &mut Listener) -> Connection {
    let accepted = tokio::time::timeout(LONG, listener.accept()).await;
    accepted
        .expect("nobody came")
        .expect("the listener has ended")
}

/// Ends a test that hangs.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(LONG, future).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

pub(crate) fn node_tls(cluster: &Cluster) -> Arc<Tls> {
    Tls::new(cluster.node("worker"), trust(&[cluster]))
}
