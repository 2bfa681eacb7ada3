//! The cipher of data messages: ChaCha20-Poly1305 (RFC 8439) over many messages under one key.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Bytes of the tag behind a text.
pub(super) const TAG_LEN: usize = 16;

/// One message: its counter, and its text with room for the tag behind it.
#[derive(Default)]
pub(super) struct Message<'a> {
    pub(super) counter: u64,
    pub(super) bytes: &'a mut [u8],
}

/// The key of one direction of a session.
pub(super) struct Key(Zeroizing<[u8; 32]>);

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Key {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*key))
    }

    /// ring's form, which does not wipe itself: it lives for one batch, and making it costs no more than a copy.
    fn cipher(&self) -> LessSafeKey {
        let key =
            UnboundKey::new(&CHACHA20_POLY1305, &*self.0).expect("the cipher's keys have 32 bytes");
        LessSafeKey::new(key)
    }

    /// Seals each text in place and writes its tag.
    pub(super) fn seal(&self, messages: &mut [Message<'_>]) {
        let cipher = self.cipher();
        for Message { counter, bytes } in messages {
            let text = bytes.len().saturating_sub(TAG_LEN);
            let (text, room) = bytes.split_at_mut(text);
            match cipher.seal_in_place_separate_tag(nonce(*counter), Aad::empty(), text) {
                Ok(tag) if room.len() == TAG_LEN => room.copy_from_slice(tag.as_ref()),
                // Longer than the cipher takes, or shorter than a tag: nothing leaves in clear.
                Ok(_) | Err(_) => bytes.fill(0),
            }
        }
    }

    /// Opens each message in place; `opened` is told of each whether its tag was right.
    pub(super) fn open(&self, messages: &mut [Message<'_>], mut opened: impl FnMut(usize, bool)) {
        let cipher = self.cipher();
        for (at, Message { counter, bytes }) in messages.iter_mut().enumerate() {
            let result = cipher.open_in_place(nonce(*counter), Aad::empty(), bytes);
            opened(at, result.is_ok());
        }
    }
}
