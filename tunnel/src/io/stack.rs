//! What calls leave on the stack.

use std::hint::black_box;

/// Bytes that the calls of a packet's or a handshake's way take, and some more.
const DEPTH: usize = 32 << 10;

/// Overwrites what calls that have returned left below the caller's own frame: a key that was moved or kept beside the
/// registers for a moment would stay there until another call happens to need the place.
#[inline(never)]
pub fn wipe() {
    // The compiler cannot know that nobody looks at it.
    black_box(&mut [0_u8; DEPTH]);
}
