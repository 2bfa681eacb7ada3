//! Between slices and registers.

use core::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_maskz_mov_epi8, _mm512_storeu_si512, _mm512_xor_si512,
};

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads the 64 bytes that the reference stands for, with any alignment.
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

/// Eight 64-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_lanes(lanes: &[u64; 8]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads 64 bytes, which is the size of the array.
    unsafe {
        _mm512_loadu_si512(lanes.as_ptr().cast())
    }
}

/// The first 64 bytes, and zeros behind the end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_part(bytes: &[u8]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads the bytes whose bits are set, which are those within the slice.
    unsafe {
        _mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast())
    }
}

/// Adds 64 bytes of keystream.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn xor(text: &mut [u8; 64], stream: __m512i) {
    let text_and_stream = _mm512_xor_si512(load(text), stream);
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: it writes the 64 bytes that the reference stands for, with any alignment.
    unsafe {
        _mm512_storeu_si512(text.as_mut_ptr().cast(), text_and_stream);
    }
}

/// Adds keystream to the first 64 bytes, or to all if there are fewer, and returns them with zeros
/// behind the end: loading what was just stored through a mask takes long.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn xor_part(text: &mut [u8], stream: __m512i) -> __m512i {
    let within = first(text.len());
    let text_and_stream = _mm512_maskz_mov_epi8(within, _mm512_xor_si512(load_part(text), stream));
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: it writes the bytes whose bits are set, which are those within the slice.
    unsafe {
        _mm512_mask_storeu_epi8(text.as_mut_ptr().cast(), within, text_and_stream);
    }
    text_and_stream
}

/// The eight 64-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes(register: __m512i) -> [u64; 8] {
    let mut lanes = [0; 8];
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: it writes 64 bytes, which is the size of the array.
    unsafe {
        _mm512_storeu_si512(lanes.as_mut_ptr().cast(), register);
    }
    lanes
}

/// A mask of the first `length` of 64 bytes.
#[inline]
fn first(length: usize) -> u64 {
    let missing = u32::try_from(64 - length.min(64)).unwrap_or(64);
    u64::MAX.unbounded_shr(missing)
}
