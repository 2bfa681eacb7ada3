//! Peers that die, come back, get other certificates, or come too often.

use crate::members::{
    CLUSTERSET, Cluster, accept, assert_unharmed, credentials, listen, loopback, pair, soon, trust,
    until,
};
use bytes::Bytes;
use hawser_mesh::ca::LEAF_LIFE;
use hawser_mesh::dial::Target;
use hawser_mesh::io::pem_file;
use hawser_mesh::io::quic::{Dialer, Ended, HandshakeError, Listener, Stream, Tls, connect};
use hawser_mesh::io::resolve::Resolver;
use hawser_mesh::trust::{Expected, PeerId, Trust, Untrusted};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

fn hub_of_east() -> Expected {
    Expected::HubOf("east".to_owned())
}

/// A hub in a process of its own.
struct Hub {
    process: Child,
    address: SocketAddr,
}

impl Hub {
    /// Starts with the files of a folder, on this address.
    fn start(folder: &Path, address: SocketAddr) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lifetime::a_hub_as_a_process", "--nocapture"])
            .env("HUB_FOLDER", folder)
            .env("HUB_ADDRESS", address.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once("listening ")?.1.parse().ok());
        let address = address.expect("the hub says where it listens");
        Self { process, address }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_hub_as_a_process() {
    // The tests below start it; else there is nothing to do.
    let Ok(folder) = std::env::var("HUB_FOLDER") else {
        return;
    };
    let file = |name: &str| Path::new(&folder).join(name);
    let fields = ("certificate", "key");
    let own = pem_file::credentials(&file("tls.crt"), &file("tls.key"), fields).unwrap();
    let mut trust = Trust::new(CLUSTERSET);
    pem_file::trust_ca(&mut trust, "east", &file("ca.crt"), "ca").unwrap();
    let address = std::env::var("HUB_ADDRESS").unwrap().parse().unwrap();
    let mut listener = Listener::bind(address, Tls::new(own, trust)).unwrap();
    println!("listening {}", listener.local_address().unwrap());
    let mut kept = Vec::new();
    while let Some(connection) = listener.accept_peer().await {
        kept.push(connection);
    }
}

fn write(folder: &Path, cluster: &Cluster) {
    use std::os::unix::fs::PermissionsExt as _;
    let hub = cluster
        .ca
        .hub("hub-1", LEAF_LIFE, SystemTime::now())
        .unwrap();
    std::fs::write(folder.join("tls.crt"), &hub.certificate).unwrap();
    let key = folder.join("tls.key");
    std::fs::write(&key, hub.key.as_bytes()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(folder.join("ca.crt"), &cluster.root.certificate).unwrap();
}

#[tokio::test]
async fn a_hub_that_was_killed_is_noticed_within_two_seconds() {
    let east = Cluster::new("east");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &east);
    let mut hub = Hub::start(folder.path(), loopback());
    let node = Tls::new(east.node("worker"), trust(&[&east]));
    let mut connection = connect(hub.address, &node, hub_of_east()).await.unwrap();
    hub.kill();
    let killed = Instant::now();
    assert_eq!(soon("the end", connection.rx.recv()).await, None);
    let after = killed.elapsed();
    assert_eq!(connection.rx.ended(), Some(Ended::TimedOut));
    assert!(
        after < Duration::from_millis(2000),
        "noticed after {after:?}"
    );
}

#[tokio::test]
async fn a_hub_that_started_again_says_so_to_those_of_before() {
    let east = Cluster::new("east");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &east);
    let mut hub = Hub::start(folder.path(), loopback());
    let node = Tls::new(east.node("worker"), trust(&[&east]));
    let mut connection = connect(hub.address, &node, hub_of_east()).await.unwrap();
    hub.kill();
    let again = Hub::start(folder.path(), hub.address);
    assert_eq!(soon("the end", connection.rx.recv()).await, None);
    assert_eq!(connection.rx.ended(), Some(Ended::PeerRestarted));
    assert!(connect(again.address, &node, hub_of_east()).await.is_ok());
}

