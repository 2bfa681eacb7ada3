//! Puts the two halves of an overlay packet together, with bounded memory and time.
//!
//! A sender splits only IPv6 packets of up to 1,280 bytes that do not fit its path, and always in
//! two. So at most one half waits under an id, and whatever else looks like a fragment is refused.

use crate::reject::Reject;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Halves that wait at most, for each peer. 64 × 1.3 kB is what a burst of 64 packets leaves behind
/// when its halves cross.
const MAX_WAITING: usize = 64;

/// The longest datagram that is put together: an IPv6 packet of 1,280 bytes and its headers.
const MAX_DATAGRAM: usize = 1280 + crate::overlay::LEN;

/// How long a half waits. Both halves leave in one burst, so a second one this late is lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Halves of one peer's packets.
#[derive(Debug, Default)]
pub struct Reassembly {
    waiting: BTreeMap<u16, Half>,
}

#[derive(Debug)]
struct Half {
    since: Instant,
    offset: usize,
    last: bool,
    data: Vec<u8>,
}

/// One fragment as it came.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// What both halves share.
    pub id: u16,
    /// Where the data belongs, in bytes.
    pub offset: usize,
    /// Whether it is the last.
    pub last: bool,
    /// The data.
    pub data: &'a [u8],
}

impl Reassembly {
    /// Takes a fragment; returns the whole datagram when it was the second half. `expired` is told
    /// how many halves were given up to make room or because their time was over.
    pub fn handle_fragment(
        &mut self,
        piece: Piece<'_>,
        now: Instant,
        expired: &mut dyn FnMut(),
    ) -> Result<Option<Vec<u8>>, Reject> {
        let first = piece.offset == 0 && !piece.last && piece.data.len().is_multiple_of(8);
        let second = piece.offset > 0 && piece.last;
        if !(first || second)
            || piece.data.is_empty()
            || piece.offset + piece.data.len() > MAX_DATAGRAM
        {
            return Err(Reject::OverlayFragment);
        }
        if let Some(half) = self.waiting.remove(&piece.id) {
            if half.last != piece.last {
                let (head, offset, tail) = match piece.last {
                    true => (half.data.as_slice(), piece.offset, piece.data),
                    false => (piece.data, half.offset, half.data.as_slice()),
                };
                if head.len() != offset {
                    return Err(Reject::OverlayFragment);
                }
                return Ok(Some([head, tail].concat()));
            }
            expired(); // The id came round again before the other half did.
        }
        self.handle_timeout(now, expired);
        if self.waiting.len() >= MAX_WAITING {
            let oldest = self
                .waiting
                .iter()
                .min_by_key(|(_, half)| half.since)
                .map(|(&id, _)| id);
            oldest.and_then(|id| self.waiting.remove(&id));
            expired();
        }
        let half = Half {
            since: now,
            offset: piece.offset,
            last: piece.last,
            data: piece.data.to_vec(),
        };
        self.waiting.insert(piece.id, half);
        Ok(None)
    }

    /// Whether no half waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives up the halves that waited too long.
    pub fn handle_timeout(&mut self, now: Instant, expired: &mut dyn FnMut()) {
        self.waiting.retain(|_, half| {
            let keep = now.saturating_duration_since(half.since) < TIMEOUT;
            if !keep {
                expired();
            }
            keep
        });
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test starts its own time somewhere"
)]
mod tests {
    use super::*;

    fn piece(id: u16, offset: usize, last: bool, data: &[u8]) -> Piece<'_> {
        Piece {
            id,
            offset,
            last,
            data,
        }
    }

    #[test]
    fn halves_meet_in_either_order() {
        let now = Instant::now();
        let mut halves = Reassembly::default();
        let mut lost = || panic!("nothing expires here");
        for (one, two) in [
            (piece(1, 0, false, &[1; 8]), piece(1, 8, true, &[2; 3])),
            (piece(2, 8, true, &[2; 3]), piece(2, 0, false, &[1; 8])),
        ] {
            assert_eq!(halves.handle_fragment(one, now, &mut lost), Ok(None));
            assert_eq!(
                halves.handle_fragment(two, now, &mut lost),
                Ok(Some(vec![1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]))
            );
        }
        assert!(halves.waiting.is_empty());
    }

    #[test]
    fn what_no_sender_of_ours_makes_is_refused() {
        let now = Instant::now();
        let mut halves = Reassembly::default();
        let mut refuse = |piece| {
            assert_eq!(
                halves.handle_fragment(piece, now, &mut || ()),
                Err(Reject::OverlayFragment)
            )
        };
        refuse(piece(1, 8, false, &[0; 8])); // a middle
        refuse(piece(1, 0, false, &[0; 9])); // not in units of eight
        refuse(piece(1, 8, true, &[])); // nothing
        refuse(piece(1, 1328, true, &[0; 8])); // too long
        assert_eq!(
            halves.handle_fragment(piece(1, 0, false, &[0; 16]), now, &mut || ()),
            Ok(None)
        );
        assert_eq!(
            halves.handle_fragment(piece(1, 8, true, &[0; 8]), now, &mut || ()),
            Err(Reject::OverlayFragment),
            "overlap"
        );
    }

    #[test]
    fn memory_and_time_are_bounded() {
        let start = Instant::now();
        let mut halves = Reassembly::default();
        let mut lost = 0;
        for id in 0..200 {
            let half = piece(id, 0, false, &[0; 8]);
            assert_eq!(
                halves.handle_fragment(half, start, &mut || lost += 1),
                Ok(None)
            );
        }
        assert_eq!(
            (halves.waiting.len(), lost),
            (MAX_WAITING, 200 - MAX_WAITING)
        );
        halves.handle_timeout(start + TIMEOUT, &mut || lost += 1);
        assert_eq!((halves.waiting.len(), lost), (0, 200));
    }
}
