//! Halves of overlay packets in any order, at any time, beside a slow and obvious model.

use std::time::{Duration, Instant};

use hawser_tunnel::reassembly::{Piece, Reassembly};
use hawser_tunnel::reject::Reject;

use super::source::Source;

/// What memory and time are bounded by, as the module says of itself.
const MOST_WAITING: usize = 64;
const LONGEST: usize = 1280 + 48;
const PATIENCE: Duration = Duration::from_secs(1);

/// Target: any fragments. A datagram is made of two halves that fit and of nothing else; halves are few.
pub(super) fn halves(input: &[u8]) {
    let mut source = Source::new(input);
    let mut reassembly = Reassembly::default();
    let mut model = Model::default();
    let mut now = Instant::now();
    for _ in 0..64 {
        if source.is_empty() {
            break;
        }
        now += Duration::from_millis(source.pick(&[0, 1, 300, 1000]));
        let (offset, last) = match source.pick(&[0, 1, 0, 1, 2, 3]) {
            0 => (0, false),
            1 => (source.pick(&[8, 16, 24, 1232, 65528]), true),
            2 => (0, true),
            _ => (8, false),
        };
        let length = source.pick(&[8, 16, 24, 1232, 7, 1320, 0]);
        // Sometimes more ids than are kept.
        let ids = source.pick(&[1, 1, 1, 1, 1, 80]);
        let first = source.pick(&[0_u16, 1, 2, 0xfff0]);
        for more in 0..ids {
            let data = source.pattern(length);
            let id = first.wrapping_add(more);
            let piece = Piece {
                id,
                offset,
                last,
                data: &data,
            };
            let mut expired = 0;
            let taken = reassembly.handle_fragment(piece, now, &mut || expired += 1);
            assert_eq!((taken, expired), model.take(piece, now));
        }
        if source.once_in(8) {
            let mut expired = 0;
            reassembly.handle_timeout(now, &mut || expired += 1);
            assert_eq!(expired, model.expire(now));
        }
        assert_eq!(reassembly.is_empty(), model.0.is_empty());
        assert!(model.0.len() <= MOST_WAITING);
    }
}

/// Halves that wait, in the order in which they came.
#[derive(Default)]
struct Model(Vec<(Instant, u16, usize, bool, Vec<u8>)>);

impl Model {
    fn expire(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        self.0.retain(|(since, ..)| now - *since < PATIENCE);
        before - self.0.len()
    }

    /// What becomes of a fragment, and how many others are given up for it.
    fn take(&mut self, piece: Piece<'_>, now: Instant) -> (Result<Option<Vec<u8>>, Reject>, usize) {
        let Piece {
            id,
            offset,
            last,
            data,
        } = piece;
        let half = if last {
            offset > 0
        } else {
            offset == 0 && data.len() % 8 == 0
        };
        if !half || data.is_empty() || offset + data.len() > LONGEST {
            return (Err(Reject::OverlayFragment), 0);
        }
        let mut given_up = 0;
        if let Some(at) = self.0.iter().position(|(_, waiting, ..)| *waiting == id) {
            let (_, _, other_offset, other_last, other) = self.0.remove(at);
            if other_last != last {
                let (head, at, tail) = match last {
                    true => (other, offset, data.to_vec()),
                    false => (data.to_vec(), other_offset, other),
                };
                let fits = head.len() == at;
                let whole = fits.then(|| Some([head, tail].concat()));
                return (whole.ok_or(Reject::OverlayFragment), 0);
            }
            given_up += 1;
        }
        given_up += self.expire(now);
        if self.0.len() == MOST_WAITING {
            let oldest = self
                .0
                .iter()
                .enumerate()
                .min_by_key(|(_, half)| (half.0, half.1));
            let at = oldest.map_or(0, |(at, _)| at);
            self.0.remove(at);
            given_up += 1;
        }
        self.0.push((now, id, offset, last, data.to_vec()));
        (Ok(None), given_up)
    }
}
