//! One cluster: the records that it owns, and a hub that tells them.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hawser_mesh::io::quic::Listener;
use hawser_mesh::record::{Key, Revision, Version};
use hawser_mesh::replica::{AdmitAll, Audience, Limits, Replica};
use hawser_tunnel::node::ClusterId;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{INCARNATION, Order, Written};
use crate::bench::sync::speaker::Speaker;

/// The cluster under test, which is the only one that comes.
const GUEST: u16 = 1;

/// A cluster that is there.
#[derive(Debug)]
pub(super) struct Cluster {
    origin: ClusterId,
    revision: u64,
    speaker: Speaker,
}

impl Cluster {
    pub(super) fn new(origin: ClusterId, records: Vec<(Key, Bytes)>) -> Self {
        let mut replica = Replica::new(Limits::default(), Box::new(AdmitAll));
        replica.own(origin, Version::new(INCARNATION, 0));
        let records = records.into_iter();
        replica.write(Revision(1), records.map(|(key, value)| (key, Some(value))));
        Self {
            origin,
            revision: 1,
            speaker: Speaker::new(replica),
        }
    }

    /// Lives until there is nobody left to give orders.
    pub(super) async fn run(
        mut self,
        mut listener: Listener,
        mut orders: UnboundedReceiver<Order>,
    ) -> Result<()> {
        loop {
            self.speaker.speak();
            // Nobody looks at what it thinks of itself.
            while self.speaker.replica.poll_event().is_some() {}
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return Ok(()),
                },
                connection = listener.accept_peer() => {
                    let connection = connection.context("a listener has ended")?;
                    let session = self.speaker.open(connection);
                    let cluster = ClusterId::new(GUEST)?;
                    self.speaker.replica.publish(session, Audience::OtherHub { cluster });
                }
                _ = self.speaker.hear() => (),
            }
        }
    }

    fn obey(&mut self, Order { changes, tell }: Order) {
        let keys = changes.iter().map(|(key, _)| key.clone()).collect();
        let at = Instant::now();
        if !changes.is_empty() {
            self.revision += 1;
            self.speaker.replica.write(Revision(self.revision), changes);
        }
        let written = Written {
            at,
            origin: self.origin,
            keys,
            version: Version::new(INCARNATION, self.revision),
        };
        // Who does not listen does not want to know.
        tell.send(written).ok();
    }
}
