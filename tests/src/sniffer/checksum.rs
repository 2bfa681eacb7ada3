//! The Internet checksum, for frames that are planted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1071 over `parts`, each of even length but the last.
pub(crate) fn internet(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    [high, low]
}

/// The same of a UDP datagram with its pseudo-header: a sum of zero would say that there is none, and a receiver of IPv6
/// drops such a datagram (RFC 768, RFC 8200 section 8.1).
fn of_datagram(pseudo: &[u8], datagram: &[u8]) -> [u8; 2] {
    match internet(&[pseudo, datagram]) {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    }
}

/// An IPv4 or IPv6 packet with a UDP datagram.
///
/// # Panics
/// When the payload does not fit into one packet.
pub(crate) fn udp(from: IpAddr, to: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("a planted payload is short");
    let mut datagram = Vec::with_capacity(usize::from(length));
    for word in [ports.0, ports.1, length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, length, datagram),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, length, datagram),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("both addresses are of one family")
        }
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, length: u16, mut datagram: Vec<u8>) -> Vec<u8> {
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &[0, 17],
        &length.to_be_bytes(),
    ]
    .concat();
    let sum = of_datagram(&pseudo, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    let mut header = vec![0x45, 0];
    header.extend((length + 20).to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = internet(&[&header]);
    header[10..12].copy_from_slice(&sum);
    [header, datagram].concat()
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, length: u16, mut datagram: Vec<u8>) -> Vec<u8> {
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, 17],
    ]
    .concat();
    let sum = of_datagram(&pseudo, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([17, 64]);
    header.extend(from.octets());
    header.extend(to.octets());
    [header, datagram].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_never_without_a_sum() {
        for (from, to, field) in [("10.1.1.10", "10.2.1.10", 26), ("fd01::a", "fd02::a", 46)] {
            let packet = |payload: u16| {
                let ends = (from.parse().unwrap(), to.parse().unwrap());
                udp(ends.0, ends.1, (1, 2), &payload.to_be_bytes())
            };
            // Each payload changes the sum by one: one of them makes it zero.
            let sums = (0..=u16::MAX).map(|payload| packet(payload)[field..][..2].to_vec());
            assert!(sums.into_iter().all(|sum| sum != [0, 0]), "{from}");
        }
    }

    #[test]
    fn the_sum_over_a_filled_header_is_zero() {
        let packet = udp(
            "10.1.1.10".parse().unwrap(),
            "10.2.1.10".parse().unwrap(),
            (1, 2),
            b"odd",
        );
        assert_eq!(internet(&[&packet[..20]]), [0, 0]);
        assert_eq!(packet.len(), 31);
    }
}
