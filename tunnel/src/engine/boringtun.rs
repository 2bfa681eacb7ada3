//! The engine over boringtun's `noise::Tunn`.
//!
//! What boringtun leaves open and is covered here or by the caller: random indices, padding (the
//! plaintexts come padded), an explicit end of attempts (the lane starts again), and no queue of
//! its own (packets never enter it without a session). docs/security.md lists what stays open.

use super::{DATA_OVERHEAD, Engine, HANDSHAKE_MAX, Handshake, Opened, Timeout};
use crate::batch::{Batch, Datagrams};
use crate::clock;
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::reject::Reject;
use crate::wireguard::{REJECT_AFTER_MESSAGES, data_header};
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One `Tunn`.
pub struct BoringtunEngine {
    tunn: Tunn,
}

impl BoringtunEngine {
    /// An engine for one pair of keys. `index` is the random upper 24 bits of its session indices.
    ///
    /// `unlimited` must never be under load: the limits stand in front of the engine.
    pub fn new(
        private: &PrivateKey,
        peer: &PublicKey,
        preshared: Option<&PresharedKey>,
        index: u32,
        unlimited: Arc<RateLimiter>,
        now: Instant,
    ) -> Self {
        clock::observe(now);
        let peer = boringtun::x25519::PublicKey::from(*peer.as_bytes());
        let preshared = preshared.map(|key| *key.as_bytes());
        Self {
            tunn: Tunn::new(
                private.to_static_secret(),
                peer,
                preshared,
                None,
                index,
                Some(unlimited),
            ),
        }
    }

    /// A limiter for [`Self::new`]: it checks MACs and limits nothing.
    pub fn unlimited(public: &PublicKey) -> Arc<RateLimiter> {
        let public = boringtun::x25519::PublicKey::from(*public.as_bytes());
        Arc::new(RateLimiter::new(&public, u64::MAX))
    }
}

impl fmt::Debug for BoringtunEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoringtunEngine").finish_non_exhaustive()
    }
}

/// Runs one call of `Tunn` that may write a message, into a vector.
fn written(
    out: &mut Vec<u8>,
    call: impl FnOnce(&mut [u8]) -> Result<usize, WireGuardError>,
) -> Result<bool, WireGuardError> {
    out.resize(HANDSHAKE_MAX, 0);
    let length = call(out);
    out.truncate(*length.as_ref().unwrap_or(&0));
    length.map(|length| length > 0)
}

fn message_length(result: &TunnResult<'_>) -> usize {
    match result {
        TunnResult::WriteToNetwork(message) => message.len(),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => 0,
    }
}

fn length_or_error(result: TunnResult<'_>) -> Result<usize, WireGuardError> {
    if let TunnResult::Err(error) = result {
        return Err(error);
    }
    Ok(message_length(&result))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else boringtun finds, it did not decrypt"
)]
fn data_reject(error: &WireGuardError) -> Reject {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => Reject::WgReplay,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Reject::WgNoSession,
        WireGuardError::InvalidPacket => Reject::WgPlaintext,
        _ => Reject::WgDecrypt,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else boringtun finds, it is no good handshake"
)]
fn handshake_reject(error: &WireGuardError) -> Reject {
    match error {
        WireGuardError::InvalidMac => Reject::WgMac1,
        WireGuardError::UnderLoad => Reject::WgUnderLoad,
        WireGuardError::WrongTai64nTimestamp | WireGuardError::InvalidTai64nTimestamp => {
            Reject::WgTimestamp
        }
        _ => Reject::WgHandshake,
    }
}

impl Engine for BoringtunEngine {
    fn session_age(&self, now: Instant) -> Option<Duration> {
        clock::observe(now);
        self.tunn.time_since_last_handshake()
    }

    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) {
        clock::observe(now);
        for (plaintext, _) in plaintexts.iter() {
            let length = (plaintext.len() + DATA_OVERHEAD).max(HANDSHAKE_MAX);
            let sealed = out.push_with(length, |room| {
                Ok::<_, Infallible>((
                    message_length(&self.tunn.encapsulate(plaintext, room)),
                    endpoint,
                ))
            });
            match sealed {
                Ok(()) => {}
            }
        }
    }

    fn keepalive(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.session_age(now).is_some()
            && written(out, |room| {
                length_or_error(self.tunn.encapsulate(&[], room))
            })
            .unwrap_or(false)
    }

    fn open<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
        now: Instant,
        out: &mut Batch<Opened>,
    ) {
        clock::observe(now);
        for message in messages {
            // boringtun adds to the counter, which is the sender's to choose: one near the top of its
            // range would overflow there. No honest sender comes near (whitepaper, section 6.2).
            if data_header(message).counter >= REJECT_AFTER_MESSAGES {
                out.push(&[], Opened::Rejected(Reject::WgReplay));
                continue;
            }
            let opened = out.push_with(message.len().max(HANDSHAKE_MAX), |room| {
                Ok::<_, Infallible>(match self.tunn.decapsulate(None, message, room) {
                    TunnResult::WriteToTunnelV4(packet, _)
                    | TunnResult::WriteToTunnelV6(packet, _) => (packet.len(), Opened::Packet),
                    TunnResult::Done | TunnResult::WriteToNetwork(_) => (0, Opened::Keepalive),
                    TunnResult::Err(error) => (0, Opened::Rejected(data_reject(&error))),
                })
            });
            match opened {
                Ok(()) => {}
            }
        }
    }

    fn handle_handshake(
        &mut self,
        message: &[u8],
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Reject> {
        clock::observe(now);
        let sent = written(reply, |room| {
            length_or_error(self.tunn.decapsulate(None, message, room))
        });
        match sent {
            Ok(true) => Ok(Handshake::Reply),
            Ok(false) => Ok(Handshake::Done),
            Err(error) => Err(handshake_reject(&error)),
        }
    }

    fn initiate(&mut self, again: bool, now: Instant, out: &mut Vec<u8>) -> bool {
        clock::observe(now);
        // boringtun's timers count from the last tick; without one, a handshake started now would
        // be as old as that tick.
        let mut ignored = [0; HANDSHAKE_MAX];
        if self.tunn.is_expired() {
            let _ = self.tunn.update_timers(&mut ignored);
        }
        written(out, |room| {
            length_or_error(self.tunn.format_handshake_initiation(room, again))
        })
        .unwrap_or(false)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Timeout {
        clock::observe(now);
        match written(out, |room| length_or_error(self.tunn.update_timers(room))) {
            Ok(true) => Timeout::Send,
            Ok(false) => Timeout::Idle,
            Err(WireGuardError::ConnectionExpired) => Timeout::Expired,
            // Nothing else comes from the timers but a failed random number generator.
            Err(_) => Timeout::Idle,
        }
    }
}
