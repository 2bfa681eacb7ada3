//! Reads along on honest sessions: what is said, before anybody judges it.

use std::collections::BTreeMap;

use bytes::Bytes;
use hawser_mesh::record::{Key, Kind};
use hawser_mesh::wire::{Body, Change, Message};

use super::item::cluster_of_number;
use super::violation::Violation;

/// Parts that may be unacknowledged (docs/wire.md).
const WINDOW: u64 = hawser_mesh::replica::WINDOW;

/// What was said about one origin on one session.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    number: u32,
    sent: u64,
    acked: u64,
    /// The state that was told last.
    told: (u64, u64),
}

/// What was said on one session.
#[derive(Debug, Default)]
pub(super) struct Tap(BTreeMap<u32, Parts>);

impl Tap {
    /// A publisher said something. `foreign`: to another cluster.
    pub(super) fn said(&mut self, bytes: &Bytes, foreign: bool) -> Result<(), Violation> {
        // Field numbers of parts; others are not worth the reading.
        if !matches!(bytes.first(), Some(0x5a | 0x62)) {
            return Ok(());
        }
        let message = Message::parse(bytes.clone());
        match message.ok().and_then(|message| message.body) {
            Some(Body::Snapshot(part)) => {
                self.part(part.number, part.origin, part.sequence)?;
                private(part.origin, &part.records, foreign)
            }
            Some(Body::Delta(part)) => {
                self.part(part.number, part.origin, part.sequence)?;
                private(part.origin, &part.changes, foreign)?;
                let parts = self.0.entry(part.origin).or_default();
                let to = (part.incarnation, part.to);
                let back = to <= parts.told && parts.told.0 == part.incarnation;
                parts.told = to;
                if back {
                    let what = format!("a delta to {}.{} after one to it", to.0, to.1);
                    return Err(Violation::OthersHarmed { what });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A subscriber's answer arrived.
    pub(super) fn heard(&mut self, bytes: &Bytes) {
        if bytes.first() != Some(&0x22) {
            return;
        }
        if let Ok(Message {
            body: Some(Body::Ack(ack)),
        }) = Message::parse(bytes.clone())
        {
            let parts = self.0.entry(ack.origin).or_default();
            if parts.number == ack.number {
                parts.acked = parts.acked.max(ack.sequence);
            }
        }
    }

    fn part(&mut self, number: u32, origin: u32, sequence: u64) -> Result<(), Violation> {
        let parts = self.0.entry(origin).or_default();
        if parts.number != number {
            *parts = Parts {
                number,
                ..Parts::default()
            };
        }
        parts.sent = sequence;
        let ahead = sequence.saturating_sub(parts.acked);
        if ahead > WINDOW {
            return Err(Violation::Unbounded {
                what: "parts that nobody acknowledged",
                size: usize::try_from(ahead).unwrap_or(usize::MAX),
            });
        }
        Ok(())
    }
}

fn private(origin: u32, changes: &[Change], foreign: bool) -> Result<(), Violation> {
    let private = changes.iter().find(|change| {
        change
            .key
            .first()
            .is_some_and(|kind| *kind >= Kind::FIRST_PRIVATE)
    });
    let private = private.filter(|_| foreign);
    let key = private.and_then(|change| Key::parse(change.key.clone()).ok());
    match (key, cluster_of_number(origin)) {
        (Some(key), Some(origin)) => Err(Violation::PrivateTold { origin, key }),
        (_, _) => Ok(()),
    }
}
