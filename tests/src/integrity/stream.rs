//! Bytes that follow from a seed.

use std::fmt;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

/// Bytes made at a time. The generator drops what is left of a word, so it is only asked for whole blocks.
const BLOCK: usize = 1024;

/// An endless run of bytes: the key stream of ChaCha8, the same for the same seed and number, however it is cut.
pub struct Stream {
    random: ChaCha8Rng,
    block: [u8; BLOCK],
    used: usize,
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stream")
    }
}

impl Stream {
    /// Run `number` of a seed.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        Self {
            random,
            block: [0; BLOCK],
            used: BLOCK,
        }
    }

    /// Writes the next bytes.
    pub fn fill(&mut self, mut room: &mut [u8]) {
        while !room.is_empty() {
            let next = self.next(room.len());
            let (now, later) = room.split_at_mut(next.len());
            now.copy_from_slice(next);
            room = later;
        }
    }

    /// Where `got` first differs from the next bytes, if it does.
    pub fn differs(&mut self, got: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < got.len() {
            let next = self.next(got.len() - at);
            let same = &got[at..at + next.len()];
            if same != next {
                return same
                    .iter()
                    .zip(next)
                    .position(|(got, expected)| got != expected)
                    .map(|inside| at + inside);
            }
            at += next.len();
        }
        None
    }

    fn next(&mut self, most: usize) -> &[u8] {
        if self.used == BLOCK {
            self.random.fill_bytes(&mut self.block);
            self.used = 0;
        }
        let start = self.used;
        self.used = BLOCK.min(start + most);
        &self.block[start..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_is_the_same_however_it_is_cut_and_every_changed_byte_is_found() {
        let mut whole = vec![0; 5_000];
        Stream::new(7, 1).fill(&mut whole);
        let (mut cut, mut stream) = (vec![0; 5_000], Stream::new(7, 1));
        for piece in cut.chunks_mut(33) {
            stream.fill(piece);
        }
        assert_eq!(whole, cut);
        for at in [0, 1, 1023, 1024, 1025, 4_999] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let mut stream = Stream::new(7, 1);
            assert_eq!(stream.differs(&changed[..100]), (at < 100).then_some(at));
            if at >= 100 {
                assert_eq!(stream.differs(&changed[100..]), Some(at - 100));
            }
        }
        let mut other = vec![0; 5_000];
        Stream::new(7, 2).fill(&mut other);
        assert_ne!(whole, other);
    }
}
