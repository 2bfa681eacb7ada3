//! The journal: what the own cluster's records were, change by change.
//!
//! A file is [`HEADER`] and frames. A frame is the length of its body (4 bytes, big endian), 8 bytes of the body's BLAKE2s, and
//! the body: incarnation, revision, and the changes of that revision. Numbers are big endian. A frame is on the disk before
//! anybody is told of its revision, so no revision ever means two things.

use crate::record::{Incarnation, Key, Revision, Version};
use blake2::{Blake2s256, Digest as _};
use bytes::{Buf as _, Bytes};
use std::collections::{BTreeMap, BTreeSet};

/// The first bytes of a journal. The last of them is the version of its form.
pub const HEADER: [u8; 16] = *b"hawser-journal-1";

/// The longest body, in bytes: a bound for what a broken length can ask for.
const MAX_BODY: usize = 256 << 20;

/// Length and check sum.
const FRAME_HEAD: usize = 12;

/// The changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Of the state afterwards.
    pub version: Version,
    /// Records; `None`: gone.
    pub changes: Vec<(Key, Option<Bytes>)>,
}

impl Frame {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.version.incarnation.0.to_be_bytes());
        body.extend(self.version.revision.0.to_be_bytes());
        for (key, value) in &self.changes {
            let length = u16::try_from(key.as_bytes().len());
            body.extend(length.expect("a key has at most 512 bytes").to_be_bytes());
            body.extend_from_slice(key.as_bytes());
            // 0: gone; else the length and one.
            let length = value.as_ref().map_or(0, |value| value.len() + 1);
            let length = u32::try_from(length);
            body.extend(
                length
                    .expect("a record is shorter than a message")
                    .to_be_bytes(),
            );
            body.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        let length = u32::try_from(body.len());
        let mut bytes = length
            .expect("a frame holds one settled change")
            .to_be_bytes()
            .to_vec();
        bytes.extend(checksum(&body));
        bytes.extend(body);
        bytes
    }

    fn parse(mut body: Bytes) -> Option<Self> {
        if body.len() < 16 {
            return None;
        }
        let version = Version::new(body.get_u64(), body.get_u64());
        let mut changes = Vec::new();
        while body.has_remaining() {
            let length = usize::from(body.try_get_u16().ok()?);
            let key = take(&mut body, length)?;
            let length = usize::try_from(body.try_get_u32().ok()?).ok()?;
            let value = match length.checked_sub(1) {
                None => None,
                Some(length) => Some(take(&mut body, length)?),
            };
            // Copied, or a record would keep the whole frame alive.
            let key = Key::parse(Bytes::copy_from_slice(&key)).ok()?;
            changes.push((key, value.map(|value| Bytes::copy_from_slice(&value))));
        }
        Some(Self { version, changes })
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let hash = Blake2s256::digest(body);
    *hash.first_chunk().expect("BLAKE2s has 32 bytes")
}

/// How the reading of frames ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the last byte.
    Clean,
    /// With a frame that is not all there: its writer died, and nobody was told of it.
    Torn,
    /// With a frame that is broken although more follows: the disk lost something that others were told of.
    Corrupt,
}

/// Reads frames from the beginning of `bytes`. Returns how many bytes they took, and what came behind them.
pub fn read_frames(bytes: &Bytes, mut each: impl FnMut(Frame)) -> (usize, End) {
    let mut at = 0;
    loop {
        let rest = bytes.slice(at..);
        if rest.is_empty() {
            return (at, End::Clean);
        }
        let Some((head, body)) = rest.split_first_chunk::<FRAME_HEAD>() else {
            return (at, End::Torn);
        };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_BODY {
            return (at, End::Corrupt);
        }
        let Some(body) = body.get(..length) else {
            return (at, End::Torn);
        };
        let end = at + FRAME_HEAD + length;
        let frame =
            (checksum(body) == head[4..]).then(|| Frame::parse(bytes.slice(at + FRAME_HEAD..end)));
        let Some(Some(frame)) = frame else {
            let end = if end == bytes.len() {
                End::Torn
            } else {
                End::Corrupt
            };
            return (at, end);
        };
        each(frame);
        at = end;
    }
}

/// The state that a journal leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Of the last frame.
    pub version: Version,
    /// Each record with the revision at which it became so.
    pub records: BTreeMap<Key, (Revision, Bytes)>,
    /// Bytes of keys and values.
    bytes: usize,
}

