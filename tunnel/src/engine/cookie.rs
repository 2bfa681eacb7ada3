//! The two MACs of a handshake message, and cookies that a peer under load asks us to show (whitepaper,
//! sections 5.4.4 and 5.4.7).

use super::transcript::Secret;
use crate::key::PublicKey;
use crate::reject::Reject;
use crate::wireguard::{self, Mac1};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a peer takes a cookie that it gave (COOKIE_REFRESH_TIME).
const COOKIE_TIME: Duration = Duration::from_secs(120);

const MAC_LEN: usize = 16;

/// Signs the handshake messages to one peer.
pub(super) struct Signer {
    mac1: Mac1,
    /// Opens what the peer replies instead of an answer.
    cookie_key: Secret,
    /// Our index in the last message and its first MAC: what a cookie is given for.
    last: Option<(u32, [u8; MAC_LEN])>,
    cookie: Option<(Zeroizing<[u8; MAC_LEN]>, Instant)>,
}

impl Signer {
    /// For messages to `peer`.
    pub(super) fn new(peer: &PublicKey) -> Self {
        let cookie_key = Blake2s256::new()
            .chain_update(b"cookie--")
            .chain_update(peer.as_bytes())
            .finalize();
        Self {
            mac1: Mac1::new(peer),
            cookie_key: Zeroizing::new(cookie_key.into()),
            last: None,
            cookie: None,
        }
    }

    /// Appends both MACs to a message that names our `index`. Without a cookie the second is zero.
    pub(super) fn sign(&mut self, index: u32, now: Instant, message: &mut Vec<u8>) {
        let mac1 = self.mac1.of(message);
        self.last = Some((index, mac1));
        message.extend_from_slice(&mac1);
        let fresh = |at: Instant| now.saturating_duration_since(at) < COOKIE_TIME;
        self.cookie.take_if(|(_, at)| !fresh(*at));
        let mac2 = match &self.cookie {
            Some((cookie, _)) => wireguard::mac(&**cookie, message),
            None => [0; MAC_LEN],
        };
        message.extend_from_slice(&mac2);
    }

    /// Takes a cookie reply: type (4), our index (4), nonce (24), sealed cookie (32).
    pub(super) fn take(&mut self, message: &[u8], now: Instant) -> Result<(), Reject> {
        let (index, mac1) = self.last.as_ref().ok_or(Reject::WgHandshake)?;
        let field = |range| message.get(range).ok_or(Reject::WgMalformed);
        if field(4..8)? != index.to_le_bytes() {
            return Err(Reject::WgHandshake);
        }
        let mut cookie = Zeroizing::new([0; MAC_LEN]);
        cookie.copy_from_slice(field(32..48)?);
        XChaCha20Poly1305::new((&*self.cookie_key).into())
            .decrypt_in_place_detached(
                XNonce::from_slice(field(8..32)?),
                mac1,
                &mut *cookie,
                Tag::from_slice(field(48..64)?),
            )
            .map_err(|_| Reject::WgHandshake)?;
        self.cookie = Some((cookie, now));
        Ok(())
    }
}
