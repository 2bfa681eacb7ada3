//! ChaCha20 blocks (RFC 8439, section 2.3), sixteen in the lanes of a register.
//!
//! A register holds one word of the state for sixteen blocks. Which block of which message a lane
//! computes is free: it shows only in the last four words.

use super::bytes::load_words;
use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};

/// Blocks in one register.
pub(super) const LANES: usize = 16;
/// As many blocks as fill the registers: two times sixteen words.
pub(super) const MOST: usize = 2 * LANES;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Which block each lane computes.
pub(super) struct Counters {
    block: [[u32; LANES]; 2],
    low: [[u32; LANES]; 2],
    high: [[u32; LANES]; 2],
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            block: [[0; LANES]; 2],
            low: [[0; LANES]; 2],
            high: [[0; LANES]; 2],
        }
    }

    /// Lane `lane` computes block `block` of message `counter`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    pub(super) fn set(&mut self, lane: usize, counter: u64, block: u32) {
        self.block.as_flattened_mut()[lane] = block;
        self.low.as_flattened_mut()[lane] = counter as u32;
        self.high.as_flattened_mut()[lane] = (counter >> 32) as u32;
    }
}

/// The keystream of the first `lanes` lanes, a block in each register; more may be written.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn keystream(
    key: &[u32; 8],
    counters: &Counters,
    lanes: usize,
    blocks: &mut [__m512i; MOST],
) {
    if lanes <= LANES {
        compute::<1>(key, counters, blocks);
    } else {
        compute::<2>(key, counters, blocks);
    }
}

/// Two groups of lanes at once keep more of the CPU busy than one: no step waits for the one before.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn compute<const GROUPS: usize>(
    key: &[u32; 8],
    counters: &Counters,
    blocks: &mut [__m512i; MOST],
) {
    let mut state = [[_mm512_setzero_si512(); 16]; GROUPS];
    for (group, words) in state.iter_mut().enumerate() {
        for (word, value) in words.iter_mut().enumerate() {
            *value = start(key, counters, group, word);
        }
    }
    for _ in 0..10 {
        quarter_rounds(&mut state, 0);
        quarter_rounds(&mut state, 1);
    }
    for (group, words) in state.iter_mut().enumerate() {
        for (word, value) in words.iter_mut().enumerate() {
            *value = _mm512_add_epi32(*value, start(key, counters, group, word));
        }
        transpose(words, &mut blocks.as_chunks_mut().0[group]);
    }
}

/// What a word of the state begins with.
#[inline]
#[target_feature(enable = "avx512f")]
fn start(key: &[u32; 8], counters: &Counters, group: usize, word: usize) -> __m512i {
    match word {
        0..4 => broadcast(CONSTANTS[word]),
        4..12 => broadcast(key[word - 4]),
        12 => load_words(&counters.block[group]),
        14 => load_words(&counters.low[group]),
        15 => load_words(&counters.high[group]),
        _ => _mm512_setzero_si512(),
    }
}

/// Four quarter rounds: on the columns, or with `shift` on the diagonals.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds<const GROUPS: usize>(state: &mut [[__m512i; 16]; GROUPS], shift: usize) {
    macro_rules! step {
        ($to:literal, $from:literal, $turned:literal, $bits:literal) => {
            for words in state.iter_mut() {
                for column in 0..4 {
                    let word = |row: usize| 4 * row + (column + shift * row) % 4;
                    words[word($to)] = _mm512_add_epi32(words[word($to)], words[word($from)]);
                }
            }
            for words in state.iter_mut() {
                for column in 0..4 {
                    let word = |row: usize| 4 * row + (column + shift * row) % 4;
                    words[word($turned)] =
                        _mm512_xor_si512(words[word($turned)], words[word($to)]);
                }
            }
            for words in state.iter_mut() {
                for column in 0..4 {
                    let word = |row: usize| 4 * row + (column + shift * row) % 4;
                    words[word($turned)] = _mm512_rol_epi32::<$bits>(words[word($turned)]);
                }
            }
        };
    }
    step!(0, 1, 3, 16);
    step!(2, 3, 1, 12);
    step!(0, 1, 3, 8);
    step!(2, 3, 1, 7);
}

/// From a word of all blocks in each register to a block in each register.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(words: &[__m512i; 16], blocks: &mut [__m512i; 16]) {
    // In `quads[q][j]`, part i of four has words 4q to 4q+3 of block 4i+j.
    let mut quads = [[_mm512_setzero_si512(); 4]; 4];
    for (quad, from) in quads.iter_mut().zip(words.as_chunks::<4>().0) {
        let [a, b, c, d] = *from;
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *quad = [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ];
    }
    let [a, b, c, d] = quads;
    for block in 0..4 {
        let front = _mm512_shuffle_i32x4::<0x44>(a[block], b[block]);
        let back = _mm512_shuffle_i32x4::<0xee>(a[block], b[block]);
        let front2 = _mm512_shuffle_i32x4::<0x44>(c[block], d[block]);
        let back2 = _mm512_shuffle_i32x4::<0xee>(c[block], d[block]);
        blocks[block] = _mm512_shuffle_i32x4::<0x88>(front, front2);
        blocks[block + 4] = _mm512_shuffle_i32x4::<0xdd>(front, front2);
        blocks[block + 8] = _mm512_shuffle_i32x4::<0x88>(back, back2);
        blocks[block + 12] = _mm512_shuffle_i32x4::<0xdd>(back, back2);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}
