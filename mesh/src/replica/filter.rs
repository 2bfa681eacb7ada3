//! What a subscriber wants: beginnings of keys.

use crate::record::{Key, Kind, Prefix};
use bytes::Bytes;
use std::sync::Arc;

/// The most prefixes in one filter. An agent has one for each kind, for each service that it imports and for each
/// identity that its policies select.
pub const MAX_PREFIXES: usize = 8192;

/// The most bytes of all prefixes of a filter: with it, a subscription fits in a message.
pub(super) const MAX_PREFIX_BYTES: usize = 512 << 10;

/// Sorted prefixes, none under another. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Arc<[Prefix]>);

impl Filter {
    /// Everything under any of these. Too many for one subscription are made fewer: then all endpoints of services, or of
    /// identities, are wanted.
    pub fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut prefixes = normalised(prefixes.into_iter().collect());
        let bytes = |all: &[Prefix]| all.iter().map(|p| p.as_bytes().len()).sum::<usize>();
        if prefixes.len() > MAX_PREFIXES || bytes(&prefixes) > MAX_PREFIX_BYTES {
            prefixes = normalised(prefixes.iter().map(widened).collect());
        }
        Self(prefixes.into())
    }

    /// All that another cluster may have.
    pub fn public() -> Self {
        let kinds = Kind::ALL.into_iter().filter(|kind| !kind.is_private());
        Self::new(kinds.map(Prefix::kind))
    }

    /// Its prefixes, sorted.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.0
    }

    /// Whether a record with this key is wanted.
    pub fn covers(&self, key: &Key) -> bool {
        self.covers_bytes(key.as_bytes())
    }

    /// Whether this one wants all that `other` wants.
    pub fn includes(&self, other: &Self) -> bool {
        let covered = |prefix: &Prefix| self.covers_bytes(prefix.as_bytes());
        other.0.iter().all(covered)
    }

    pub(super) fn covers_bytes(&self, key: &[u8]) -> bool {
        let behind = self
            .0
            .partition_point(|prefix| &prefix.as_bytes()[..] <= key);
        behind > 0 && key.starts_with(self.0[behind - 1].as_bytes())
    }

    pub(super) fn to_wire(&self) -> Vec<Bytes> {
        self.0
            .iter()
            .map(|prefix| prefix.as_bytes().clone())
            .collect()
    }
}

impl FromIterator<Prefix> for Filter {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        Self::new(prefixes)
    }
}

fn normalised(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    prefixes.sort_unstable();
    // What is under a prefix comes right behind it.
    prefixes.dedup_by(|next, kept| next.as_bytes().starts_with(kept.as_bytes()));
    prefixes
}

fn widened(prefix: &Prefix) -> Prefix {
    let bytes = prefix.as_bytes();
    if bytes[0] == Kind::Endpoint as u8 && bytes.len() > 2 {
        Prefix::parse(bytes.slice(..2)).expect("two bytes are a prefix")
    } else {
        prefix.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(bytes: &'static [u8]) -> Prefix {
        Prefix::parse(Bytes::from_static(bytes)).unwrap()
    }

    fn key(bytes: &'static [u8]) -> Key {
        Key::parse(Bytes::from_static(bytes)).unwrap()
    }

    #[test]
    fn a_prefix_under_another_is_left_out() {
        let filter = Filter::new([b"bc", b"b\0", b"ab", b"bc"].map(|p| prefix(p)));
        let filter = Filter::new(filter.prefixes().iter().cloned().chain([prefix(b"b")]));
        assert_eq!(filter.prefixes(), [prefix(b"ab"), prefix(b"b")]);
        assert!(filter.covers(&key(b"b")) && filter.covers(&key(b"bzz")));
        assert!(!filter.covers(&key(b"a")) && !filter.covers(&key(b"ac")));
        assert!(!filter.covers(&key(b"c")) && !Filter::default().covers(&key(b"c")));
    }

    #[test]
    fn a_filter_includes_what_is_narrower() {
        let wide = Filter::new([prefix(b"a"), prefix(b"b")]);
        let narrow = Filter::new([prefix(b"ax"), prefix(b"b")]);
        assert!(wide.includes(&narrow) && !narrow.includes(&wide) && wide.includes(&wide));
    }

    #[test]
    fn too_many_endpoints_become_all_endpoints() {
        let many = (0..10_000u32).map(|n| {
            let bytes = [&[4, b'i'][..], &n.to_be_bytes()].concat();
            Prefix::parse(bytes.into()).unwrap()
        });
        let filter = Filter::new(many.chain([Prefix::kind(Kind::Node)]));
        assert_eq!(filter.prefixes(), [prefix(b"\x01"), prefix(b"\x04i")]);
    }
}