impl Live {
    /// Takes the next frame.
    pub fn apply(&mut self, frame: &Frame) {
        for (key, value) in &frame.changes {
            let revision = frame.version.revision;
            let had = match value {
                Some(value) => {
                    self.bytes += key.as_bytes().len() + value.len();
                    self.records.insert(key.clone(), (revision, value.clone()))
                }
                None => self.records.remove(key),
            };
            if let Some((_, had)) = had {
                self.bytes -= key.as_bytes().len() + had.len();
            }
        }
        self.version = frame.version;
    }

    /// About how many bytes a journal of this state alone has.
    pub fn size(&self) -> usize {
        self.bytes + self.records.len() * 40
    }

    /// The frames of a journal of this state alone, in order.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames_after(Revision(0))
    }

    /// Frames that lead from `old` to this state. Removals come last: their own revisions are not known any more.
    pub fn frames_from(&self, old: &Self) -> Vec<Frame> {
        if old.version.incarnation != self.version.incarnation {
            return self.frames_replacing(old, Revision(0));
        }
        self.frames_replacing(old, old.version.revision)
    }

    fn frames_replacing(&self, old: &Self, after: Revision) -> Vec<Frame> {
        let mut frames = self.frames_after(after);
        let gone: BTreeSet<&Key> = old.records.keys().collect();
        let gone = gone
            .into_iter()
            .filter(|key| !self.records.contains_key(*key));
        let last = frames.last_mut().expect("the last frame is always there");
        last.changes.extend(gone.map(|key| (key.clone(), None)));
        frames
    }

    fn frames_after(&self, after: Revision) -> Vec<Frame> {
        let mut by_revision: BTreeMap<Revision, Vec<(Key, Option<Bytes>)>> = BTreeMap::new();
        for (key, (revision, value)) in &self.records {
            if *revision > after {
                let group = by_revision.entry(*revision).or_default();
                group.push((key.clone(), Some(value.clone())));
            }
        }
        by_revision.entry(self.version.revision).or_default();
        let incarnation = self.version.incarnation;
        let frame = |(revision, changes)| Frame {
            version: Version {
                incarnation,
                revision,
            },
            changes,
        };
        by_revision.into_iter().map(frame).collect()
    }

    /// The version of the next change.
    pub fn next_version(&self, incarnation: Incarnation) -> Version {
        Version {
            incarnation,
            revision: Revision(self.version.revision.0 + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> Key {
        Key::namespace(&format!("n{n}"))
    }

    fn frame(revision: u64, changes: &[(u8, Option<u8>)]) -> Frame {
        let change = |(n, value): &(u8, Option<u8>)| {
            (key(*n), value.map(|value| Bytes::from(vec![value; 3])))
        };
        Frame {
            version: Version::new(1, revision),
            changes: changes.iter().map(change).collect(),
        }
    }

    fn read(bytes: Vec<u8>) -> (Vec<Frame>, usize, End) {
        let mut frames = Vec::new();
        let (at, end) = read_frames(&bytes.into(), |frame| frames.push(frame));
        (frames, at, end)
    }

    #[test]
    fn a_journal_cut_anywhere_is_torn_and_keeps_what_was_whole() {
        let (one, two) = (frame(1, &[(1, Some(1)), (2, None)]), frame(2, &[(1, None)]));
        let bytes = [one.to_bytes(), two.to_bytes()].concat();
        assert_eq!(
            read(bytes.clone()),
            (vec![one.clone(), two], bytes.len(), End::Clean)
        );
        let whole = one.to_bytes().len();
        for length in whole + 1..bytes.len() {
            let cut = read(bytes[..length].to_vec());
            assert_eq!(cut, (vec![one.clone()], whole, End::Torn), "{length}");
        }
        let mut broken = bytes.clone();
        broken[whole - 1] ^= 1;
        assert_eq!(read(broken), (vec![], 0, End::Corrupt));
        let mut broken = bytes;
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(read(broken), (vec![one], whole, End::Torn));
    }

    proptest! {
        #[test]
        fn a_shortened_journal_leads_to_the_same_state(
            changes in proptest::collection::vec((0..8u8, proptest::option::of(any::<u8>())), 0..60),
            seen in 0..60usize,
        ) {
            let (mut live, mut replica) = (Live::default(), Live::default());
            for (n, change) in changes.iter().enumerate() {
                let frame = frame(n as u64 + 1, &[*change]);
                live.apply(&frame);
                if n < seen {
                    replica.apply(&frame);
                }
            }
            let mut again = Live::default();
            live.frames().iter().for_each(|frame| again.apply(frame));
            prop_assert_eq!(&again, &live);
            for frame in live.frames_from(&replica) {
                prop_assert!(frame.version.revision >= replica.version.revision);
                replica.apply(&frame);
            }
            prop_assert_eq!(&replica, &live);
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(bytes);
        }
    }
}