#[tokio::test]
async fn other_certificates_count_at_once_and_end_no_connection() {
    let (east, next) = (Cluster::new("east"), Cluster::new("east"));
    let at_hub = Tls::new(east.hub("hub-1"), trust(&[&east]));
    let mut listener = Listener::bind(loopback(), Arc::clone(&at_hub)).unwrap();
    let address = listener.local_address().unwrap();
    let (mut old, hub) = pair(&east, &mut listener, address).await;

    // The next CA is trusted beside the old one, then the certificates are of it, then the old one is out.
    let both = [&*east.root.certificate, &next.root.certificate].concat();
    let mut overlap = Trust::new(CLUSTERSET);
    overlap.set("east", &both).unwrap();
    let at_node = Tls::new(east.node("worker"), overlap.clone());
    at_hub.set_trust(overlap);
    at_hub.set_credentials(credentials(
        &next.ca.hub("hub-2", LEAF_LIFE, SystemTime::now()).unwrap(),
    ));
    let (new, _kept) = tokio::join!(
        connect(address, &at_node, hub_of_east()),
        accept(&mut listener)
    );
    assert_eq!(new.unwrap().peer, PeerId::hub("east", "hub-2"));
    at_node.set_credentials(credentials(
        &next
            .ca
            .node("worker", LEAF_LIFE, SystemTime::now())
            .unwrap(),
    ));
    at_hub.set_trust(trust(&[&next]));
    assert_unharmed(&next, &mut listener, address).await;

    let late = Tls::new(east.node("worker"), trust(&[&next]));
    let refused = connect(address, &late, hub_of_east()).await.unwrap_err();
    assert_eq!(refused.name(), "closed_by_peer");
    assert_eq!(listener.refusals().get("issuer_unknown"), Some(&1));
    let blind = Tls::new(next.node("worker"), trust(&[&east]));
    let refused = connect(address, &blind, hub_of_east()).await.unwrap_err();
    assert_eq!(refused, HandshakeError::Untrusted(Untrusted::IssuerUnknown));

    let message = Bytes::from_static(b"as before");
    hub.tx.try_send(Stream::Changes, message.clone()).unwrap();
    let came = soon("a message", old.rx.recv()).await;
    assert_eq!(came, Some((Stream::Changes, message)));
}

#[tokio::test]
async fn of_one_peer_that_comes_again_and_again_the_oldest_connections_end() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let mut kept = Vec::new();
    for _ in 0..6 {
        kept.push(pair(&east, &mut listener, address).await);
    }
    let ended = |at: usize| kept[at].0.rx.ended();
    until("the first two to end", || {
        ended(0).is_some() && ended(1).is_some()
    })
    .await;
    assert_eq!(ended(0), Some(Ended::ByPeer("replaced".to_owned())));
    assert_eq!((2..6).find_map(ended), None);
}

#[tokio::test]
async fn a_dialer_finds_the_one_hub_that_answers_and_another_after_a_loss() {
    let east = Cluster::new("east");
    let (mut first, at_first) = listen(&east, &[&east]);
    let (mut second, at_second) = listen(&east, &[&east]);
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let targets = [nobody.local_addr().unwrap(), at_first, at_second];
    let tls = Tls::new(east.node("worker"), trust(&[&east]));
    let targets: Vec<_> = targets.map(Target::from).into();
    let mut dialer = Dialer::new(targets, tls, hub_of_east(), Resolver::system(), 1);
    let mut address = None;
    for _ in 0..3 {
        let started = Instant::now();
        let connection = soon("a connection", dialer.connect()).await;
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_ne!(Some(connection.address), address, "the one that was lost");
        address = Some(connection.address);
        let accepted = tokio::select! {
            one = accept(&mut first) => one,
            other = accept(&mut second) => other,
        };
        accepted.tx.close("going away");
        connection.tx.closed().await;
    }
}

#[tokio::test]
async fn a_dialer_goes_on_until_somebody_listens() {
    let east = Cluster::new("east");
    let reserved = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = reserved.local_addr().unwrap();
    let tls = Tls::new(east.node("worker"), trust(&[&east]));
    let targets = vec![address.into()];
    let mut dialer = Dialer::new(targets, tls, hub_of_east(), Resolver::system(), 2);
    let dialling = tokio::spawn(async move { (dialer.connect().await.peer, dialer) });
    // The first attempt has been made when its first packet is there.
    reserved.set_nonblocking(true).unwrap();
    let reserved = tokio::net::UdpSocket::from_std(reserved).unwrap();
    soon("an attempt", reserved.recv(&mut [0; 1500]))
        .await
        .unwrap();
    drop(reserved);
    let at_hub = Tls::new(east.hub("hub-1"), trust(&[&east]));
    let mut listener = Listener::bind(address, at_hub).unwrap();
    let _hub = accept(&mut listener).await;
    let (peer, dialer) = soon("a connection", dialling).await.unwrap();
    assert_eq!(peer, PeerId::hub("east", "hub-1"));
    assert!(dialer.failures().is_empty());
}
