//! WireGuard's handshake, Noise_IKpsk2 (whitepaper, section 5.4): two messages, and the keys that come of
//! them. Which handshake runs, and when, is [`super::noise`]'s.
//!
//! Secrets wipe themselves. No message has its MACs yet: those are [`super::cookie`]'s.

use super::transcript::{Secret, Transcript};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::reject::Reject;
use std::time::Instant;
use x25519_dalek::{SharedSecret, StaticSecret};
use zeroize::Zeroizing;

/// Seconds and nanoseconds, both big endian, so that later ones are greater byte by byte.
pub(super) type Stamp = [u8; 12];

/// The keys that do not change, and what both sides share before the first message.
pub(super) struct Keys {
    private: StaticSecret,
    public: PublicKey,
    peer: x25519_dalek::PublicKey,
    shared: SharedSecret,
    preshared: Secret,
}

/// An initiation that was sent and may be answered.
pub(super) struct Initiation {
    /// Our index, which the answer names.
    pub(super) index: u32,
    /// When it was sent.
    pub(super) sent: Instant,
    ephemeral: StaticSecret,
    transcript: Transcript,
}

/// An initiation of the peer that verified.
pub(super) struct Received {
    /// When the peer says that it sent it; whoever repeats an old one cannot change that.
    pub(super) stamp: Stamp,
    index: u32,
    ephemeral: x25519_dalek::PublicKey,
    transcript: Transcript,
}

/// What a handshake leads to.
pub(super) struct SessionKeys {
    /// Our index, which the peer's messages name.
    pub(super) local: u32,
    /// The peer's index.
    pub(super) remote: u32,
    /// For what we send.
    pub(super) sending: Secret,
    /// For what the peer sends.
    pub(super) receiving: Secret,
}

/// A Diffie-Hellman exchange, unless the other key is one of the few with which anything gives zero.
fn exchange(secret: &StaticSecret, public: &x25519_dalek::PublicKey) -> Option<SharedSecret> {
    Some(secret.diffie_hellman(public)).filter(SharedSecret::was_contributory)
}

/// What an initiation says about who sent it. Anybody can say it who knows both keys; that it is so shows later.
struct Named {
    key: [u8; 32],
    ephemeral: x25519_dalek::PublicKey,
    transcript: Transcript,
}

/// Opens an initiation as far as the key of its sender.
fn name(private: &StaticSecret, public: &PublicKey, message: &[u8]) -> Result<Named, Reject> {
    let ephemeral = x25519_dalek::PublicKey::from(*field::<32>(message, 8)?);
    let mut transcript = Transcript::new(public.as_bytes());
    transcript.mix_ephemeral(ephemeral.as_bytes());
    let shared = exchange(private, &ephemeral).ok_or(Reject::WgHandshake)?;
    let key = transcript.mix_key(shared.as_bytes());
    let key = transcript
        .open(&key, field::<48>(message, 40)?)
        .ok_or(Reject::WgHandshake)?;
    Ok(Named {
        key,
        ephemeral,
        transcript,
    })
}

/// Whose key an initiation to the owner of `private` and `public` names, so that one knows who is to judge it.
pub(crate) fn initiator(
    private: &PrivateKey,
    public: &PublicKey,
    message: &[u8],
) -> Result<PublicKey, Reject> {
    let named = name(&private.to_static_secret(), public, message)?;
    Ok(PublicKey::new(named.key))
}

fn field<const N: usize>(message: &[u8], at: usize) -> Result<&[u8; N], Reject> {
    message
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(Reject::WgMalformed)
}

fn index(message: &[u8], at: usize) -> Result<u32, Reject> {
    field(message, at).map(|bytes| u32::from_le_bytes(*bytes))
}

impl Keys {
    /// For handshakes between `private` and `peer`.
    pub(super) fn new(
        private: &PrivateKey,
        peer: &PublicKey,
        preshared: Option<&PresharedKey>,
    ) -> Self {
        let public = private.public();
        let private = private.to_static_secret();
        let peer = x25519_dalek::PublicKey::from(*peer.as_bytes());
        Self {
            shared: private.diffie_hellman(&peer),
            private,
            public,
            peer,
            preshared: Zeroizing::new(preshared.map_or([0; 32], |key| *key.as_bytes())),
        }
    }

