//! Cookies: how a node under load makes whoever begins a handshake prove its address first
//! (whitepaper, sections 5.4.4 and 5.4.7). The side that shows them is the engine's.
//!
//! A cookie is a MAC of the sender's address and port under a secret that nobody else has, so that
//! none of them has to be remembered.

use crate::key::PublicKey;
use crate::wireguard::{COOKIE_LEN, MAC_LEN, MACS_LEN, mac};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// How long a cookie is good for whoever was given it, and how long one secret makes them
/// (COOKIE_REFRESH_TIME).
pub(crate) const COOKIE_TIME: Duration = Duration::from_secs(120);

/// How much longer a cookie of the secret before is taken: for as long as a message is under way and
/// one attempt takes. Who comes later is given another.
const GRACE: Duration = Duration::from_secs(5);

const NONCE_LEN: usize = 24;

/// Random bytes that a reply needs: for its nonce, and for the next secret.
pub const RANDOM_LEN: usize = NONCE_LEN + 32;

type Cookie = Zeroizing<[u8; MAC_LEN]>;

/// Makes cookies and knows them again.
pub struct Cookies {
    sealer: Sealer,
    /// The secret in use and the one before, each with when it came into use.
    secrets: [Option<(Zeroizing<[u8; 32]>, Instant)>; 2],
}

/// Seals and opens what replies carry: under a key that everybody can make who knows whom the
/// handshake is with.
pub(crate) struct Sealer {
    key: Zeroizing<[u8; 32]>,
}

impl Sealer {
    /// For replies of the owner of `public`.
    pub(crate) fn new(public: &PublicKey) -> Self {
        let key = Blake2s256::new()
            .chain_update(b"cookie--")
            .chain_update(public.as_bytes())
            .finalize();
        Self {
            key: Zeroizing::new(key.into()),
        }
    }

    /// Seals a cookie for the message with this first MAC. Returns its tag.
    fn seal(&self, nonce: &[u8], mac1: &[u8], cookie: &mut [u8]) -> Tag {
        XChaCha20Poly1305::new((&*self.key).into())
            .encrypt_in_place_detached(XNonce::from_slice(nonce), mac1, cookie)
            .expect("a cookie is shorter than the cipher's limit")
    }

    /// Opens the cookie of a reply to the message with this first MAC: nonce (24), cookie (16), tag (16).
    pub(crate) fn open(&self, sealed: &[u8; 56], mac1: &[u8; MAC_LEN]) -> Option<Cookie> {
        let (nonce, rest) = sealed.split_at(NONCE_LEN);
        let (text, tag) = rest.split_at(MAC_LEN);
        let mut cookie = Zeroizing::new([0; MAC_LEN]);
        cookie.copy_from_slice(text);
        XChaCha20Poly1305::new((&*self.key).into())
            .decrypt_in_place_detached(
                XNonce::from_slice(nonce),
                mac1,
                &mut *cookie,
                Tag::from_slice(tag),
            )
            .ok()?;
        Some(cookie)
    }
}

