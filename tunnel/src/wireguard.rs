//! WireGuard's messages as far as they show without keys (whitepaper, section 5.4).

use crate::key::PublicKey;
use crate::reject::Reject;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
/// A cookie reply.
pub const COOKIE_LEN: usize = 64;
/// Header (16) and tag (16); a keepalive is no longer.
const DATA_MIN: usize = 32;
/// One MAC.
pub(crate) const MAC_LEN: usize = 16;
/// Both MACs at the end of a handshake message.
pub(crate) const MACS_LEN: usize = 2 * MAC_LEN;

/// Counters from here on are never used (whitepaper, section 6.2).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A message by its kind and the index of the session that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Starts a handshake.
    Initiation,
    /// Answers one of ours.
    Response {
        /// The index that we chose.
        receiver: u32,
    },
    /// Asks for proof of address before a handshake goes on.
    Cookie {
        /// The index that we chose.
        receiver: u32,
    },
    /// Carries a packet, or nothing.
    Data {
        /// The index that we chose.
        receiver: u32,
    },
}

/// The part of a data message that stands in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The receiver's index of the session.
    pub receiver: u32,
    /// The nonce.
    pub counter: u64,
}

impl Message {
    /// Reads type, reserved bits and length, which must fit each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reject> {
        let &[kind, 0, 0, 0, ..] = bytes else {
            return Err(Reject::WgMalformed);
        };
        let index = |at: usize| -> Result<u32, Reject> {
            let field = bytes
                .get(at..at + 4)
                .and_then(|field| field.first_chunk())
                .ok_or(Reject::WgMalformed)?;
            Ok(u32::from_le_bytes(*field))
        };
        match (kind, bytes.len()) {
            (1, INITIATION_LEN) => Ok(Self::Initiation),
            (2, RESPONSE_LEN) => Ok(Self::Response {
                receiver: index(8)?,
            }),
            (3, COOKIE_LEN) => Ok(Self::Cookie {
                receiver: index(4)?,
            }),
            (4, DATA_MIN..) => Ok(Self::Data {
                receiver: index(4)?,
            }),
            _ => Err(Reject::WgMalformed),
        }
    }
}

/// Receiver and counter of a data message; zeros of what is none.
pub fn data_header(message: &[u8]) -> DataHeader {
    match message.first_chunk::<16>() {
        Some(&[4, _, _, _, r0, r1, r2, r3, counter @ ..]) => DataHeader {
            receiver: u32::from_le_bytes([r0, r1, r2, r3]),
            counter: u64::from_le_bytes(counter),
        },
        _ => DataHeader {
            receiver: 0,
            counter: 0,
        },
    }
}

/// Checks the first MAC of handshake messages, which shows that their sender knows our key. It is
/// cheap and comes before every limit, so that garbage uses up nobody's share (T3).
pub struct Mac1 {
    key: Zeroizing<[u8; 32]>,
}

impl Mac1 {
    /// For messages to `public`.
    pub fn new(public: &PublicKey) -> Self {
        let digest = Blake2s256::new()
            .chain_update(b"mac1----")
            .chain_update(public.as_bytes())
            .finalize();
        Self {
            key: Zeroizing::new(digest.into()),
        }
    }

    /// Whether the MAC of a handshake message is right.
    pub fn verify(&self, message: &[u8]) -> bool {
        let Some(signed) = message.len().checked_sub(MACS_LEN) else {
            return false;
        };
        let Ok(mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(&*self.key) else {
            return false;
        };
        mac.chain_update(&message[..signed])
            .verify_slice(&message[signed..signed + 16])
            .is_ok()
    }

    /// The MAC of a message that ends where it is to stand.
    pub(crate) fn of(&self, message: &[u8]) -> [u8; 16] {
        mac(&*self.key, message)
    }
}

/// WireGuard's MAC: keyed BLAKE2s of 16 bytes. `key` has 32 bytes at most.
pub(crate) fn mac(key: &[u8], message: &[u8]) -> [u8; 16] {
    <Blake2sMac<U16> as KeyInit>::new_from_slice(key)
        .expect("BLAKE2s takes keys of 32 bytes and less")
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

impl std::fmt::Debug for Mac1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mac1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_reserved_bits_and_length_must_fit() {
        for (kind, length) in [(1_u8, 148_usize), (2, 92), (3, 64)] {
            for wrong in [length - 1, length + 1, 0, 3, 4] {
                let mut bytes = vec![0; wrong];
                if let Some(first) = bytes.first_mut() {
                    *first = kind;
                }
                assert_eq!(
                    Message::parse(&bytes),
                    Err(Reject::WgMalformed),
                    "type {kind}, {wrong} bytes"
                );
            }
            let mut bytes = vec![0; length];
            bytes[0] = kind;
            assert!(Message::parse(&bytes).is_ok());
            bytes[2] = 1;
            assert_eq!(Message::parse(&bytes), Err(Reject::WgMalformed), "reserved");
        }
        for kind in [0, 5, 255] {
            assert_eq!(Message::parse(&[kind; 148]), Err(Reject::WgMalformed));
        }
        assert_eq!(
            Message::parse(&[&[4, 0, 0, 0, 1, 2, 3, 4][..], &[0; 23]].concat()),
            Err(Reject::WgMalformed)
        );
        let data = [&[4, 0, 0, 0, 1, 2, 3, 4][..], &[0; 24]].concat();
        assert_eq!(
            Message::parse(&data),
            Ok(Message::Data {
                receiver: 0x0403_0201
            })
        );
        assert_eq!(
            data_header(&data),
            DataHeader {
                receiver: 0x0403_0201,
                counter: 0
            }
        );
    }
}
