//! Poly1305 (RFC 8439, section 2.5) of eight messages in the 64-bit lanes of a register.
//!
//! Numbers modulo 2^130 - 5 are three limbs of 44, 44 and 42 bits, and a little more between the
//! steps: the multiplier of the CPU takes 52 bits and gives the lower and the upper 52 bits of
//! their product apart.

use super::bytes::{lanes, load, load_lanes};
use core::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpge_epu64_mask,
    _mm512_cmplt_epu64_mask, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_add_epi64,
    _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_shuffle_i64x2, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

/// Messages in one register.
const LANES: usize = 8;
/// Two registers of messages at once: the steps of one fill the waits of the other.
pub(super) const MOST: usize = 2 * LANES;

const MASK_44: i64 = (1 << 44) - 1;
const MASK_42: i64 = (1 << 42) - 1;
/// Section 2.5: these bits of r are zero.
const CLAMP_LOW: i64 = 0x0fff_fffc_0fff_ffff;
const CLAMP_HIGH: i64 = 0x0fff_fffc_0fff_fffc;
/// The bit that every block gets on top, 2^128, in the third limb.
const TOP: i64 = 1 << 40;

/// A number of each message, below 2^131: limbs of 44, 44 and 42 bits, the first two up to 2^16 over.
#[derive(Clone, Copy)]
struct Number([__m512i; 3]);

/// What a [`Number`] is multiplied by.
#[derive(Clone, Copy)]
struct Multiplier {
    limbs: [__m512i; 3],
    /// The second and third limb times 20: what goes beyond 2^130 comes back as 5 times itself,
    /// and limb products beyond it are 4 times 2^130.
    wrapped: [__m512i; 2],
}

/// Sealed texts, one in each lane. Lanes without one repeat another.
pub(super) struct Texts<'a> {
    /// All but the last 1 to 64 bytes.
    pub(super) full: [&'a [[u8; 64]]; MOST],
    /// These bytes, and zeros behind them.
    pub(super) last: &'a [__m512i; MOST],
    /// Bytes in all.
    pub(super) length: [u64; MOST],
    /// The first ChaCha20 block of each message: r, and the pad.
    pub(super) key: &'a [__m512i; MOST],
}

/// The tags of the first `count` texts, as little-endian numbers. Further ones mean nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn tags(texts: &Texts<'_>, count: usize) -> [u128; MOST] {
    let mut tags = [0; MOST];
    if count <= LANES {
        compute::<1>(texts, &mut tags);
    } else {
        compute::<2>(texts, &mut tags);
    }
    tags
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
#[expect(clippy::needless_range_loop, reason = "several arrays go in step")]
fn compute<const GROUPS: usize>(texts: &Texts<'_>, tags: &mut [u128; MOST]) {
    let zero = _mm512_setzero_si512();
    let mut sums = [Number([zero; 3]); GROUPS];
    let mut multipliers = [Multiplier {
        limbs: [zero; 3],
        wrapped: [zero; 2],
    }; GROUPS];
    let mut pads = [[zero; 2]; GROUPS];
    let mut lengths = [zero; GROUPS];
    for group in 0..GROUPS {
        let [low, high, pad_low, pad_high, ..] = transpose(&texts.key.as_chunks().0[group]);
        multipliers[group] = multiplier(low, high);
        pads[group] = [pad_low, pad_high];
        lengths[group] = load_lanes(&texts.length.as_chunks().0[group]);
    }

    let shortest = texts.length.iter().copied().min().unwrap_or(0);
    let longest = texts.length.iter().copied().max().unwrap_or(0);
    let common = texts.full.iter().map(|full| full.len()).min().unwrap_or(0);
    let full = texts.full.map(|full| &full[..common]);
    for chunk in 0..common {
        let mut words = [[zero; LANES]; GROUPS];
        for group in 0..GROUPS {
            for lane in 0..LANES {
                words[group][lane] = load(&full[LANES * group + lane][chunk]);
            }
            words[group] = transpose(&words[group]);
        }
        for block in 0..4 {
            for group in 0..GROUPS {
                let (low, high) = (words[group][2 * block], words[group][2 * block + 1]);
                sums[group] = absorb(sums[group], &multipliers[group], low, high);
            }
        }
    }
    for chunk in common.. {
        let begin = 64 * chunk as u64;
        if begin >= longest {
            break;
        }
        let mut words = [[zero; LANES]; GROUPS];
        for group in 0..GROUPS {
            for lane in 0..LANES {
                let text = LANES * group + lane;
                words[group][lane] = match texts.full[text].get(chunk) {
                    Some(chunk) => load(chunk),
                    None => texts.last[text],
                };
            }
            words[group] = transpose(&words[group]);
        }
        for block in 0..4 {
            let begin = begin + 16 * block as u64;
            if begin >= longest {
                break;
            }
            for group in 0..GROUPS {
                let (low, high) = (words[group][2 * block], words[group][2 * block + 1]);
                let next = absorb(sums[group], &multipliers[group], low, high);
                sums[group] = if begin < shortest {
                    next
                } else {
                    // Texts that have ended stay as they are.
                    let begin = _mm512_set1_epi64(begin.cast_signed());
                    select(
                        _mm512_cmplt_epu64_mask(begin, lengths[group]),
                        next,
                        sums[group],
                    )
                };
            }
        }
    }
    for group in 0..GROUPS {
        let sum = absorb(sums[group], &multipliers[group], zero, lengths[group]);
        let [low, high] = finish(sum, pads[group]);
        let (low, high) = (lanes(low), lanes(high));
        for (lane, tag) in tags.as_chunks_mut::<LANES>().0[group]
            .iter_mut()
            .enumerate()
        {
            *tag = u128::from(high[lane]) << 64 | u128::from(low[lane]);
        }
    }
}

