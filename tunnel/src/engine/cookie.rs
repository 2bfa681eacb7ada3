//! The two MACs of a handshake message, and cookies that a peer under load asks us to show (whitepaper,
//! sections 5.4.4 and 5.4.7). Those that we ask for are made in [`crate::cookie`].

use crate::cookie::{COOKIE_TIME, Sealer};
use crate::key::PublicKey;
use crate::reject::Reject;
use crate::wireguard::{self, MAC_LEN, Mac1};
use std::time::Instant;
use zeroize::Zeroizing;

/// Signs the handshake messages to one peer.
pub(super) struct Signer {
    mac1: Mac1,
    /// Opens what the peer replies instead of an answer.
    sealer: Sealer,
    /// Our index in the last message and its first MAC: what a cookie is given for.
    last: Option<(u32, [u8; MAC_LEN])>,
    cookie: Option<(Zeroizing<[u8; MAC_LEN]>, Instant)>,
}

impl Signer {
    /// For messages to `peer`.
    pub(super) fn new(peer: &PublicKey) -> Self {
        Self {
            mac1: Mac1::new(peer),
            sealer: Sealer::new(peer),
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
        let field = message.get(4..8).ok_or(Reject::WgMalformed)?;
        if field != index.to_le_bytes() {
            return Err(Reject::WgHandshake);
        }
        let sealed = message.get(8..).and_then(|sealed| sealed.try_into().ok());
        let sealed = sealed.ok_or(Reject::WgMalformed)?;
        let cookie = self.sealer.open(sealed, mac1);
        self.cookie = Some((cookie.ok_or(Reject::WgHandshake)?, now));
        Ok(())
    }
}
