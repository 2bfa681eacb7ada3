//! An agent as its hub sees it: the real protocol, and nothing behind it.

use crate::site::{LONG, Site};
use bytes::Bytes;
use hawser_mesh::io::quic::{Connection, Tls, connect};
use hawser_mesh::record::{Key, Kind, LaneRecord, Prefix, Record};
use hawser_mesh::replica::{AdmitAll, Filter, Limits, Replica, SessionId, Wanted};
use hawser_mesh::trust::Expected;
use hawser_mesh::wire::decode_record;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) struct Agent {
    pub(crate) replica: Replica,
    connection: Option<Connection>,
    session: SessionId,
}

/// All that an agent may ask for.
fn filter(node: u16) -> Filter {
    let kinds = [
        Kind::Node,
        Kind::Identity,
        Kind::Service,
        Kind::Endpoint,
        Kind::Policy,
        Kind::Namespace,
        Kind::Cluster,
    ];
    let pods = Prefix::pods_of(NodeIndex::new(node).unwrap());
    Filter::new(kinds.map(Prefix::kind).into_iter().chain([pods]))
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self {
            replica: Replica::new(Limits::default(), Box::new(AdmitAll)),
            connection: None,
            session: 0,
        }
    }

    /// Connects the node `n1`, whose index is 1, to a hub; drops the connection before.
    pub(crate) async fn connect(&mut self, site: &Site, hub: usize) {
        if self.connection.take().is_some() {
            self.replica.close(self.session);
        }
        self.session += 1;
        let tls = Tls::new(site.node_credentials("n1"), site.trust());
        let expected = || Expected::HubOf(site.name.to_owned());
        let deadline = Instant::now() + LONG;
        let connection = loop {
            match connect(site.address(hub), &tls, expected()).await {
                Ok(connection) => break connection,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        self.connection = Some(connection);
        self.replica
            .subscribe(self.session, Wanted::All, filter(1), Instant::now());
    }

    pub(crate) fn announce(&mut self, lanes: Vec<LaneRecord>) {
        self.replica.announce(self.session, lanes);
    }

    /// Talks to the hub until a condition holds.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Replica) -> bool) {
        let deadline = Instant::now() + LONG;
        while !fits(&self.replica) {
            assert!(Instant::now() < deadline, "{what}: not within {LONG:?}");
            self.step(what).await;
        }
    }

    async fn step(&mut self, what: &str) {
        let connection = self.connection.as_mut().expect("connected");
        while let Some(transmit) = self.replica.poll_transmit(Instant::now()) {
            let stream = transmit.stream;
            connection.tx.writable(stream).await;
            connection.tx.try_send(stream, transmit.bytes).unwrap();
        }
        let received = tokio::time::timeout(Duration::from_millis(100), connection.rx.recv());
        let Ok(received) = received.await else {
            self.replica.handle_timeout(Instant::now());
            return;
        };
        let Some((stream, bytes)) = received else {
            panic!("{what}: the hub is gone: {:?}", connection.rx.ended());
        };
        let handled = self
            .replica
            .handle_message(self.session, stream, bytes, Instant::now());
        handled.unwrap_or_else(|reject| panic!("{what}: {reject}"));
        while self.replica.poll_event().is_some() {}
    }
}

/// What a replica has of a cluster.
pub(crate) fn records(replica: &Replica, cluster: u8) -> BTreeMap<Key, Bytes> {
    let store = replica.store(ClusterId::new(cluster.into()).unwrap());
    let records = store.into_iter().flat_map(|store| store.records());
    records.map(|(_, key, value)| (key, value)).collect()
}

/// The same, decoded.
pub(crate) fn decoded(replica: &Replica, cluster: u8) -> Vec<Record> {
    let records = records(replica, cluster);
    let records = records.iter();
    records
        .map(|(key, value)| decode_record(key, value).unwrap())
        .collect()
}

pub(crate) fn count(replica: &Replica, cluster: u8, kind: Kind) -> usize {
    let records = records(replica, cluster);
    records
        .keys()
        .filter(|key| key.kind() == Some(kind))
        .count()
}