/// From 64 bytes of a message in each register to the same 8 bytes of all messages in each.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: &[__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = *rows;
    // `even[i]` has words 0, 2, 4, 6 of rows 2i and 2i+1, in turn.
    let even = [
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    ];
    let odd = [
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    ];
    let [word0, word2, word4, word6] = transpose_pairs(even);
    let [word1, word3, word5, word7] = transpose_pairs(odd);
    [word0, word1, word2, word3, word4, word5, word6, word7]
}

/// Four registers of four 128-bit parts, transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_pairs([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let front = _mm512_shuffle_i64x2::<0x44>(a, b);
    let back = _mm512_shuffle_i64x2::<0xee>(a, b);
    let front2 = _mm512_shuffle_i64x2::<0x44>(c, d);
    let back2 = _mm512_shuffle_i64x2::<0xee>(c, d);
    [
        _mm512_shuffle_i64x2::<0x88>(front, front2),
        _mm512_shuffle_i64x2::<0xdd>(front, front2),
        _mm512_shuffle_i64x2::<0x88>(back, back2),
        _mm512_shuffle_i64x2::<0xdd>(back, back2),
    ]
}

/// 128 bits as limbs.
#[inline]
#[target_feature(enable = "avx512f")]
fn split(low: __m512i, high: __m512i) -> [__m512i; 3] {
    let mask = _mm512_set1_epi64(MASK_44);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(middle, mask),
        _mm512_srli_epi64::<24>(high),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn multiplier(low: __m512i, high: __m512i) -> Multiplier {
    let low = _mm512_and_si512(low, _mm512_set1_epi64(CLAMP_LOW));
    let high = _mm512_and_si512(high, _mm512_set1_epi64(CLAMP_HIGH));
    let limbs = split(low, high);
    let times_20 = [times_5(limbs[1]), times_5(limbs[2])];
    Multiplier {
        limbs,
        wrapped: [
            _mm512_slli_epi64::<2>(times_20[0]),
            _mm512_slli_epi64::<2>(times_20[1]),
        ],
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn times_5(value: __m512i) -> __m512i {
    _mm512_add_epi64(value, _mm512_slli_epi64::<2>(value))
}

/// One block: (sum + block + 2^128) times r.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn absorb(sum: Number, by: &Multiplier, low: __m512i, high: __m512i) -> Number {
    let [block0, block1, block2] = split(low, high);
    let block2 = _mm512_or_si512(block2, _mm512_set1_epi64(TOP));
    let Number([sum0, sum1, sum2]) = sum;
    multiply(
        Number([
            _mm512_add_epi64(sum0, block0),
            _mm512_add_epi64(sum1, block1),
            _mm512_add_epi64(sum2, block2),
        ]),
        by,
    )
}

/// Each limb of `number` is below 2^46, each of `by` below 2^49, so no column reaches 2^56.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(number: Number, by: &Multiplier) -> Number {
    let Number([a0, a1, a2]) = number;
    let Multiplier {
        limbs: [b0, b1, b2],
        wrapped: [w1, w2],
    } = *by;
    // The first limb comes last: it is ready last.
    let columns = [
        [(a1, w2), (a2, w1), (a0, b0)],
        [(a1, b0), (a2, w2), (a0, b1)],
        [(a1, b1), (a2, b0), (a0, b2)],
    ];
    let zero = _mm512_setzero_si512();
    let (mut low, mut high) = ([zero; 3], [zero; 3]);
    for column in 0..3 {
        for (a, b) in columns[column] {
            low[column] = _mm512_madd52lo_epu64(low[column], a, b);
            high[column] = _mm512_madd52hi_epu64(high[column], a, b);
        }
    }
    // An upper half is worth 2^52, which is 2^8 of the next column, and 5 * 2^10 of the first. No
    // upper half reaches 2^41, nor the last one 2^39, so that these products stay below 2^52 too.
    let first = _mm512_madd52lo_epu64(low[0], high[2], _mm512_set1_epi64(5 << 10));
    let second = _mm512_madd52lo_epu64(low[1], high[0], _mm512_set1_epi64(1 << 8));
    let third = _mm512_madd52lo_epu64(low[2], high[1], _mm512_set1_epi64(1 << 8));
    // One carry from each column at once leaves less than 2^16 too much.
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44), _mm512_set1_epi64(MASK_42));
    Number([
        _mm512_madd52lo_epu64(
            _mm512_and_si512(first, mask_44),
            _mm512_srli_epi64::<42>(third),
            _mm512_set1_epi64(5),
        ),
        _mm512_add_epi64(
            _mm512_and_si512(second, mask_44),
            _mm512_srli_epi64::<44>(first),
        ),
        _mm512_add_epi64(
            _mm512_and_si512(third, mask_42),
            _mm512_srli_epi64::<44>(second),
        ),
    ])
}

