//! Clusters with a CA each, their hubs and nodes.

use bytes::Bytes;
use hawser_mesh::ca::{Ca, Issued, LEAF_LIFE, init};
use hawser_mesh::io::quic::{Connection, Listener, Stream, Tls, connect};
use hawser_mesh::trust::{Credentials, Expected, PeerId, Trust};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::net::SocketAddr;
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

/// What a certificate says, and a key of its own.
pub(crate) struct Forged {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Cluster {
    /// A certificate as this cluster's node `worker` has it, but for what `change` does, signed by this cluster's CA.
    pub(crate) fn forge(&self, change: impl FnOnce(&mut CertificateParams)) -> Forged {
        let key = KeyPair::from_pem(&self.root.key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&self.root.certificate, key).unwrap();
        let mut params = CertificateParams::default();
        let now = SystemTime::now();
        params.not_before = (now - HOUR).into();
        params.not_after = (now + HOUR).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![uri(&PeerId::node(self.name, "worker").uri(CLUSTERSET))];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Forged {
            certificate: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

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
    let accepted = tokio::time::timeout(LONG, listener.accept_peer()).await;
    accepted
        .expect("nobody came")
        .expect("the listener has ended")
}

/// Ends a test that hangs.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(LONG, future).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

/// Waits until `done` says so.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let poll = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, poll).await;
}

/// A node that does all right is served: nothing that happened before did harm.
pub(crate) async fn assert_unharmed(
    cluster: &Cluster,
    listener: &mut Listener,
    address: SocketAddr,
) {
    let (mut node, hub) = pair(cluster, listener, address).await;
    for stream in Stream::ALL {
        hub.tx
            .try_send(stream, Bytes::from_static(b"well"))
            .unwrap();
        let came = soon("a message", node.rx.recv()).await;
        assert_eq!(came, Some((stream, Bytes::from_static(b"well"))));
    }
}
