//! How large a pod packet may be: underlay − outer headers, in whole cipher blocks, − 48.
//!
//! | underlay | 1280 | 1500 | 9000 |
//! |---|---|---|---|
//! | pod MTU, IPv4 underlay | 1168 | 1392 | 8880 |
//! | pod MTU, IPv6 underlay | 1152 | 1360 | 8864 |

use std::net::IpAddr;

/// The smallest underlay that is supported: every IPv6 link has it (RFC 8200, section 5).
pub const MIN_UNDERLAY: u16 = 1280;

/// The smallest MTU that IPv6 may be told (RFC 8200, section 5).
pub const MIN_IPV6: u16 = 1280;

/// Overlay IPv4 (20) + UDP (8) + Geneve (8) + our option (12).
pub const OVERLAY_OVERHEAD: u16 = 48;

/// UDP (8) + WireGuard's header (16) and tag (16).
const OUTER_OVERHEAD: u16 = 8 + 32;

/// WireGuard pads plaintext to multiples of this (whitepaper, section 5.4.6).
pub const BLOCK: u16 = 16;

/// The largest plaintext of one WireGuard message over an underlay to `peer`.
pub fn plaintext(underlay: u16, peer: IpAddr) -> u16 {
    let ip = match peer {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    underlay.saturating_sub(ip + OUTER_OVERHEAD) / BLOCK * BLOCK
}

/// The largest pod packet that goes out in one piece.
pub fn pod(underlay: u16, peer: IpAddr) -> u16 {
    plaintext(underlay, peer).saturating_sub(OVERLAY_OVERHEAD)
}

/// The MTU for routes that carry IPv6: what does not fit in one piece goes in two, since no IPv6
/// sender may be told less than 1280.
pub fn pod_ipv6(underlay: u16, peer: IpAddr) -> u16 {
    pod(underlay, peer).max(MIN_IPV6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn the_table_of_the_design() {
        for (underlay, over_v4, over_v6) in
            [(1280, 1168, 1152), (1500, 1392, 1360), (9000, 8880, 8864)]
        {
            assert_eq!(pod(underlay, V4), over_v4, "underlay {underlay}");
            assert_eq!(pod(underlay, V6), over_v6, "underlay {underlay}");
        }
        assert_eq!(pod_ipv6(1280, V4), 1280);
        assert_eq!(pod_ipv6(1500, V6), 1360);
    }

    proptest! {
        #[test]
        fn the_largest_packet_fits_and_a_block_more_would_not(underlay in MIN_UNDERLAY..=u16::MAX) {
            for (peer, ip) in [(V4, 20), (V6, 40)] {
                let wire = u32::from(pod(underlay, peer) + OVERLAY_OVERHEAD).div_ceil(16) * 16 + 32 + 8 + ip;
                prop_assert!(wire <= u32::from(underlay));
                prop_assert!(wire + 16 > u32::from(underlay));
            }
        }
    }
}
