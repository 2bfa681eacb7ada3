//! What hostile hands make of a message.

use bytes::Bytes;
use hawser_mesh::wire::{self, Body, MAX_MESSAGE, Message};

use super::dice::Dice;

/// Flips bits, or puts in other bytes.
pub(super) fn garble(bytes: &Bytes, dice: &mut Dice) -> Bytes {
    let mut bytes = bytes.to_vec();
    match dice.below(4) {
        0 if !bytes.is_empty() => {
            // The beginning is structure; what is behind it may be a value, and a hub may lie about its own.
            let at = dice.index(bytes.len().min(4));
            bytes[at] ^= 1 << dice.below(8);
        }
        1 => bytes = vec![0xff; dice.index(64)],
        2 => bytes.extend_from_slice(&dice.any().to_le_bytes()),
        _ => bytes = vec![0; MAX_MESSAGE + 1],
    }
    bytes.into()
}

/// Says something else in the same form.
pub(super) fn forge(bytes: &Bytes, dice: &mut Dice) -> Vec<Bytes> {
    let Ok(mut message) = Message::parse(bytes.clone()) else {
        return vec![bytes.clone()];
    };
    let Some(body) = &mut message.body else {
        return vec![bytes.clone()];
    };
    match body {
        Body::Snapshot(snapshot) => forge_snapshot(snapshot, dice),
        Body::Delta(delta) => forge_delta(delta, dice),
        Body::Summary(summary) => match dice.below(3) {
            0 => summary.digest = vec![9; 16].into(),
            1 => summary.count = dice.any(),
            _ => summary.incarnation += 1 + dice.below(3),
        },
        Body::Ack(ack) if dice.percent(30) => return vec![curious(ack.origin)],
        Body::Ack(ack) => ack.sequence = dice.any() >> dice.below(64),
        Body::Digests(digests) => {
            let length = dice.index(digests.buckets.len() + 1);
            digests.buckets = digests.buckets.slice(..length);
        }
        Body::Subscribe(subscribe) => match dice.below(3) {
            0 => subscribe.prefixes.push(vec![67].into()),
            1 => subscribe.prefixes = vec![vec![1].into(); 100_000],
            _ => subscribe.number = 0,
        },
        Body::Compare(compare) => compare.origin = forged_origin(dice),
        Body::Gone(gone) => gone.origin = forged_origin(dice),
        Body::Refused(refused) => refused.reason = "x".repeat(dice.index(2_000)),
        Body::Hello(hello) => hello.minor = 1_000,
        Body::Announce(announce) => announce.lanes = vec![announce_lane(); 1_000],
    }
    vec![message.to_bytes()]
}

/// Asks for all kinds, private ones too.
fn curious(origin: u32) -> Bytes {
    let kinds = [1, 2, 3, 4, 65, 66, 68];
    let have = wire::Have {
        origin,
        ..wire::Have::default()
    };
    let subscribe = wire::Subscribe {
        number: 1_000,
        prefixes: kinds.map(|kind: u8| vec![kind].into()).to_vec(),
        origins: vec![origin],
        have: vec![have],
    };
    Message::of(Body::Subscribe(subscribe)).to_bytes()
}

fn announce_lane() -> wire::WireLane {
    wire::WireLane::default()
}

fn forged_origin(dice: &mut Dice) -> u32 {
    u32::try_from(dice.below(4_000)).expect("it is small")
}

fn forge_snapshot(snapshot: &mut wire::Snapshot, dice: &mut Dice) {
    match dice.below(7) {
        0 => snapshot.origin = forged_origin(dice),
        1 => snapshot.incarnation += 5_000,
        2 => snapshot.sequence = dice.any(),
        3 => snapshot.records.reverse(),
        4 => snapshot.records.push(private_change()),
        5 => snapshot.buckets = vec![0xff; 99].into(),
        _ => std::mem::swap(&mut snapshot.start, &mut snapshot.end),
    }
}

fn forge_delta(delta: &mut wire::Delta, dice: &mut Dice) {
    match dice.below(7) {
        0 => delta.origin = forged_origin(dice),
        1 => delta.incarnation += 5_000,
        2 => delta.sequence = dice.any(),
        3 => delta.from += 1 + dice.below(9),
        4 => std::mem::swap(&mut delta.from, &mut delta.to),
        5 => delta.changes.push(private_change()),
        _ => {
            for change in &mut delta.changes {
                change.revision = delta.to + 1;
            }
        }
    }
}

/// A pod of the receiver's own cluster, as it were.
fn private_change() -> wire::Change {
    wire::Change {
        revision: 1,
        key: vec![67, 0, 1, b'x'].into(),
        value: Some(vec![1, 2, 3].into()),
    }
}
