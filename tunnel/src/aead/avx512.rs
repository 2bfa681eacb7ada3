//! Sixteen messages at a time in the registers of AVX-512.

mod bytes;
mod chacha20;
mod poly1305;
#[cfg(test)]
mod tests;

use super::{Message, TAG_LEN};
use bytes::{load_part, xor, xor_part};
use chacha20::Counters;
use core::arch::x86_64::{__m512i, _mm512_setzero_si512};
use poly1305::Texts;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// The proof that this CPU, and the kernel, have what this module is compiled for.
#[derive(Clone, Copy)]
pub(super) struct Cpu(());

impl Cpu {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma"))
        .then_some(Self(()))
    }
}

/// A key, in the words of ChaCha20's state.
pub(super) struct Key {
    words: Zeroizing<[u32; 8]>,
}

impl Key {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let mut words = Zeroizing::new([0; 8]);
        for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { words }
    }

    pub(super) fn seal(&self, _: Cpu, messages: &mut [Message<'_>]) {
        if messages.is_empty() {
            return;
        }
        #[expect(unsafe_code, reason = "instructions that not every CPU has")]
        // SAFETY: there is a `Cpu`, which is only made where they were detected.
        unsafe {
            seal(&self.words, messages);
        }
    }

    pub(super) fn open(
        &self,
        _: Cpu,
        messages: &mut [Message<'_>],
        opened: impl FnMut(usize, bool),
    ) {
        if messages.is_empty() {
            return;
        }
        #[expect(unsafe_code, reason = "instructions that not every CPU has")]
        // SAFETY: there is a `Cpu`, which is only made where they were detected.
        unsafe {
            open(&self.words, messages, opened);
        }
    }
}

/// Messages at a time: as many as have their tags computed at once.
pub(super) const GROUP: usize = poly1305::MOST;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn seal(key: &[u32; 8], messages: &mut [Message<'_>]) {
    let mut work = Work::new(key);
    for group in messages.chunks_mut(GROUP) {
        work.begin(group);
        work.apply(group, u32::MAX);
        let tags = work.tags(group);
        for (message, tag) in group.iter_mut().zip(tags) {
            if let Some(place) = message.bytes.last_chunk_mut::<TAG_LEN>() {
                *place = tag.to_le_bytes();
            }
        }
    }
    work.wipe();
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn open(key: &[u32; 8], messages: &mut [Message<'_>], mut opened: impl FnMut(usize, bool)) {
    let mut work = Work::new(key);
    let mut first = 0;
    for group in messages.chunks_mut(GROUP) {
        work.begin(group);
        for (last, message) in work.lasts.iter_mut().zip(&*group) {
            let (_, bytes) = split(text(message));
            *last = load_part(bytes);
        }
        let tags = work.tags(group);
        let mut good = 0;
        for (index, (message, tag)) in group.iter().zip(tags).enumerate() {
            let sent = message.bytes.last_chunk::<TAG_LEN>();
            let same = sent.is_some_and(|sent| u128::from_le_bytes(*sent).ct_eq(&tag).into());
            good |= u32::from(same) << index;
        }
        work.apply(group, good);
        for index in 0..group.len() {
            opened(first + index, good >> index & 1 == 1);
        }
        first += group.len();
    }
    work.wipe();
}

/// What is computed on the way.
struct Work<'a> {
    key: &'a [u32; 8],
    counters: Counters,
    /// Of each message of a group the block that its tag's key is in; then, from `tails` on, the
    /// block for the end of each text.
    begun: [__m512i; chacha20::MOST],
    tails: usize,
    /// The end of each text, sealed.
    lasts: [__m512i; GROUP],
}

impl<'a> Work<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(key: &'a [u32; 8]) -> Self {
        Self {
            key,
            counters: Counters::new(),
            begun: [_mm512_setzero_si512(); chacha20::MOST],
            tails: 0,
            lasts: [_mm512_setzero_si512(); GROUP],
        }
    }

    /// Computes the first block of each message of a group and its last one. Together they fill
    /// the registers, and short messages need no more.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn begin(&mut self, group: &[Message<'_>]) {
        self.tails = group.len().next_multiple_of(chacha20::LANES / 2);
        for (lane, message) in group.iter().enumerate() {
            let last = 1 + split(text(message)).0.len();
            self.counters.set(lane, 1, message.counter, 0);
            self.counters
                .set(self.tails + lane, 1, message.counter, last);
        }
        let begun = &mut self.begun;
        chacha20::keystream(self.key, &self.counters, 2 * self.tails, |lane, block| {
            begun[lane] = block;
        });
    }

    /// Adds the keystream to the texts of those messages whose bit is set.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn apply(&mut self, group: &mut [Message<'_>], wanted: u32) {
        let mut places = [const { None }; chacha20::MOST];
        let mut filled = 0;
        for (index, message) in group.iter_mut().enumerate() {
            if wanted >> index & 1 == 0 {
                continue;
            }
            let counter = message.counter;
            let (mut full, last) = split_mut(text_mut(message));
            self.lasts[index] = xor_part(last, self.begun[self.tails + index]);
            let mut block = 1;
            while !full.is_empty() {
                let count = full.len().min(chacha20::MOST - filled);
                let (now, later) = full.split_at_mut(count);
                self.counters.set(filled, count, counter, block);
                for (place, text) in places[filled..].iter_mut().zip(now) {
                    *place = Some(text);
                }
                full = later;
                block += count;
                filled += count;
                if filled == chacha20::MOST {
                    self.flush(&mut places, filled);
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            self.flush(&mut places, filled);
        }
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f")]
    fn flush(&mut self, places: &mut [Option<&mut [u8; 64]>; chacha20::MOST], filled: usize) {
        chacha20::keystream(self.key, &self.counters, filled, |lane, block| {
            if let Some(text) = places[lane].take() {
                xor(text, block);
            }
        });
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
    fn tags(&self, group: &[Message<'_>]) -> [u128; GROUP] {
        let (Some(key), Some(one)) = (self.begun.first_chunk(), group.first()) else {
            return [0; GROUP];
        };
        let mut texts = Texts {
            full: [split(text(one)).0; GROUP],
            last: &self.lasts,
            length: [text(one).len() as u64; GROUP],
            key,
        };
        for (lane, message) in group.iter().enumerate() {
            let text = text(message);
            texts.full[lane] = split(text).0;
            texts.length[lane] = text.len() as u64;
        }
        poly1305::tags(&texts, group.len())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn wipe(&mut self) {
        self.begun.zeroize();
        self.lasts.zeroize();
    }
}

/// All but the tag.
#[inline]
fn text<'a>(message: &'a Message<'_>) -> &'a [u8] {
    &message.bytes[..message.bytes.len().saturating_sub(TAG_LEN)]
}

#[inline]
fn text_mut<'a>(message: &'a mut Message<'_>) -> &'a mut [u8] {
    let length = message.bytes.len().saturating_sub(TAG_LEN);
    &mut message.bytes[..length]
}

/// Whole blocks, and the last one, which has 1 to 64 bytes, or none if there is no text.
#[inline]
fn split(text: &[u8]) -> (&[[u8; 64]], &[u8]) {
    let (full, last) = text.split_at(full(text));
    (full.as_chunks().0, last)
}

#[inline]
fn split_mut(text: &mut [u8]) -> (&mut [[u8; 64]], &mut [u8]) {
    let (full, last) = text.split_at_mut(full(text));
    (full.as_chunks_mut().0, last)
}

/// Bytes before the last block.
#[inline]
fn full(text: &[u8]) -> usize {
    text.len().saturating_sub(1) / 64 * 64
}