    /// Writes the first message. `random` becomes the ephemeral key. `None` where the peer's key is none.
    pub(super) fn initiate(
        &self,
        random: &Secret,
        index: u32,
        stamp: &Stamp,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Initiation> {
        let ephemeral = StaticSecret::from(**random);
        let public = x25519_dalek::PublicKey::from(&ephemeral);
        let mut transcript = Transcript::new(self.peer.as_bytes());
        out.clear();
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(public.as_bytes());
        transcript.mix_ephemeral(public.as_bytes());
        let key = transcript.mix_key(exchange(&ephemeral, &self.peer)?.as_bytes());
        transcript.seal(&key, self.public.as_bytes(), out);
        let key = transcript.mix_key(self.static_shared()?);
        transcript.seal(&key, stamp, out);
        Some(Initiation {
            index,
            sent: now,
            ephemeral,
            transcript,
        })
    }

    /// Reads the first message.
    pub(super) fn read_initiation(&self, message: &[u8]) -> Result<Received, Reject> {
        let Named {
            key: peer,
            ephemeral,
            mut transcript,
        } = name(&self.private, &self.public, message)?;
        if peer != *self.peer.as_bytes() {
            return Err(Reject::WgHandshake);
        }
        let key = transcript.mix_key(self.static_shared().ok_or(Reject::WgHandshake)?);
        let stamp = transcript
            .open(&key, field::<28>(message, 88)?)
            .ok_or(Reject::WgHandshake)?;
        Ok(Received {
            stamp,
            index: index(message, 4)?,
            ephemeral,
            transcript,
        })
    }

    /// Writes the second message. `random` becomes the ephemeral key.
    pub(super) fn respond(
        &self,
        received: Received,
        random: &Secret,
        index: u32,
        out: &mut Vec<u8>,
    ) -> Result<SessionKeys, Reject> {
        let ephemeral = StaticSecret::from(**random);
        let public = x25519_dalek::PublicKey::from(&ephemeral);
        let mut transcript = received.transcript;
        out.clear();
        out.extend_from_slice(&[2, 0, 0, 0]);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&received.index.to_le_bytes());
        out.extend_from_slice(public.as_bytes());
        transcript.mix_ephemeral(public.as_bytes());
        for theirs in [&received.ephemeral, &self.peer] {
            let shared = exchange(&ephemeral, theirs).ok_or(Reject::WgHandshake)?;
            transcript.mix_key(shared.as_bytes());
        }
        let key = transcript.mix_preshared(&self.preshared);
        transcript.seal(&key, &[], out);
        let [receiving, sending] = transcript.split();
        Ok(SessionKeys {
            local: index,
            remote: received.index,
            sending,
            receiving,
        })
    }

    /// Reads the second message, which answers `initiation`.
    pub(super) fn read_response(
        &self,
        initiation: &Initiation,
        message: &[u8],
    ) -> Result<SessionKeys, Reject> {
        let ephemeral = x25519_dalek::PublicKey::from(*field::<32>(message, 12)?);
        let mut transcript = initiation.transcript.clone();
        transcript.mix_ephemeral(ephemeral.as_bytes());
        for ours in [&initiation.ephemeral, &self.private] {
            let shared = exchange(ours, &ephemeral).ok_or(Reject::WgHandshake)?;
            transcript.mix_key(shared.as_bytes());
        }
        let key = transcript.mix_preshared(&self.preshared);
        let [] = transcript
            .open(&key, field::<16>(message, 44)?)
            .ok_or(Reject::WgHandshake)?;
        let [sending, receiving] = transcript.split();
        Ok(SessionKeys {
            local: initiation.index,
            remote: index(message, 4)?,
            sending,
            receiving,
        })
    }

    fn static_shared(&self) -> Option<&[u8; 32]> {
        let shared = self.shared.was_contributory();
        shared.then(|| self.shared.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn an_exchange_with_a_point_of_low_order_is_none() {
        let secret = StaticSecret::from([7; 32]);
        for point in [
            hex!("0000000000000000000000000000000000000000000000000000000000000000"),
            hex!("0100000000000000000000000000000000000000000000000000000000000000"),
            hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
            hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ] {
            assert!(exchange(&secret, &point.into()).is_none(), "{point:x?}");
        }
        let other = x25519_dalek::PublicKey::from(&StaticSecret::from([8; 32]));
        assert!(exchange(&secret, &other).is_some());
    }
}
