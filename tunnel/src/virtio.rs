//! The header in front of each frame of the TAP (virtio 1.3, section 5.1.6), without `num_buffers`.

/// Bytes of the header.
pub const LEN: usize = 10;

/// What a frame still needs before it may leave over hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`Header::NEEDS_CSUM`] and others.
    pub flags: u8,
    /// [`Gso`] as a number, with [`Header::GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all headers, a hint that may lie on forwarded packets; never used.
    pub hdr_len: u16,
    /// Bytes of payload in each segment.
    pub gso_size: u16,
    /// Where the sum starts, from the start of the frame.
    pub csum_start: u16,
    /// Where it is stored, from `csum_start`.
    pub csum_offset: u16,
}

/// What a super-frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one size.
    UdpL4,
}

impl Header {
    /// `csum_start` and `csum_offset` count: the checksum is to be filled in.
    pub const NEEDS_CSUM: u8 = 1;
    /// In `gso_type`: the segments carry congestion marks.
    pub const GSO_ECN: u8 = 0x80;

    /// A frame that is complete.
    pub const COMPLETE: Self = Self {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads the header; the device was set to little endian.
    pub fn parse(bytes: &[u8; LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// Writes the header.
    pub fn encode(self) -> [u8; LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, word) in [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ]
        .into_iter()
        .enumerate()
        {
            bytes[2 + at * 2..4 + at * 2].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Whether the checksum is still to be filled in.
    pub fn needs_checksum(self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// What the frame is made of; `None` where the type is one that was not asked for.
    pub fn gso(self) -> Option<Gso> {
        match self.gso_type & !Self::GSO_ECN {
            0 => Some(Gso::None),
            1 => Some(Gso::TcpV4),
            4 => Some(Gso::TcpV6),
            5 => Some(Gso::UdpL4),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn golden_bytes() {
        let bytes = hex!("01 81 4200 7005 2200 1000");
        let header = Header {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 66,
            gso_size: 1392,
            csum_start: 34,
            csum_offset: 16,
        };
        assert_eq!(Header::parse(&bytes), header);
        assert_eq!(header.encode(), bytes);
        assert_eq!(header.gso(), Some(Gso::TcpV4));
        assert_eq!(
            Header {
                gso_type: 3,
                ..header
            }
            .gso(),
            None,
            "UFO is never asked for"
        );
    }
}
