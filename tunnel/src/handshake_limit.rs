//! How many handshakes one source may send, ahead of the limit for all sources together.
//!
//! One counter for everybody would let a single noisy source put all others behind cookies (T3, F34). Here each source has a token bucket first, and a second one for
//! messages that prove their source by a cookie, which nobody else can use up. Answers to our own
//! initiations need no share: [`crate::lane`] takes a few to each.

use crate::reject::Reject;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Handshakes a second that one source may send. A gateway that speaks for many nodes fits.
const RATE: u32 = 50;

/// Handshakes that may come at once, as after a reboot.
const BURST: u32 = 100;

/// Sources of one generation. Two are remembered; when the newer is full, the older is forgotten:
/// the common limit and cookies still stand behind.
const MAX_SOURCES: usize = 4096;

/// Handshakes a second from all sources together before every one is asked for a cookie.
const ALL_RATE: u32 = 2_000;

/// All limits in front of the engines.
#[derive(Debug, Default)]
pub struct HandshakeLimits {
    claimed: HandshakeLimit,
    proven: HandshakeLimit,
    all: Option<Bucket>,
}

impl HandshakeLimits {
    /// Why an initiation that only claims its source must prove it first; `None` where it need not.
    pub fn claimed(&mut self, address: IpAddr, now: Instant) -> Option<Reject> {
        if !self.claimed.admit(address, now) {
            return Some(Reject::WgSourceLimit);
        }
        let all = self.all.get_or_insert(Bucket {
            tokens: ALL_RATE,
            at: now,
        });
        (!all.take(now, ALL_RATE, ALL_RATE)).then_some(Reject::WgUnderLoad)
    }

    /// Whether one more initiation from a source that it has proven may be looked at.
    pub fn proven(&mut self, address: IpAddr, now: Instant) -> bool {
        self.proven.admit(address, now)
    }
}

/// Token buckets by source address.
#[derive(Debug, Default)]
pub struct HandshakeLimit {
    newer: HashMap<IpAddr, Bucket>,
    older: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    at: Instant,
}

impl Bucket {
    /// Takes a token, if there is one.
    fn take(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        self.refill(now, rate, burst);
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }

    fn refill(&mut self, now: Instant, rate: u32, burst: u32) {
        let passed = now.saturating_duration_since(self.at);
        let tokens = passed.as_micros() * u128::from(rate) / 1_000_000;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if tokens > 0 {
            self.tokens = self.tokens.saturating_add(tokens).min(burst);
            // Keeps the part of a token that was not yet earned.
            self.at = if self.tokens == burst {
                now
            } else {
                self.at + Duration::from_secs(1) / rate * tokens
            };
        }
    }
}

/// An IPv6 host has a /64 to itself, so that counts as one source.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

impl HandshakeLimit {
    /// How many sources are remembered; bounded, however many send.
    pub fn sources(&self) -> usize {
        self.newer.len() + self.older.len()
    }

    /// Whether one more handshake from `address` may be looked at. Costs the same however many
    /// sources there are, so that a flood from all of them finds nothing to wear out.
    pub fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let source = source(address);
        if let Some(bucket) = self.newer.get_mut(&source) {
            return bucket.take(now, RATE, BURST);
        }
        if self.newer.len() >= MAX_SOURCES {
            self.older = std::mem::take(&mut self.newer);
        }
        let fresh = Bucket {
            tokens: BURST,
            at: now,
        };
        let known = self.older.remove(&source).unwrap_or(fresh);
        let bucket = self.newer.entry(source).or_insert(known);
        bucket.take(now, RATE, BURST)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test starts its own time somewhere"
)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_source_costs_only_itself() {
        let now = Instant::now();
        let mut limit = HandshakeLimit::default();
        let noisy: IpAddr = "192.0.2.1".parse().unwrap();
        let admitted = (0..20_000).filter(|_| limit.admit(noisy, now)).count();
        assert_eq!(admitted, 100);
        assert!(limit.admit("192.0.2.2".parse().unwrap(), now));
        let later = now + Duration::from_secs(1);
        assert_eq!(
            (0..20_000).filter(|_| limit.admit(noisy, later)).count(),
            50
        );
    }

    #[test]
    fn tokens_are_earned_at_the_rate_however_often_one_asks() {
        let start = Instant::now();
        let mut limit = HandshakeLimit::default();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let admitted = (0..10_000_u64)
            .filter(|ms| limit.admit(source, start + Duration::from_millis(*ms)))
            .count();
        assert_eq!(
            admitted,
            100 + 10 * 50 - 1,
            "the last token is earned at 10,000 ms"
        );
    }

    #[test]
    fn a_busy_source_is_not_forgotten_while_others_come_and_go() {
        let now = Instant::now();
        let mut limit = HandshakeLimit::default();
        let noisy: IpAddr = "192.0.2.1".parse().unwrap();
        let mut admitted = 0;
        for low in 0..100_000_u32 {
            limit.admit(IpAddr::V4((0x0a00_0000 + low).into()), now);
            admitted += u32::from(low % 100 == 0 && limit.admit(noisy, now));
        }
        assert_eq!(admitted, BURST);
    }

    #[test]
    fn proven_sources_have_a_share_of_their_own() {
        let now = Instant::now();
        let mut limits = HandshakeLimits::default();
        let victim: IpAddr = "192.0.2.1".parse().unwrap();
        let refusals = (0..1_000).filter_map(|_| limits.claimed(victim, now));
        assert_eq!(refusals.last(), Some(Reject::WgSourceLimit));
        assert!(limits.proven(victim, now));
        for low in 0..ALL_RATE {
            limits.claimed(IpAddr::V4(low.into()), now);
        }
        let other = "192.0.2.2".parse().unwrap();
        assert_eq!(limits.claimed(other, now), Some(Reject::WgUnderLoad));
    }

    #[test]
    fn one_ipv6_host_is_one_source_and_memory_is_bounded() {
        let now = Instant::now();
        let mut limit = HandshakeLimit::default();
        let admitted = (0..1_000_u128)
            .filter(|low| limit.admit(IpAddr::V6((0x2001_0db8_u128 << 96 | low).into()), now))
            .count();
        assert_eq!(admitted, 100);
        for low in 0..100_000_u32 {
            limit.admit(IpAddr::V4(low.into()), now);
        }
        assert!(limit.sources() <= 2 * MAX_SOURCES);
    }
}
