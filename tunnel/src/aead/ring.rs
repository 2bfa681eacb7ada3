//! One message after the other, by ring.

use super::{Message, TAG_LEN};
use ::ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The bytes themselves: ring does not wipe its own form of a key, which is made for each batch.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*key))
    }

    pub(super) fn seal(&self, messages: &mut [Message<'_>]) {
        if messages.is_empty() {
            return;
        }
        let key = self.expanded();
        for message in messages {
            let Some((text, tag)) = message.bytes.split_last_chunk_mut::<TAG_LEN>() else {
                continue;
            };
            let sealed = key.seal_in_place_separate_tag(nonce(message.counter), Aad::empty(), text);
            tag.copy_from_slice(sealed.expect("texts are shorter than 256 GiB").as_ref());
        }
    }

    pub(super) fn open(&self, messages: &mut [Message<'_>], mut opened: impl FnMut(usize, bool)) {
        if messages.is_empty() {
            return;
        }
        let key = self.expanded();
        for (index, message) in messages.iter_mut().enumerate() {
            let result = key.open_in_place(nonce(message.counter), Aad::empty(), message.bytes);
            let good = result.is_ok();
            if !good {
                // ring promises nothing about what it leaves.
                message.bytes.fill(0);
            }
            opened(index, good);
        }
    }

    fn expanded(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, self.0.as_slice());
        LessSafeKey::new(key.expect("the key has 32 bytes"))
    }
}

/// WireGuard's nonce.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