/// The cookie of an address.
fn cookie(secret: &[u8; 32], from: SocketAddr) -> Cookie {
    let mut place = [0; 18];
    let (address, port) = place.split_at_mut(16);
    match from.ip() {
        IpAddr::V4(v4) => address.copy_from_slice(&v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => address.copy_from_slice(&v6.octets()),
    }
    port.copy_from_slice(&from.port().to_be_bytes());
    Zeroizing::new(mac(secret, &place))
}

impl Cookies {
    /// For messages to `public`.
    pub fn new(public: &PublicKey) -> Self {
        Self {
            sealer: Sealer::new(public),
            secrets: [None, None],
        }
    }

    /// Whether the second MAC of a handshake message shows a cookie that its sender was given at
    /// this address, lately.
    pub fn verify(&self, message: &[u8], from: SocketAddr, now: Instant) -> bool {
        let Some((covered, shown)) = message.split_last_chunk::<MAC_LEN>() else {
            return false;
        };
        let secrets = self.secrets.iter().flatten();
        secrets
            .filter(|(_, since)| now.saturating_duration_since(*since) < COOKIE_TIME + GRACE)
            .any(|(secret, _)| {
                let right = mac(&*cookie(secret, from), covered);
                right.ct_eq(shown).into()
            })
    }

    /// The reply that gives the sender of a handshake message a cookie. `None` for what is too short
    /// to be such a message.
    pub fn reply(
        &mut self,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        mut random: [u8; RANDOM_LEN],
    ) -> Option<[u8; COOKIE_LEN]> {
        let sender = message.get(4..8)?;
        let macs = message.last_chunk::<MACS_LEN>()?;
        let (nonce, fresh) = random.split_at(NONCE_LEN);
        let [last, before] = &mut self.secrets;
        let worn = |since: Instant| now.saturating_duration_since(since) >= COOKIE_TIME;
        if last.as_ref().is_none_or(|(_, since)| worn(*since)) {
            let mut secret = Zeroizing::new([0; 32]);
            secret.copy_from_slice(fresh);
            *before = last.replace((secret, now));
        }
        let (secret, _) = last.as_ref()?;
        let mut cookie = cookie(secret, from);
        let tag = self.sealer.seal(nonce, &macs[..MAC_LEN], &mut *cookie);
        let mut reply = [0; COOKIE_LEN];
        reply[0] = 3;
        reply[4..8].copy_from_slice(sender);
        reply[8..32].copy_from_slice(nonce);
        reply[32..48].copy_from_slice(&*cookie);
        reply[48..].copy_from_slice(&tag);
        random.zeroize();
        Some(reply)
    }
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies")
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test starts its own time somewhere"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ours() -> PublicKey {
        PublicKey::new([9; 32])
    }

    fn place(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// An initiation as far as cookies look at it, with its second MAC made from what a reply gave.
    fn initiation(cookie: Option<&Cookie>) -> Vec<u8> {
        let mut message: Vec<u8> = (0..132).collect();
        let mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac(&**cookie, &message));
        message.extend(mac2);
        message
    }

    fn given(cookies: &mut Cookies, from: SocketAddr, now: Instant, random: u8) -> Cookie {
        let message = initiation(None);
        let reply = cookies
            .reply(&message, from, now, [random; RANDOM_LEN])
            .unwrap();
        assert_eq!(
            reply[..8],
            [3, 0, 0, 0, 4, 5, 6, 7],
            "to its sender's index"
        );
        let sealed = reply[8..].try_into().unwrap();
        let mac1 = message[116..132].try_into().unwrap();
        let sealer = Sealer::new(&ours());
        assert!(
            sealer.open(sealed, &[0; MAC_LEN]).is_none(),
            "another message"
        );
        sealer.open(sealed, mac1).unwrap()
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_port_alone() {
        let (mut cookies, now) = (Cookies::new(&ours()), Instant::now());
        let from = place("192.0.2.1:51820");
        assert!(
            !cookies.verify(&initiation(None), from, now),
            "no secret yet"
        );
        let message = initiation(Some(&given(&mut cookies, from, now, 1)));
        assert!(cookies.verify(&message, from, now));
        for other in ["192.0.2.1:51821", "192.0.2.2:51820", "[2001:db8::1]:51820"] {
            assert!(!cookies.verify(&message, place(other), now), "{other}");
        }
        assert!(!cookies.verify(&initiation(None), from, now), "no cookie");
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!cookies.verify(&changed, from, now), "bit {bit}");
        }
        for length in 0..32 {
            assert!(!cookies.verify(&message[..length], from, now));
            let short = cookies.reply(&message[..length], from, now, [0; RANDOM_LEN]);
            assert!(short.is_none(), "{length} bytes");
        }
    }

    #[test]
    fn a_secret_makes_cookies_for_two_minutes_and_they_are_taken_a_moment_longer() {
        let (mut cookies, start) = (Cookies::new(&ours()), Instant::now());
        let from = place("[2001:db8::1]:1");
        let first = given(&mut cookies, from, start, 1);
        assert_eq!(first, given(&mut cookies, from, start + 119 * SECOND, 2));
        let message = initiation(Some(&first));
        let taken =
            |cookies: &Cookies, seconds| cookies.verify(&message, from, start + seconds * SECOND);
        // Whether or not another secret came into use meanwhile.
        for renewed in [false, true] {
            if renewed {
                let second = given(&mut cookies, from, start + 120 * SECOND, 3);
                assert_ne!(first, second);
                assert!(cookies.verify(&initiation(Some(&second)), from, start + 240 * SECOND));
            }
            assert!(taken(&cookies, 124), "renewed: {renewed}");
            assert!(!taken(&cookies, 125), "renewed: {renewed}");
        }
    }
}
