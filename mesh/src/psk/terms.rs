//! What the keys of one session are bound to, and how they are derived.

use hawser_tunnel::key::{PresharedKey, PublicKey};
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Labels that nobody registered begin so (RFC 5705, section 4).
const KEY: &[u8] = b"EXPERIMENTAL hawser pre-shared key";
const CONFIRMATION: &[u8] = b"EXPERIMENTAL hawser confirmation";

/// Derives secrets of a session that both its ends can derive, and nobody else.
pub trait Exporter {
    /// Fills `secret` with what belongs to a label and a context.
    ///
    /// # Errors
    /// The session is gone.
    fn export(
        &self,
        label: &[u8],
        context: &[u8],
        secret: &mut [u8; 32],
    ) -> Result<(), ExporterFailed>;
}

/// A session derives nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session derives no key")]
pub struct ExporterFailed;

/// Which end of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It opened it.
    Client,
    /// It was dialled.
    Server,
}

/// The pre-shared keys of two nodes: one for each lane of the one with fewer lanes. Wiped when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Vec<PresharedKey>);

impl Keys {
    /// Takes those that are in force, in the order of a peer's lanes; `None`: a lane has none.
    pub fn of_lanes<'a>(lanes: impl Iterator<Item = Option<&'a PresharedKey>>) -> Option<Self> {
        let keys: Option<Vec<PresharedKey>> = lanes.map(Option::<&_>::cloned).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self)
    }

    /// The key of the pairs of a peer's lane. Lanes begin anew where a side has fewer, so all pairs with lanes of one
    /// remainder are of one key: each side knows the other's lanes, and not which of its own a packet took.
    pub fn of_lane(&self, lane: usize) -> Option<&PresharedKey> {
        self.0.get(lane % self.0.len().max(1))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} redacted)", self.0.len())
    }
}

/// What both ends of a session must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Grows with each exchange of the two nodes.
    pub epoch: u64,
    /// The newest WireGuard keys of the node that opened the session, by its lanes; at least one.
    pub client: Vec<PublicKey>,
    /// Those of the other.
    pub server: Vec<PublicKey>,
}

impl Terms {
    /// Derives the keys.
    ///
    /// # Errors
    /// The session is gone.
    pub fn keys(&self, exporter: &impl Exporter) -> Result<Keys, ExporterFailed> {
        let pairs = self.client.iter().zip(&self.server);
        let keys = (0u16..).zip(pairs).map(|(lane, (client, server))| {
            let mut context = Vec::with_capacity(74);
            context.extend_from_slice(client.min(server).as_bytes());
            context.extend_from_slice(client.max(server).as_bytes());
            context.extend_from_slice(&lane.to_be_bytes());
            context.extend_from_slice(&self.epoch.to_be_bytes());
            let mut secret = Zeroizing::new([0; 32]);
            exporter.export(KEY, &context, &mut secret)?;
            Ok(PresharedKey::new(&secret))
        });
        keys.collect::<Result<_, _>>().map(Keys)
    }

    /// What one side shows the other: it has the same session and the same terms, so the same keys, of which this tells
    /// nothing.
    ///
    /// # Errors
    /// The session is gone.
    pub fn confirmation(
        &self,
        exporter: &impl Exporter,
        side: Side,
    ) -> Result<[u8; 32], ExporterFailed> {
        let mut context = vec![match side {
            Side::Client => 0,
            Side::Server => 1,
        }];
        context.extend_from_slice(&self.epoch.to_be_bytes());
        for keys in [&self.client, &self.server] {
            // No side has as many.
            let count = u16::try_from(keys.len()).unwrap_or(u16::MAX);
            context.extend_from_slice(&count.to_be_bytes());
            keys.iter()
                .for_each(|key| context.extend_from_slice(key.as_bytes()));
        }
        let mut shown = [0; 32];
        exporter.export(CONFIRMATION, &context, &mut shown)?;
        Ok(shown)
    }

