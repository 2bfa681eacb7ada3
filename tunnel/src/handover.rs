//! What a data plane and its successor say to each other while one takes over from the other.
//!
//! | from | message | means |
//! |---|---|---|
//! | successor | `Hello` | it runs, and speaks this version |
//! | predecessor | `Accepted` | control is frozen; the lanes in use, and the session indices that are taken |
//! | predecessor | a datagram | it was for no session of the predecessor's |
//! | successor | `Ready` | every lane in use has a new session, or it has waited long enough |
//! | predecessor | `Tap` | it reads the TAP no more |
//! | predecessor | `Udp` | it reads the sockets no more, and ends |
//!
//! Both seal and open while this lasts: a peer takes data of the old session and the new, so no
//! packet needs to wait for a handshake, and none is lost. From `Accepted` on only the successor
//! shakes hands: a session that the predecessor made would be the peers' newest, and end with it.
//!
//! A side that goes away leaves all to the other: the predecessor goes on as if nothing had been, the
//! successor takes over at once. A successor that lives and does not answer is ended, by its
//! predecessor or by the keeper: it is the one of the two that has proven nothing yet.

use crate::key::PublicKey;
use crate::lane::LaneNumber;
use crate::status::Counters;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The version of this protocol. A predecessor that speaks another ends, as by a crash.
pub const VERSION: u32 = 2;

/// What a successor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Successor {
    /// It runs.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Its process, which the predecessor ends if it stops to answer.
        pid: i32,
    },
    /// It can carry everything that the predecessor carries.
    Ready,
}

/// What a predecessor says, beside datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Predecessor {
    /// It has frozen its state.
    Accepted(Inheritance),
    /// The TAP is the successor's.
    Tap,
    /// The sockets are the successor's, and so are the counts so far.
    Udp(Counters),
}

/// What a successor has to know of the lanes that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inheritance {
    /// The pairs of lanes that have a session.
    pub in_use: Vec<InUse>,
    /// Upper 24 bits of every session index of the predecessor's.
    pub indices: Vec<u32>,
}

/// A pair of lanes with a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InUse {
    /// This node's lane.
    pub own: LaneNumber,
    /// Its key; a predecessor that has no other does not say so.
    #[serde(default)]
    pub own_key: Option<PublicKey>,
    /// The key of the peer's.
    pub public_key: PublicKey,
    /// Where the peer was heard last; it may have roamed.
    pub endpoint: SocketAddr,
}

impl InUse {
    /// Whether it was a pair of this key of ours.
    pub(crate) fn is_of(&self, own_key: PublicKey) -> bool {
        self.own_key.is_none_or(|key| key == own_key)
    }
}

/// One message of a predecessor's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Something that it says.
    Said(Predecessor),
    /// A datagram, to which of this node's lanes it came, and where from.
    Datagram(LaneNumber, SocketAddr, &'a [u8]),
}

/// First byte of a message that is JSON.
const SAID: u8 = 0;
/// First byte of a datagram: lane (1), port (2, big endian) and IPv6 or mapped IPv4 address (16) follow.
const DATAGRAM: u8 = 1;
/// Bytes before a datagram's own.
const DATAGRAM_HEADER: usize = 20;

/// Why bytes are no message of a predecessor.
#[derive(Debug, thiserror::Error)]
#[error("not a message of a data plane that hands over")]
pub struct NotAMessage;

/// The bytes of something said.
///
/// # Errors
/// None in practice: serde_json's.
pub fn encode(said: &Predecessor) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![SAID];
    serde_json::to_writer(&mut bytes, said)?;
    Ok(bytes)
}

/// Writes a datagram's message into `out`, in place of what was there.
pub fn encode_datagram(out: &mut Vec<u8>, lane: LaneNumber, from: SocketAddr, datagram: &[u8]) {
    let address = match from.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    out.clear();
    out.push(DATAGRAM);
    out.push(lane.into());
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&address.octets());
    out.extend_from_slice(datagram);
}

/// Reads a message.
///
/// # Errors
/// When the bytes are none.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, NotAMessage> {
    match bytes.split_first() {
        Some((&SAID, json)) => serde_json::from_slice(json)
            .map(Message::Said)
            .map_err(|_| NotAMessage),
        Some((&DATAGRAM, _)) => {
            let (header, datagram) = bytes
                .split_first_chunk::<DATAGRAM_HEADER>()
                .ok_or(NotAMessage)?;
            let &[_, lane, high, low, ref address @ ..] = header;
            let lane = LaneNumber::new(lane).map_err(|_| NotAMessage)?;
            let address: [u8; 16] = *address;
            let address = Ipv6Addr::from(address).to_canonical();
            let from = SocketAddr::new(address, u16::from_be_bytes([high, low]));
            Ok(Message::Datagram(lane, from, datagram))
        }
        _ => Err(NotAMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_keep_their_source_and_their_bytes() {
        let mut bytes = vec![9; 40];
        for (lane, from) in [(0, "192.0.2.1:51820"), (15, "[2001:db8::1]:4500")] {
            let (lane, from) = (LaneNumber::new(lane).unwrap(), from.parse().unwrap());
            encode_datagram(&mut bytes, lane, from, b"abc");
            assert_eq!(
                decode(&bytes).unwrap(),
                Message::Datagram(lane, from, b"abc")
            );
        }
        for length in 0..DATAGRAM_HEADER {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn what_is_said_comes_back_and_nothing_else_does() {
        let said = Predecessor::Accepted(Inheritance {
            in_use: vec![InUse {
                own: LaneNumber::default(),
                own_key: Some(PublicKey::new([8; 32])),
                public_key: PublicKey::new([7; 32]),
                endpoint: "192.0.2.1:51820".parse().unwrap(),
            }],
            indices: vec![1, 2],
        });
        let bytes = encode(&said).unwrap();
        assert_eq!(decode(&bytes).unwrap(), Message::Said(said));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(&[]).is_err());
        assert!(decode(&[2, 0, 0]).is_err());
    }
}
