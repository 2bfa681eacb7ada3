//! What one data plane of a node leaves to the next.

use super::{Device, lanes};
use crate::handover::{InUse, Inheritance};
use crate::lane::LaneNumber;
use crate::outgoing::ByLane;
use crate::reject::Reject;
use crate::status::Counters;
use crate::wireguard::Message;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

impl Device {
    /// What a successor has to know of the lanes.
    pub fn inheritance(&self, now: Instant) -> Inheritance {
        let table = self.table();
        let in_use = lanes(table.as_deref()).filter_map(|lane| {
            Some(InUse {
                own: lane.own(),
                own_key: Some(lane.key().public),
                public_key: lane.public_key(),
                endpoint: lane.in_use(now)?,
            })
        });
        Inheritance {
            in_use: in_use.collect(),
            indices: lanes(table.as_deref()).map(|lane| lane.index()).collect(),
        }
    }

    /// Takes over from another data plane of this node; before the first [`Self::apply`].
    pub fn inherit(&self, inheritance: Inheritance) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.inheritance = inheritance;
    }

    /// Whether the data plane that this one takes over from had peers.
    pub fn has_inherited_lanes(&self) -> bool {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        !control.inheritance.indices.is_empty()
    }

    /// Lanes that had a session when this data plane took over, and have none here yet. With `press`
    /// they try again now: a message may be lost, and there is no time for WireGuard's own pace.
    pub fn missing(&self, press: bool, now: Instant, out: &mut impl ByLane) -> usize {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = self.table() else {
            return 0;
        };
        let mut count = 0;
        for in_use in &control.inheritance.in_use {
            let lanes = table.lanes_by_key(in_use.own, &in_use.public_key);
            // By whichever of our keys the peer is reached.
            let reached = lanes.iter().any(|lane| lane.in_use(now).is_some());
            let mut same = lanes.iter().filter(|lane| in_use.is_of(lane.key().public));
            if let Some(lane) = same.next()
                && !reached
            {
                count += 1;
                if press {
                    lane.initiate(now, out.of(lane.own()));
                }
            }
        }
        count
    }

    /// Starts new handshakes on the lanes that have a session.
    pub fn rekey_in_use(&self, now: Instant, out: &mut impl ByLane) {
        let table = self.table();
        lanes(table.as_deref())
            .filter(|lane| lane.in_use(now).is_some())
            .for_each(|lane| lane.initiate(now, out.of(lane.own())));
    }

    /// Whether a datagram that came to lane `own` is this data plane's affair while another takes over: it belongs to one
    /// of its sessions, or is of no use to anybody. Handshakes and answers to them are not: a session
    /// that is made now would end with this process.
    pub fn keeps(&self, own: LaneNumber, datagram: &[u8]) -> bool {
        match Message::parse(datagram) {
            Ok(Message::Data { receiver }) => self
                .table()
                .is_some_and(|table| table.lane_by_index(receiver).is_some()),
            Ok(Message::Initiation | Message::Response { .. }) => {
                self.own(own).keys().addressed(datagram).is_none()
            }
            Ok(Message::Cookie { .. }) => false,
            Err(_) => true,
        }
    }

    /// Counts what waits for handshakes that will not come any more.
    pub fn give_up_waiting(&self) {
        let table = self.table();
        for lane in lanes(table.as_deref()) {
            // Not closed: where the successor fails at the last moment, all of it goes on.
            let waited = lane.take_waiting();
            let reason = lane.waits_for(Reject::QueueExpired);
            self.drops.add(reason, waited.len() as u64);
        }
    }

    /// Goes on counting where another data plane stopped.
    pub fn add_counters(&self, counters: &Counters) {
        let add = |total: &AtomicU64, count: u64| total.fetch_add(count, Ordering::Relaxed);
        add(&self.totals.tx_packets, counters.tx_packets);
        add(&self.totals.tx_bytes, counters.tx_bytes);
        add(&self.totals.rx_packets, counters.rx_packets);
        add(&self.totals.rx_bytes, counters.rx_bytes);
        for &reason in Reject::ALL {
            let count = counters.drops.get(reason.name()).copied();
            self.drops.add(reason, count.unwrap_or_default());
        }
    }
}
