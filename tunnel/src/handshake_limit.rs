//! How many handshakes one source may send, ahead of the limit for all sources together.
//!
//! boringtun's limiter is one counter for everybody: a single noisy source would put all others
//! behind cookies (T3, F34). Here each source has a token bucket first.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Handshakes a second that one source may send. A gateway that speaks for many nodes fits.
const RATE: u32 = 50;

/// Handshakes that may come at once, as after a reboot.
const BURST: u32 = 100;

/// Sources that are remembered. Past that the ones with a full bucket are forgotten, and if none
/// is full, all: the common limit and cookies still stand behind.
const MAX_SOURCES: usize = 4096;

/// Token buckets by source address.
#[derive(Debug, Default)]
pub struct HandshakeLimit {
    sources: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let tokens =
            u32::try_from(passed.as_micros() * u128::from(RATE) / 1_000_000).unwrap_or(u32::MAX);
        if tokens > 0 {
            self.tokens = self.tokens.saturating_add(tokens).min(BURST);
            // Keeps the part of a token that was not yet earned.
            self.at = if self.tokens == BURST {
                now
            } else {
                self.at + Duration::from_secs(1) / RATE * tokens
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
    /// Whether one more handshake from `address` may be looked at.
    pub fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let source = source(address);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < BURST
            });
            if self.sources.len() >= MAX_SOURCES {
                self.sources.clear();
            }
        }
        let bucket = self.sources.entry(source).or_insert(Bucket {
            tokens: BURST,
            at: now,
        });
        bucket.refill(now);
        let admitted = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        admitted
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
        assert!(limit.sources.len() <= MAX_SOURCES);
    }
}
