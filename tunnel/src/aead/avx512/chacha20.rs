//! ChaCha20 blocks (RFC 8439, section 2.3), sixteen in the lanes of a register.
//!
//! A register holds one word of the state for sixteen blocks. Which block of which message a lane
//! computes is free: it shows only in the last four words.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_mask_add_epi32, _mm512_mask_mov_epi32, _mm512_rol_epi32,
    _mm512_set_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

/// Blocks in one register.
pub(super) const LANES: usize = 16;
/// As many blocks as fill the registers: two times sixteen words.
pub(super) const MOST: usize = 2 * LANES;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Which block each lane computes.
pub(super) struct Counters {
    block: [__m512i; 2],
    low: [__m512i; 2],
    high: [__m512i; 2],
}

impl Counters {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Self {
        let none = [_mm512_setzero_si512(); 2];
        Self {
            block: none,
            low: none,
            high: none,
        }
    }

    /// Lanes `first` to `first + count - 1` compute message `counter` from block `block` on.
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the counter's halves are taken; blocks count modulo 2^32"
    )]
    pub(super) fn set(&mut self, first: usize, count: usize, counter: u64, block: usize) {
        let run = ((1 << count) - 1_u64) << first;
        let low = broadcast(counter as u32);
        let high = broadcast((counter >> 32) as u32);
        let ascending = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        for group in 0..2 {
            let mask = (run >> (LANES * group)) as u16;
            let base = block.wrapping_sub(first).wrapping_add(LANES * group);
            self.low[group] = _mm512_mask_mov_epi32(self.low[group], mask, low);
            self.high[group] = _mm512_mask_mov_epi32(self.high[group], mask, high);
            self.block[group] =
                _mm512_mask_add_epi32(self.block[group], mask, ascending, broadcast(base as u32));
        }
    }
}

/// Computes the first `lanes` lanes, or more, and hands each to `take`, with its number.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn keystream(
    key: &[u32; 8],
    counters: &Counters,
    lanes: usize,
    take: impl FnMut(usize, __m512i),
) {
    if lanes <= LANES {
        compute::<1>(key, counters, take);
    } else {
        compute::<2>(key, counters, take);
    }
}

/// Two groups of lanes at once keep more of the CPU busy than one: no step waits for the one before.
#[inline]
#[target_feature(enable = "avx512f")]
fn compute<const GROUPS: usize>(
    key: &[u32; 8],
    counters: &Counters,
    mut take: impl FnMut(usize, __m512i),
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
        for (lane, block) in transpose(words).into_iter().enumerate() {
            take(LANES * group + lane, block);
        }
    }
}

/// What a word of the state begins with.
#[inline]
#[target_feature(enable = "avx512f")]
fn start(key: &[u32; 8], counters: &Counters, group: usize, word: usize) -> __m512i {
    match word {
        0..4 => broadcast(CONSTANTS[word]),
        4..12 => broadcast(key[word - 4]),
        12 => counters.block[group],
        14 => counters.low[group],
        15 => counters.high[group],
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
                    let (to, from, turned) = (word($to), word($from), word($turned));
                    words[to] = _mm512_add_epi32(words[to], words[from]);
                    words[turned] = _mm512_xor_si512(words[turned], words[to]);
                    words[turned] = _mm512_rol_epi32::<$bits>(words[turned]);
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
fn transpose(words: &[__m512i; 16]) -> [__m512i; 16] {
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
    let mut blocks = [_mm512_setzero_si512(); 16];
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
    blocks
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}