    /// Whether the other side has shown that.
    ///
    /// # Errors
    /// The session is gone.
    pub fn confirms(
        &self,
        exporter: &impl Exporter,
        side: Side,
        shown: &[u8; 32],
    ) -> Result<bool, ExporterFailed> {
        let right = self.confirmation(exporter, side)?;
        Ok(right.ct_eq(shown).into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use blake2::{Blake2s256, Digest as _};

    /// A session's secret, and what it derives.
    pub(in crate::psk) struct Session(pub(in crate::psk) u8);

    impl Exporter for Session {
        fn export(
            &self,
            label: &[u8],
            context: &[u8],
            secret: &mut [u8; 32],
        ) -> Result<(), ExporterFailed> {
            let mut hash = Blake2s256::new();
            for part in [&[self.0][..], label, &[0], context] {
                hash.update(part);
            }
            *secret = hash.finalize().into();
            Ok(())
        }
    }

    fn keys(bytes: &[u8]) -> Vec<PublicKey> {
        bytes
            .iter()
            .map(|&byte| PublicKey::new([byte; 32]))
            .collect()
    }

    fn terms(epoch: u64, client: &[u8], server: &[u8]) -> Terms {
        Terms {
            epoch,
            client: keys(client),
            server: keys(server),
        }
    }

    #[test]
    fn keys_are_those_of_the_session_the_pair_the_lane_and_the_epoch() {
        let right = terms(7, &[1, 2], &[5, 6]).keys(&Session(1)).unwrap();
        assert_eq!(right, terms(7, &[1, 2], &[5, 6]).keys(&Session(1)).unwrap());
        // Whoever opened it.
        assert_eq!(right, terms(7, &[5, 6], &[1, 2]).keys(&Session(1)).unwrap());
        assert_ne!(right.of_lane(0), right.of_lane(1));
        for (session, other) in [
            (2, terms(7, &[1, 2], &[5, 6])),
            (1, terms(8, &[1, 2], &[5, 6])),
            (1, terms(7, &[1, 2], &[5, 7])),
            (1, terms(7, &[2, 1], &[5, 6])),
        ] {
            let other = other.keys(&Session(session)).unwrap();
            assert_ne!(right.of_lane(1), other.of_lane(1));
        }
        // The same two WireGuard keys on another lane.
        let moved = terms(7, &[9, 1], &[9, 5]).keys(&Session(1)).unwrap();
        assert_ne!(right.of_lane(0), moved.of_lane(1));
    }

    #[test]
    fn both_ends_have_one_key_for_each_pair_of_lanes_whatever_their_numbers() {
        for (ours, theirs) in [(1, 1), (1, 16), (2, 3), (3, 2), (5, 16), (16, 16)] {
            let numbers = |count: u8, from: u8| (0..count).map(|at| from + at).collect::<Vec<_>>();
            let terms = terms(1, &numbers(ours, 0), &numbers(theirs, 100));
            let keys = terms.keys(&Session(3)).unwrap();
            for pair in 0..ours.max(theirs) {
                // What each end's state says of the other's lane.
                let (own, peer) = (usize::from(pair % ours), usize::from(pair % theirs));
                assert_eq!(
                    keys.of_lane(peer),
                    keys.of_lane(own),
                    "{ours} {theirs} {pair}"
                );
            }
        }
    }

    #[test]
    fn a_confirmation_tells_terms_and_side_apart_and_nothing_of_a_key() {
        let terms_ = terms(7, &[1], &[5, 6]);
        let shown = terms_.confirmation(&Session(1), Side::Client).unwrap();
        assert!(terms_.confirms(&Session(1), Side::Client, &shown).unwrap());
        assert!(!terms_.confirms(&Session(1), Side::Server, &shown).unwrap());
        for (session, other) in [
            (2, terms(7, &[1], &[5, 6])),
            (1, terms(6, &[1], &[5, 6])),
            (1, terms(7, &[1, 5], &[6])),
            (1, terms(7, &[5], &[1, 6])),
        ] {
            let confirmed = other.confirms(&Session(session), Side::Client, &shown);
            assert!(!confirmed.unwrap());
        }
        let keys = terms_.keys(&Session(1)).unwrap();
        assert_ne!(keys.of_lane(0), Some(&PresharedKey::new(&shown)));
    }

    #[test]
    fn keys_do_not_print() {
        let keys = terms(7, &[1], &[5]).keys(&Session(1)).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(1 redacted)");
    }
}
