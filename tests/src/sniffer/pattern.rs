//! Finds a run of a repeated payload in a frame.

/// The shortest run that counts as a leak, in bytes.
const RUN: usize = 16;
/// A run of this length that starts on a multiple of eight lies inside every longer run of 15 bytes or more.
const WORD: usize = 8;

/// A payload that repeats a short byte string. Any 16 bytes of it are found, wherever they start.
#[derive(Clone, Debug)]
pub struct Pattern {
    period: Vec<u8>,
    /// The eight bytes that follow each position of the period, with that position.
    words: Vec<(u64, usize)>,
    /// Which first bytes such words have: rules out nearly everything of a random frame.
    first: [bool; 256],
}

impl Pattern {
    /// A payload that repeats `period`.
    ///
    /// # Panics
    /// When `period` is empty.
    #[must_use]
    pub fn new(period: &[u8]) -> Self {
        assert!(!period.is_empty(), "a payload has bytes");
        let at = |position: usize| period[position % period.len()];
        let words = (0..period.len()).map(|start| {
            (
                word(std::array::from_fn(|offset| at(start + offset))),
                start,
            )
        });
        let mut first = [false; 256];
        for byte in period {
            first[usize::from(*byte)] = true;
        }
        Self {
            period: period.to_vec(),
            words: words.collect(),
            first,
        }
    }

    /// Whether `bytes` hold a run of at least 16 bytes of the payload.
    #[must_use]
    pub fn occurs_in(&self, bytes: &[u8]) -> bool {
        bytes.chunks_exact(WORD).enumerate().any(|(index, chunk)| {
            if !self.first[usize::from(chunk[0])] {
                return false;
            }
            let mut here = [0; WORD];
            here.copy_from_slice(chunk);
            let here = word(here);
            let starts = self.words.iter().filter(|(word, _)| *word == here);
            starts
                .map(|(_, start)| self.run_around(bytes, index * WORD, *start))
                .any(|length| length >= RUN)
        })
    }

    /// Length of the run through `offset`, where the payload is at position `start` of its period.
    fn run_around(&self, bytes: &[u8], offset: usize, start: usize) -> usize {
        let length = self.period.len();
        let ahead = bytes[offset..]
            .iter()
            .zip(self.period.iter().cycle().skip(start));
        let ahead = ahead.take_while(|(left, right)| left == right).count();
        let behind = bytes[..offset]
            .iter()
            .rev()
            .zip(self.period.iter().rev().cycle().skip(length - start));
        ahead + behind.take_while(|(left, right)| left == right).count()
    }
}

const fn word(bytes: [u8; WORD]) -> u64 {
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_sixteen_bytes_are_found_wherever_they_start_and_lie() {
        for period in [&b"canary-of-16byte"[..], b"0123456789"] {
            let pattern = Pattern::new(period);
            for start in 0..period.len() {
                for before in 0..24 {
                    let run: Vec<u8> = period
                        .iter()
                        .copied()
                        .cycle()
                        .skip(start)
                        .take(16)
                        .collect();
                    let mut frame = vec![0xee; before];
                    frame.extend(&run);
                    frame.extend([0xee; 9]);
                    assert!(pattern.occurs_in(&frame), "start {start}, before {before}");
                    // One byte less is no run.
                    frame.truncate(before + 15);
                    frame.extend([0xee; 20]);
                    assert!(!pattern.occurs_in(&frame), "start {start}, before {before}");
                }
            }
        }
    }

    #[test]
    fn short_frames_hold_nothing() {
        assert!(!Pattern::new(b"0123456789").occurs_in(b"012345678901234"));
        assert!(!Pattern::new(b"0123456789").occurs_in(b""));
    }
}
