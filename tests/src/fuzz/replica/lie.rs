//! Keys, values and messages as somebody makes them up, and true messages with one thing changed.

use super::super::source::Source;
use bytes::Bytes;
use hawser_mesh::record::Key;
use hawser_mesh::wire::{
    Ack, Announce, Body, Change, Compare, Delta, Digests, Gone, Have, Hello, Refused, Snapshot,
    Subscribe, Summary, WireLane,
};

/// Keys of public, private and still unknown kinds; of pods those of nodes 7 and 8.
const KINDS: [&[u8]; 11] = [
    &[1],
    &[2],
    &[3],
    &[4, b's'],
    &[4, b'i'],
    &[65],
    &[66],
    &[67, 0, 7],
    &[67, 0, 8],
    &[68],
    &[100],
];

/// One of the keys of these sessions.
pub(super) fn key(source: &mut Source<'_>) -> Key {
    let key = [source.pick(&KINDS), &[source.pick(b"abcd")]].concat();
    Key::parse(key.into()).expect("some bytes are a key")
}

/// A short value.
pub(super) fn value(source: &mut Source<'_>) -> Bytes {
    Bytes::copy_from_slice(source.bytes(24))
}

/// A message of any kind.
pub(super) fn body(source: &mut Source<'_>) -> Body {
    match source.below(11) {
        0 => Body::Snapshot(snapshot(source)),
        1 => Body::Delta(Delta {
            number: number(source),
            origin: origin(source),
            incarnation: incarnation(source),
            from: revision(source),
            to: revision(source),
            sequence: revision(source),
            changes: changes(source),
            newest: revision(source),
        }),
        2 => Body::Summary(Summary {
            number: number(source),
            origin: origin(source),
            incarnation: incarnation(source),
            revision: revision(source),
            digest: bytes_of(source, 16),
            count: revision(source),
        }),
        3 => Body::Compare(Compare {
            number: number(source),
            origin: origin(source),
            round: number(source),
        }),
        4 => Body::Gone(Gone {
            number: number(source),
            origin: origin(source),
            sequence: revision(source),
        }),
        5 => Body::Subscribe(subscribe(source)),
        6 => Body::Digests(Digests {
            number: number(source),
            origin: origin(source),
            buckets: bytes_of(source, 4096),
            round: number(source),
        }),
        7 => Body::Ack(Ack {
            number: number(source),
            origin: origin(source),
            sequence: revision(source),
        }),
        8 => Body::Refused(Refused {
            origin: origin(source),
            key: any_key(source),
            reason: String::from_utf8_lossy(source.bytes(80)).into_owned(),
        }),
        9 => Body::Announce(Announce {
            lanes: vec![WireLane::default(); source.below(4)],
        }),
        _ => Body::Hello(Hello {
            minor: number(source),
            program: String::from_utf8_lossy(source.bytes(8)).into_owned(),
        }),
    }
}

/// The same message with one thing changed, so that it passes what is checked first.
pub(super) fn changed(body: Body, source: &mut Source<'_>) -> Body {
    let mut body = body;
    let what = source.below(8);
    match &mut body {
        Body::Hello(hello) => hello.minor = source.any(),
        Body::Subscribe(subscribe) => match what {
            0 => subscribe.have = vec![have(source)],
            1 => subscribe.prefixes.push(any_key(source)),
            2 => subscribe.origins.push(origin(source)),
            3 => subscribe.have.clear(),
            _ => subscribe.prefixes.truncate(1),
        },
        Body::Digests(digests) => match what {
            0 => digests.round = number(source),
            _ => digests.buckets = bytes_of(source, 4096),
        },
        Body::Ack(ack) => ack.sequence = revision(source),
        Body::Refused(refused) => refused.key = any_key(source),
        Body::Announce(announce) => announce.lanes.push(WireLane::default()),
        Body::Compare(compare) => compare.round = number(source),
        Body::Snapshot(snapshot) => match what {
            0 => snapshot.revision = revision(source),
            1 => snapshot.incarnation = incarnation(source),
            2 => snapshot.newest = revision(source),
            3 => snapshot.all = !snapshot.all,
            4 => snapshot.buckets = bytes_of(source, 32),
            5 => {
                snapshot.last = !snapshot.last;
                snapshot.end = any_key(source);
            }
            6 => snapshot.origin = origin(source),
            _ => change_records(&mut snapshot.records, source),
        },
        Body::Delta(delta) => match what {
            0 => delta.to = revision(source),
            1 => delta.from = revision(source),
            2 => delta.newest = revision(source),
            3 => delta.incarnation = incarnation(source),
            4 => delta.changes = changes(source),
            5 => delta.origin = origin(source),
            _ => change_records(&mut delta.changes, source),
        },
        Body::Summary(summary) => match what {
            0 => summary.revision = revision(source),
            1 => summary.count = revision(source),
            2 => summary.origin = origin(source),
            _ => summary.digest = bytes_of(source, 16),
        },
        Body::Gone(gone) => gone.origin = origin(source),
    }
    body
}

