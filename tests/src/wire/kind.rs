//! What a frame carries, as far as counts need it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What a frame carries: a WireGuard message by its type and length, or something else.
///
/// Told from the frame as it came to the wire, before a bit of it was flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Message 1.
    Initiation,
    /// Message 2.
    Response,
    /// Message 3.
    Cookie,
    /// Message 4 with a packet inside.
    Data,
    /// Message 4 with nothing inside.
    Keepalive,
    /// No WireGuard message.
    Other,
}

const ETHERNET: usize = 14;
const UDP: usize = 8;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Initiation,
        Self::Response,
        Self::Cookie,
        Self::Data,
        Self::Keepalive,
        Self::Other,
    ];

    /// Tells what a frame carries. Fragments and packets with IPv6 extension headers are [`Self::Other`].
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        udp_payload(frame).map_or(Self::Other, |payload| match (payload, payload.len()) {
            ([1, 0, 0, 0, ..], 148) => Self::Initiation,
            ([2, 0, 0, 0, ..], 92) => Self::Response,
            ([3, 0, 0, 0, ..], 64) => Self::Cookie,
            ([4, 0, 0, 0, ..], 32) => Self::Keepalive,
            ([4, 0, 0, 0, ..], 33..) => Self::Data,
            _ => Self::Other,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Initiation => "initiation",
            Self::Response => "response",
            Self::Cookie => "cookie",
            Self::Data => "data",
            Self::Keepalive => "keepalive",
            Self::Other => "other",
        }
    }
}

fn udp_payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET..)?;
    let (protocol, header, length) = match (frame.get(12..ETHERNET)?, packet.first()? >> 4) {
        ([0x08, 0x00], 4) => {
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
            if fragment != 0 {
                return None;
            }
            let length = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
            let header = usize::from(packet.first()? & 0xf) * 4;
            (*packet.get(9)?, header, usize::from(length))
        }
        ([0x86, 0xdd], 6) => {
            let length = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]);
            (*packet.get(6)?, 40, 40 + usize::from(length))
        }
        _ => return None,
    };
    if protocol != 17 {
        return None;
    }
    packet.get(header + UDP..length)
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        match found {
            Some(kind) => Ok(kind),
            None => bail!("kind: {text:?}: must be the kind of a message, or other"),
        }
    }
}
