//! Sums over records, which tell whether two replicas have the same.

use crate::wire::BUCKETS;
use blake2::{Blake2s256, Digest as _};
use bytes::Bytes;

/// How many records there are, and the sum of their hashes. Equal digests mean equal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Of the hashes, wrapping.
    pub sum: u128,
    /// How many.
    pub count: u64,
}

impl Digest {
    /// As on the wire.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.sum.to_be_bytes())
    }

    pub(super) fn add(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.count += 1;
    }

    pub(super) fn take(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_sub(hash);
        self.count -= 1;
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            sum: self.sum.wrapping_add(other.sum),
            count: self.count + other.count,
        }
    }
}

/// The hash of a record. The key's length comes first, so that no byte can move from the key to the value.
pub(super) fn record_hash(key: &[u8], value: &[u8]) -> u128 {
    let length = u32::try_from(key.len()).expect("a key has at most 512 bytes");
    let hash = Blake2s256::new()
        .chain_update(length.to_be_bytes())
        .chain_update(key)
        .chain_update(value)
        .finalize();
    let half = hash.first_chunk().expect("BLAKE2s-256 has 32 bytes");
    u128::from_be_bytes(*half)
}

/// The bucket of a key: the same whatever its value.
pub(super) fn bucket_of(key: &[u8]) -> u8 {
    Blake2s256::digest(key)[0]
}

/// The sum of each bucket.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Buckets(Box<[u128; BUCKETS]>);

impl Buckets {
    pub(super) fn new() -> Self {
        Self(Box::new([0; BUCKETS]))
    }

    pub(super) fn add(&mut self, bucket: u8, hash: u128) {
        let sum = &mut self.0[usize::from(bucket)];
        *sum = sum.wrapping_add(hash);
    }

    /// As on the wire.
    pub(super) fn to_bytes(&self) -> Bytes {
        let sums = self.0.iter().flat_map(|sum| sum.to_be_bytes());
        sums.collect::<Vec<u8>>().into()
    }

    /// From the wire; `None`: it is not as long as it must be.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<16>();
        if chunks.len() != BUCKETS || !rest.is_empty() {
            return None;
        }
        let mut buckets = Self::new();
        for (sum, chunk) in buckets.0.iter_mut().zip(chunks) {
            *sum = u128::from_be_bytes(*chunk);
        }
        Some(buckets)
    }

    /// Where two differ.
    pub(super) fn differing(&self, other: &Self) -> BucketSet {
        let mut set = BucketSet::default();
        for (bucket, (ours, theirs)) in (0..=u8::MAX).zip(self.0.iter().zip(other.0.iter())) {
            if ours != theirs {
                set.insert(bucket);
            }
        }
        set
    }
}

/// Some of the buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BucketSet([u8; BUCKETS / 8]);

impl BucketSet {
    pub(super) fn insert(&mut self, bucket: u8) {
        self.0[usize::from(bucket / 8)] |= 1 << (bucket % 8);
    }

    pub(super) fn contains(&self, bucket: u8) -> bool {
        self.0[usize::from(bucket / 8)] & (1 << (bucket % 8)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// As on the wire: nothing for none.
    pub(super) fn to_bytes(&self) -> Bytes {
        if self.is_empty() {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(&self.0)
        }
    }

    /// From the wire; `None`: it has another length.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        bytes.try_into().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_moves_from_the_key_to_the_value() {
        assert_ne!(record_hash(b"ab", b"c"), record_hash(b"a", b"bc"));
        assert_eq!(record_hash(b"ab", b"c"), record_hash(b"ab", b"c"));
    }

    #[test]
    fn buckets_differ_where_a_record_does() {
        let (mut ours, mut theirs) = (Buckets::new(), Buckets::new());
        ours.add(200, 7);
        theirs.add(200, 8);
        theirs.add(3, 1);
        ours.add(3, 1);
        let set = ours.differing(&theirs);
        assert!(set.contains(200) && !set.contains(3) && !set.is_empty());
        assert_eq!(BucketSet::parse(&set.to_bytes()), Some(set));
        assert!(Buckets::parse(&ours.to_bytes()).unwrap() == ours);
        assert!(Buckets::parse(&ours.to_bytes()[1..]).is_none());
    }
}
