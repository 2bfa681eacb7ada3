//! A hub to be asked: the real replica behind the real transport, inside a node's network namespace, with records that
//! the test writes.

use crate::ground::Ground;
use bytes::Bytes;
use hawser_mesh::ca::{Ca, LEAF_LIFE, init};
use hawser_mesh::io::quic::{Connection, Listener, Sender, Tls};
use hawser_mesh::record::{
    Cluster, IdentityRecord, Key, LaneRecord, Node, Pod, Record, Revision, Version,
};
use hawser_mesh::replica::{AdmitAll, Audience, Event, Limits, Replica, SessionId, Stream};
use hawser_mesh::trust::{Credentials, Trust};
use hawser_mesh::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// Where the first hub listens.
pub(crate) const FIRST: &str = "192.0.2.1:7443";
/// Where the second one does.
pub(crate) const SECOND: &str = "192.0.2.1:7444";

/// The CA of the cluster `east`, and its files for `east-1`.
pub(crate) struct Authority {
    ca: Ca,
    certificate: String,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        let now = SystemTime::now();
        let root = init("set.example", "east", now).unwrap();
        let ca = Ca::from_pem(&root.certificate, &root.key).unwrap();
        let node = ca.node("east-1", LEAF_LIFE, now).unwrap();
        std::fs::write(folder.join("ca.crt"), &root.certificate).unwrap();
        std::fs::write(folder.join("node.crt"), &node.certificate).unwrap();
        let key = folder.join("node.key");
        std::fs::write(&key, node.key.as_bytes()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            ca,
            certificate: root.certificate,
        }
    }

    fn tls(&self) -> Arc<Tls> {
        let hub = self.ca.hub("hub-1", LEAF_LIFE, SystemTime::now()).unwrap();
        let credentials = Credentials::from_pem(&hub.certificate, &hub.key).unwrap();
        let mut trust = Trust::new("set.example");
        trust.set("east", &self.certificate).unwrap();
        Tls::new(credentials, trust)
    }
}

/// What the hub writes next: a revision, and records of its own cluster.
type Write = (u64, Vec<(Key, Option<Bytes>)>);

/// A hub that runs until it is dropped; then its connections are closed.
pub(crate) struct Hub {
    writes: Option<mpsc::UnboundedSender<Write>>,
    announced: Arc<Mutex<Vec<LaneRecord>>>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    pub(crate) fn start(ground: &Ground, authority: &Authority, at: &str) -> Self {
        let (writes, written) = mpsc::unbounded_channel();
        let announced = Arc::new(Mutex::new(Vec::new()));
        let namespace = File::open(ground.namespace()).unwrap();
        let (tls, heard) = (authority.tls(), Arc::clone(&announced));
        let at: SocketAddr = at.parse().unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = Listener::bind(at, tls).unwrap();
                ready.send(()).unwrap();
                serve(listener, written, &heard).await;
            });
        });
        is_ready.recv().unwrap();
        Self {
            writes: Some(writes),
            announced,
            thread: Some(thread),
        }
    }

    pub(crate) fn write(&self, revision: u64, changes: Vec<(Key, Option<Bytes>)>) {
        let writes = self.writes.as_ref().unwrap();
        writes.send((revision, changes)).unwrap();
    }

    pub(crate) fn set(&self, revision: u64, records: &[Record]) {
        let set = |record: &Record| (record.key(), Some(encode_record(record)));
        self.write(revision, records.iter().map(set).collect());
    }

    /// What the agent told of its node last.
    pub(crate) fn announced(&self) -> Vec<LaneRecord> {
        self.announced.lock().unwrap().clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    mut listener: Listener,
    mut written: mpsc::UnboundedReceiver<Write>,
    announced: &Mutex<Vec<LaneRecord>>,
) {
    let mut replica = Replica::new(Limits::default(), Box::new(AdmitAll));
    replica.own(ClusterId::new(1).unwrap(), Version::new(1, 0));
    let mut senders: BTreeMap<SessionId, Sender> = BTreeMap::new();
    let (tell, mut heard) = mpsc::channel(64);
    let mut timer = tokio::time::interval(Duration::from_millis(5));
    let mut sessions = 0;
    loop {
        let now = Instant::now();
        replica.handle_timeout(now);
        while let Some(event) = replica.poll_event() {
            if let Event::Announced { lanes, .. } = event {
                *announced.lock().unwrap() = lanes;
            }
        }
        while let Some(sent) = replica.poll_transmit(now) {
            if let Some(sender) = senders.get(&sent.session) {
                // A connection that has ended is told of by its reader.
                let _ = sender.try_send(sent.stream, sent.bytes);
                replica.set_writable(sent.session, sent.stream, sender.is_writable(sent.stream));
            }
        }
        tokio::select! {
            write = written.recv() => match write {
                Some((revision, changes)) => assert!(replica.write(Revision(revision), changes)),
                None => return listener.close("hub_stops").await,
            },
            Some(connection) = listener.accept_peer() => {
                sessions += 1;
                let node = NodeIndex::new(1).unwrap();
                replica.publish(sessions, Audience::OwnAgent { node });
                senders.insert(sessions, connection.tx.clone());
                tokio::spawn(read(sessions, connection, tell.clone()));
            }
            Some((session, message)) = heard.recv() => match message {
                Some((stream, bytes)) => {
                    let now = Instant::now();
                    replica.handle_message(session, stream, bytes, now).unwrap();
                }
                None => {
                    replica.close(session);
                    senders.remove(&session);
                }
            },
            _ = timer.tick() => for (&session, sender) in &senders {
                for stream in Stream::ALL {
                    replica.set_writable(session, stream, sender.is_writable(stream));
                }
            },
        }
    }
}

type Heard = (SessionId, Option<(Stream, Bytes)>);

async fn read(session: SessionId, mut connection: Connection, tell: mpsc::Sender<Heard>) {
    while let Some((stream, bytes)) = connection.rx.recv().await {
        if tell.send((session, Some((stream, bytes)))).await.is_err() {
            return;
        }
    }
    let _ = tell.send((session, None)).await;
}

fn cluster(id: u16, name: &str, prefix: &str) -> Record {
    Record::Cluster(Cluster {
        id: ClusterId::new(id).unwrap(),
        name: name.to_owned(),
        prefixes: vec![prefix.parse().unwrap()],
        ca: String::new(),
    })
}

/// A node of `east` with a prefix of its own, reached at an underlay address of its own.
pub(crate) fn node(index: u16) -> Record {
    let byte = u8::try_from(index).unwrap();
    Record::Node(Node {
        index: NodeIndex::new(index).unwrap(),
        name: format!("east-{index}"),
        prefixes: vec![format!("10.1.{index}.0/24").parse().unwrap()],
        lanes: vec![LaneRecord {
            public_key: PublicKey::new([byte; 32]),
            peer_endpoint: Some(SocketAddr::new([192, 0, 2, 100 + byte].into(), 51820)),
            key_port: None,
        }],
    })
}

/// Two nodes, an identity and a pod.
pub(crate) fn records() -> Vec<Record> {
    vec![
        cluster(1, "east", "10.1.0.0/16"),
        node(1),
        node(2),
        Record::Identity(IdentityRecord {
            number: Identity::new(1001).unwrap(),
            namespace: "shop".to_owned(),
            labels: BTreeMap::new(),
        }),
        Record::Pod(Pod {
            node: NodeIndex::new(1).unwrap(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            addresses: vec!["10.1.1.10".parse().unwrap()],
            identity: Identity::new(1001).unwrap(),
        }),
    ]
}
