//! Handshakes from any sources at any times.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use hawser_tunnel::handshake_limit::{HandshakeLimit, HandshakeLimits};
use hawser_tunnel::reject::Reject;

use super::source::Source;

/// What the module says of itself: sources that are remembered, and what one may do.
const MOST_SOURCES: usize = 2 * 4096;
const BURST: u32 = 100;
const RATE: u32 = 50;
const ALL: u32 = 2_000;

/// Target: memory is bounded, and no source gets more than its burst and its rate.
pub(super) fn sources(input: &[u8]) {
    let mut source = Source::new(input);
    let mut limit = HandshakeLimit::default();
    let mut limits = HandshakeLimits::default();
    let start = Instant::now() + Duration::from_secs(3600);
    let (mut now, mut earliest, mut latest) = (start, start, start);
    let mut admitted: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let mut all = 0_u32;
    let mut seen = 0;
    for _ in 0..32 {
        if source.is_empty() {
            break;
        }
        let step = Duration::from_micros(source.pick(&[0, 1, 19_999, 20_000, 500_000, 3_000_000]));
        // A caller's clocks may cross: time that goes back gives nothing.
        now = if source.once_in(8) {
            now.checked_sub(step).unwrap_or(now)
        } else {
            now + step
        };
        (earliest, latest) = (earliest.min(now), latest.max(now));
        let address = address(&mut source);
        for more in 0..source.pick(&[1_u32, 1, 1, 60, 60, 150, 150, 5_000]) {
            let swept = matches!(source_kind(address), Kind::Swept);
            let address = if swept { next(address, more) } else { address };
            seen += u32::from(swept);
            if limit.admit(address, now) {
                *admitted.entry(share(address)).or_default() += 1;
            }
            match limits.claimed(address, now) {
                None => all += 1,
                Some(reason) => assert!(matches!(
                    reason,
                    Reject::WgSourceLimit | Reject::WgUnderLoad
                )),
            }
        }
        assert!(
            limit.sources() <= MOST_SOURCES,
            "{} sources",
            limit.sources()
        );
        let earned = |rate: u32| {
            u32::try_from((latest - earliest).as_micros() * u128::from(rate) / 1_000_000)
                .expect("minutes")
        };
        // Time that went back gives nothing twice. Forgotten sources start anew, so they are not counted.
        if seen == 0 {
            for (address, &count) in &admitted {
                assert!(
                    count <= BURST + earned(RATE) + 1,
                    "{address}: {count} handshakes"
                );
            }
        }
        assert!(
            all <= ALL + earned(ALL) + 1,
            "{all} handshakes of all sources"
        );
    }
}

enum Kind {
    One,
    Swept,
}

fn source_kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 10 => Kind::Swept,
        IpAddr::V4(_) | IpAddr::V6(_) => Kind::One,
    }
}

fn address(source: &mut Source<'_>) -> IpAddr {
    match source.pick(&[0, 1, 2, 3]) {
        0 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, source.any())),
        1 => IpAddr::V6(Ipv6Addr::from(
            0x2001_0db8_u128 << 96 | u128::from(source.any::<u64>()),
        )),
        2 => IpAddr::V4(Ipv4Addr::new(10, source.any(), 0, 0)),
        _ => IpAddr::V6(Ipv6Addr::from(source.array::<16>())),
    }
}

fn next(address: IpAddr, more: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(v4.to_bits().wrapping_add(more))),
        IpAddr::V6(v6) => IpAddr::V6(v6),
    }
}

/// An IPv6 host has a /64 to itself.
fn share(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(v6.to_bits() >> 64 << 64)),
    }
}