fn change_records(records: &mut Vec<Change>, source: &mut Source<'_>) {
    let at = source.below(records.len());
    match (records.get_mut(at), source.below(5)) {
        (Some(record), 0) => record.value = Some(Bytes::copy_from_slice(source.bytes(1000))),
        (Some(record), 1) => record.key = any_key(source),
        (Some(record), 2) => record.value = None,
        (Some(_), 3) => _ = records.remove(at),
        (None, _) | (Some(_), _) => *records = many(source),
    }
}

/// Sorted records under one kind, more than the quota allows.
fn many(source: &mut Source<'_>) -> Vec<Change> {
    let revision = revision(source);
    let kind = source.pick(&[1, 3, 65]);
    let value = value(source);
    (0..100)
        .map(|name| Change {
            revision,
            key: Bytes::copy_from_slice(&[kind, name]),
            value: Some(value.clone()),
        })
        .collect()
}

fn snapshot(source: &mut Source<'_>) -> Snapshot {
    Snapshot {
        number: number(source),
        origin: origin(source),
        incarnation: incarnation(source),
        revision: revision(source),
        sequence: revision(source),
        all: !source.once_in(3),
        buckets: bytes_of(source, 32),
        start: if source.once_in(4) {
            any_key(source)
        } else {
            Bytes::new()
        },
        end: if source.once_in(4) {
            any_key(source)
        } else {
            Bytes::new()
        },
        records: changes(source),
        last: !source.once_in(4),
        count: revision(source),
        newest: revision(source),
    }
}

fn subscribe(source: &mut Source<'_>) -> Subscribe {
    Subscribe {
        number: number(source),
        prefixes: (0..source.below(4)).map(|_| any_key(source)).collect(),
        origins: (0..source.below(3)).map(|_| origin(source)).collect(),
        have: (0..source.below(7)).map(|_| have(source)).collect(),
    }
}

fn have(source: &mut Source<'_>) -> Have {
    Have {
        origin: origin(source),
        incarnation: incarnation(source),
        revision: revision(source),
        complete: source.any(),
        digest: bytes_of(source, 16),
        count: revision(source),
    }
}

fn changes(source: &mut Source<'_>) -> Vec<Change> {
    let mut changes: Vec<_> = (0..source.below(5))
        .map(|_| Change {
            revision: revision(source),
            key: any_key(source),
            value: (!source.once_in(4)).then(|| value(source)),
        })
        .collect();
    if !source.once_in(4) {
        changes.sort_by(|a, b| (&a.key, a.revision).cmp(&(&b.key, b.revision)));
    }
    changes
}

fn any_key(source: &mut Source<'_>) -> Bytes {
    if source.once_in(8) {
        return Bytes::copy_from_slice(source.bytes(600));
    }
    key(source).as_bytes().clone()
}

/// Mostly as many as it should be.
fn bytes_of(source: &mut Source<'_>, length: usize) -> Bytes {
    match source.below(5) {
        0 => Bytes::new(),
        1 => Bytes::copy_from_slice(source.bytes(64)),
        2 => vec![0xff; length].into(),
        _ => source.pattern(length).into(),
    }
}

fn number(source: &mut Source<'_>) -> u32 {
    match source.below(6) {
        0..=2 => 1,
        3 | 4 => u32::from(source.any::<u8>() % 4),
        _ => source.any(),
    }
}

fn origin(source: &mut Source<'_>) -> u32 {
    match source.below(8) {
        0..=3 => 1,
        4 => 2,
        5 | 6 => u32::from(source.any::<u8>() % 12),
        _ => source.any(),
    }
}

fn incarnation(source: &mut Source<'_>) -> u64 {
    match source.below(6) {
        0..=2 => 1,
        3 | 4 => source.pick(&[2, 3, 0, 900, 1_001, 1_002]),
        _ => source.any(),
    }
}

/// A revision, or any other number of the kind: mostly a small one.
fn revision(source: &mut Source<'_>) -> u64 {
    match source.below(8) {
        0..=6 => u64::from(source.any::<u8>() % 24),
        _ => source.any(),
    }
}
