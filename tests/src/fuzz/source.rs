//! Reads structured values out of an input, so that mutations of it reach deep states.

use arbitrary::{Arbitrary, Unstructured};

/// An input that is read from its start. Past its end everything is zero.
pub(super) struct Source<'a>(Unstructured<'a>);

impl<'a> Source<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self(Unstructured::new(input))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number of any kind.
    pub(super) fn any<T: Arbitrary<'a> + Default>(&mut self) -> T {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.any::<u16>()) % bound.max(1)
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: u8) -> bool {
        self.any::<u8>() % times == times - 1
    }

    /// One of several; all zeros give the first.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.any::<u8>()) % of.len()]
    }

    /// Bytes with a length in front, `most` of them at most.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = self.below(most + 1).min(self.0.len());
        self.0.bytes(length).unwrap_or_default()
    }

    /// `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_buffer(&mut bytes).ok();
        bytes
    }

    /// What is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// `length` bytes that tell where they stand: what is moved, lost or doubled shows.
    pub(super) fn pattern(&mut self, length: usize) -> Vec<u8> {
        let first: u8 = self.any();
        (0..length)
            .map(|at| first.wrapping_add(at.to_le_bytes()[0]) ^ at.to_le_bytes()[1])
            .collect()
    }
}
