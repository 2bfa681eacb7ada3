//! boringtun's `noise::Tunn` as an engine: WireGuard as others wrote it, which ours is held against.
//!
//! boringtun reads its own clock. In tests it is one that stands still on each thread until somebody
//! moves it, and every call here moves it to `now`. All engines of a test live on one thread and so
//! share it.

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::engine::{DATA_OVERHEAD, Engine, HANDSHAKE_MAX, Handshake, Opened, Timeout};
use hawser_tunnel::reject::Reject;
use hawser_tunnel::wireguard::{REJECT_AFTER_MESSAGES, data_header};
use mock_instant::MockClock;
use std::cell::OnceCell;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One `Tunn`.
pub struct BoringtunEngine {
    tunn: Tunn,
}

impl BoringtunEngine {
    /// An engine for a pair of keys. `index` is the random upper 24 bits of its session indices.
    pub fn new(
        private: [u8; 32],
        peer: [u8; 32],
        preshared: Option<[u8; 32]>,
        index: u32,
        now: Instant,
    ) -> Self {
        observe(now);
        let private = x25519::StaticSecret::from(private);
        let public = x25519::PublicKey::from(&private);
        let unlimited = Arc::new(RateLimiter::new(&public, u64::MAX));
        let peer = x25519::PublicKey::from(peer);
        Self {
            tunn: Tunn::new(private, peer, preshared, None, index, Some(unlimited)),
        }
    }
}

/// boringtun's limiter, which asks for cookies.
pub struct Limiter(RateLimiter);

impl Limiter {
    /// One that asks everybody, in the name of `public`.
    pub fn asking(public: [u8; 32]) -> Self {
        Self(RateLimiter::new(&x25519::PublicKey::from(public), 0))
    }

    /// What it answers to a handshake message; `None` to one that shows its cookie.
    pub fn cookie_for(&self, message: &[u8], from: IpAddr, now: Instant) -> Option<Vec<u8>> {
        observe(now);
        let mut room = [0; HANDSHAKE_MAX];
        match self.0.verify_packet(Some(from), message, &mut room) {
            Err(TunnResult::WriteToNetwork(cookie)) => Some(cookie.to_vec()),
            Ok(_) => None,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Moves boringtun's clock on this thread.
fn observe(now: Instant) {
    thread_local!(static EPOCH: OnceCell<Instant> = const { OnceCell::new() });
    let passed = EPOCH.with(|epoch| now.saturating_duration_since(*epoch.get_or_init(|| now)));
    MockClock::set_time(passed);
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
        observe(now);
        self.tunn.time_since_last_handshake()
    }

    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) {
        observe(now);
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
        observe(now);
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
        observe(now);
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
        observe(now);
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
        observe(now);
        match written(out, |room| length_or_error(self.tunn.update_timers(room))) {
            Ok(true) => Timeout::Send,
            Ok(false) => Timeout::Idle,
            Err(WireGuardError::ConnectionExpired) => Timeout::Expired,
            // Nothing else comes from the timers but a failed random number generator.
            Err(_) => Timeout::Idle,
        }
    }
}
