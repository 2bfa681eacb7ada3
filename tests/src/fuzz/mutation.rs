//! Inputs that nobody wrote: the corpus, and changes of it drawn from a seed.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

use super::corpus::{Corpus, MAX_INPUT};

/// Numbers at which lengths, counters and ranges end.
const EDGES: [u64; 22] = [
    0,
    1,
    7,
    8,
    0x0f,
    0x14,
    0x1f,
    0x28,
    0x3f,
    0x7f,
    0x80,
    0xff,
    0x1fff,
    0x2000,
    0x7fff,
    0x8000,
    0xffff,
    0x17c1,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX - (1 << 13),
    u64::MAX,
];

/// Pieces of text that a reader of JSON treats in a way of their own.
const WORDS: [&[u8]; 16] = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"\"\"",
    b"\"\\u0000\"",
    b"\\ud800",
    b"::/0",
    b"0.0.0.0/0",
    b"/33",
    b",",
    b"[[[[[[[[",
];

/// Input number `run` of a seed: the corpus in its order first, then mutations. It depends on nothing else, so that
/// a run can be repeated alone.
pub(super) fn input(corpus: &Corpus, seed: u64, run: u64) -> Vec<u8> {
    let inputs = corpus.inputs();
    if let Some(input) = usize::try_from(run).ok().and_then(|at| inputs.get(at)) {
        return input.clone();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(run);
    let mut draw = Draw(rng);
    let mut bytes = match draw.below(8) {
        0 => draw.noise(512),
        _ if inputs.is_empty() => draw.noise(512),
        _ => inputs[draw.below(inputs.len())].clone(),
    };
    // Mostly few changes, so that deep states are kept; sometimes many.
    let most = [1, 2, 4, 16][draw.below(4)];
    for _ in 0..=draw.below(most) {
        draw.change(&mut bytes, inputs);
    }
    bytes.truncate(MAX_INPUT);
    bytes
}

struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(1);
        usize::try_from(self.0.next_u64() % bound).unwrap_or_default()
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    fn span(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len());
        let most = (bytes.len() - start).min(64);
        start..start + self.below(most + 1)
    }

    /// Writes the low bytes of a number, in either order.
    fn write(&mut self, bytes: &mut [u8], at: usize, value: u64) {
        let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
        let little = value.to_le_bytes();
        let field = &mut bytes[at..at + width];
        field.copy_from_slice(&little[..width]);
        if self.below(2) == 0 {
            field.reverse();
        }
    }

    fn change(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        if bytes.is_empty() {
            bytes.extend(self.noise(64));
            return;
        }
        let at = self.below(bytes.len());
        match self.below(12) {
            0 | 1 => bytes[at] ^= 1 << self.below(8),
            2 => bytes[at] = self.noise(2).first().copied().unwrap_or_default(),
            3 => {
                let value = EDGES[self.below(EDGES.len())];
                self.write(bytes, at, value);
            }
            // A length of what follows, or nearly so.
            4 => {
                let rest = bytes.len() - at + self.below(9);
                self.write(
                    bytes,
                    at,
                    u64::try_from(rest.saturating_sub(4)).unwrap_or(0),
                );
            }
            5 => bytes[at] = bytes[at].wrapping_add([1, 255, 16, 240][self.below(4)]),
            6 => drop(bytes.drain(self.span(bytes))),
            7 => {
                let noise = self.noise(32);
                drop(bytes.splice(at..at, noise));
            }
            8 => {
                let copy = bytes[self.span(bytes)].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            9 => {
                let copy = bytes[self.span(bytes)].to_vec();
                let end = (at + copy.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&copy[..end - at]);
            }
            10 => {
                if let Some(other) = inputs.get(self.below(inputs.len())) {
                    bytes.truncate(at);
                    bytes.extend(&other[self.below(other.len())..]);
                }
            }
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                let end = (at + self.below(word.len() + 1)).min(bytes.len());
                drop(bytes.splice(at..end, word.iter().copied()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_in_any_order_and_another_seed_others() {
        let corpus = Corpus::of(vec![b"one of two".to_vec(), b"{\"two\":2}".to_vec()]);
        let forwards: Vec<_> = (0..500).map(|run| input(&corpus, 7, run)).collect();
        let backwards: Vec<_> = (0..500).rev().map(|run| input(&corpus, 7, run)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert_eq!(forwards[0], b"one of two");
        assert_ne!(forwards[3], input(&corpus, 8, 3));
        let different: std::collections::BTreeSet<_> = forwards.iter().collect();
        assert!(different.len() > 450, "only {} inputs", different.len());
    }

    #[test]
    fn no_input_is_longer_than_the_limit() {
        let corpus = Corpus::of(vec![vec![7; MAX_INPUT]]);
        assert!((0..2_000).all(|run| input(&corpus, 1, run).len() <= MAX_INPUT));
    }
}