/// `yes` in the lanes of `mask`, `no` in the others.
#[inline]
#[target_feature(enable = "avx512f")]
fn select(mask: __mmask8, yes: Number, no: Number) -> Number {
    let (Number(yes), Number(mut no)) = (yes, no);
    for limb in 0..3 {
        no[limb] = _mm512_mask_mov_epi64(no[limb], mask, yes[limb]);
    }
    Number(no)
}

/// The sum modulo 2^130 - 5, plus the pad, modulo 2^128, as two halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish(sum: Number, [pad_low, pad_high]: [__m512i; 2]) -> [__m512i; 2] {
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44), _mm512_set1_epi64(MASK_42));
    let Number([mut a, mut b, mut c]) = sum;
    for _ in 0..2 {
        b = _mm512_add_epi64(b, _mm512_srli_epi64::<44>(a));
        c = _mm512_add_epi64(c, _mm512_srli_epi64::<44>(b));
        a = _mm512_add_epi64(
            _mm512_and_si512(a, mask_44),
            times_5(_mm512_srli_epi64::<42>(c)),
        );
        b = _mm512_and_si512(b, mask_44);
        c = _mm512_and_si512(c, mask_42);
    }
    b = _mm512_add_epi64(b, _mm512_srli_epi64::<44>(a));
    a = _mm512_and_si512(a, mask_44);
    // If the sum plus 5 reaches 2^130, what is below 2^130 of it is the remainder.
    let a5 = _mm512_add_epi64(a, _mm512_set1_epi64(5));
    let b5 = _mm512_add_epi64(b, _mm512_srli_epi64::<44>(a5));
    let c5 = _mm512_add_epi64(c, _mm512_srli_epi64::<44>(b5));
    let beyond = _mm512_cmpge_epu64_mask(c5, _mm512_set1_epi64(1 << 42));
    let reduced = Number([
        _mm512_and_si512(a5, mask_44),
        _mm512_and_si512(b5, mask_44),
        _mm512_and_si512(c5, mask_42),
    ]);
    let Number([a, b, c]) = select(beyond, reduced, Number([a, b, c]));
    let low = _mm512_or_si512(a, _mm512_slli_epi64::<44>(b));
    let high = _mm512_or_si512(_mm512_srli_epi64::<20>(b), _mm512_slli_epi64::<24>(c));
    let low = _mm512_add_epi64(low, pad_low);
    let high = _mm512_add_epi64(high, pad_high);
    let carry = _mm512_cmplt_epu64_mask(low, pad_low);
    [
        low,
        _mm512_mask_add_epi64(high, carry, high, _mm512_set1_epi64(1)),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::bytes::load_part;
    use super::*;

    /// Tags of data of one length, not padded as for an AEAD, with a key in each lane.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
    pub(in super::super) fn tags(keys: &[[u8; 32]; 8], data: &[Vec<u8>; 8]) -> [[u8; 16]; 8] {
        let zero = _mm512_setzero_si512();
        let mut rows = [zero; 8];
        for (row, key) in rows.iter_mut().zip(keys) {
            *row = load_part(key);
        }
        let [low, high, pad_low, pad_high, ..] = transpose(&rows);
        let multiplier = multiplier(low, high);
        let mut sum = Number([zero; 3]);
        for begin in (0..data[0].len()).step_by(16) {
            let end = data[0].len().min(begin + 16);
            for (row, data) in rows.iter_mut().zip(data) {
                *row = load_part(&[&data[begin..end], &[1]].concat());
            }
            let [low, high, top, ..] = transpose(&rows);
            let [a, b, c] = split(low, high);
            let Number([x, y, z]) = sum;
            let top = _mm512_slli_epi64::<40>(top);
            let c = _mm512_or_si512(c, top);
            let added = [(a, x), (b, y), (c, z)].map(|(a, b)| _mm512_add_epi64(a, b));
            sum = multiply(Number(added), &multiplier);
        }
        let [low, high] = finish(sum, [pad_low, pad_high]);
        let (low, high) = (lanes(low), lanes(high));
        std::array::from_fn(|lane| {
            (u128::from(high[lane]) << 64 | u128::from(low[lane])).to_le_bytes()
        })
    }
}
