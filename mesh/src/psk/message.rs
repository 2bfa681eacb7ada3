//! The one request and the one answer of a session (docs/wire.md, "Pre-shared keys"). No key is in either.
//!
//! Fields are added, never renumbered.

use super::{Refusal, Terms};
use crate::record::MAX_LANES;
use bytes::Bytes;
use hawser_tunnel::key::PublicKey;
use prost::Message as _;

/// The longest message, in bytes, either way: twice 64 public keys.
pub const MAX_MESSAGE: usize = 8 << 10;

/// What the client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the keys are bound to.
    pub terms: Terms,
    /// [`Terms::confirmation`] of the client.
    pub confirmation: [u8; 32],
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has the keys, too.
    Accepted {
        /// [`Terms::confirmation`] of the server.
        confirmation: [u8; 32],
    },
    /// No.
    Refused {
        /// The name of the reason, one of [`Refusal`]'s or a newer one.
        name: String,
        /// The newest epoch that it knows with this client; 0: none.
        epoch: u64,
    },
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRequest {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    client: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    server: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "4")]
    confirmation: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAnswer {
    #[prost(oneof = "Said", tags = "1, 2")]
    said: Option<Said>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Said {
    #[prost(message, tag = "1")]
    Accepted(WireAccepted),
    #[prost(message, tag = "2")]
    Refused(WireRefused),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAccepted {
    #[prost(bytes = "bytes", tag = "1")]
    confirmation: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRefused {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
}

/// The longest name of a reason that is believed to be one.
const MAX_NAME: usize = 64;

impl Request {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let list = |keys: &[PublicKey]| {
            let bytes = keys
                .iter()
                .map(|key| Bytes::copy_from_slice(key.as_bytes()));
            bytes.collect()
        };
        let wire = WireRequest {
            epoch: self.terms.epoch,
            client: list(&self.terms.client),
            server: list(&self.terms.server),
            confirmation: Bytes::copy_from_slice(&self.confirmation),
        };
        wire.encode_to_vec().into()
    }

    /// Reads what came.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let wire = WireRequest::decode(bytes).map_err(|_| Refusal::Malformed)?;
        Ok(Self {
            terms: Terms {
                epoch: wire.epoch,
                client: keys(&wire.client)?,
                server: keys(&wire.server)?,
            },
            confirmation: fixed(&wire.confirmation)?,
        })
    }
}

impl Answer {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let said = match self {
            Self::Accepted { confirmation } => Said::Accepted(WireAccepted {
                confirmation: Bytes::copy_from_slice(confirmation),
            }),
            Self::Refused { name, epoch } => Said::Refused(WireRefused {
                name: name.clone(),
                epoch: *epoch,
            }),
        };
        WireAnswer { said: Some(said) }.encode_to_vec().into()
    }

    /// Reads what came.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let wire = WireAnswer::decode(bytes).map_err(|_| Refusal::Malformed)?;
        match wire.said.ok_or(Refusal::Malformed)? {
            Said::Accepted(accepted) => Ok(Self::Accepted {
                confirmation: fixed(&accepted.confirmation)?,
            }),
            Said::Refused(WireRefused { name, epoch }) => {
                let fits = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
                if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
                    return Err(Refusal::Malformed);
                }
                Ok(Self::Refused { name, epoch })
            }
        }
    }
}

fn fixed(bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    bytes.try_into().map_err(|_| Refusal::Malformed)
}

fn keys(list: &[Bytes]) -> Result<Vec<PublicKey>, Refusal> {
    if list.is_empty() || list.len() > MAX_LANES {
        return Err(Refusal::Malformed);
    }
    let key = |bytes: &Bytes| fixed(bytes).map(PublicKey::new);
    list.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(client: usize, server: usize) -> Request {
        let keys = |count: usize| {
            (0..count)
                .map(|at| PublicKey::new([u8::try_from(at).unwrap(); 32]))
                .collect()
        };
        Request {
            terms: Terms {
                epoch: u64::MAX,
                client: keys(client),
                server: keys(server),
            },
            confirmation: [7; 32],
        }
    }

    #[test]
    fn messages_come_out_as_they_went_in_and_the_longest_fits() {
        for lanes in [1, 16, MAX_LANES] {
            let request = request(lanes, MAX_LANES);
            let bytes = request.encode();
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(Request::decode(&bytes), Ok(request));
        }
        for answer in [
            Answer::Accepted {
                confirmation: [9; 32],
            },
            Answer::Refused {
                name: Refusal::EpochOld.name().to_owned(),
                epoch: 12,
            },
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (client, server) in [(0, 1), (1, 0), (MAX_LANES + 1, 1)] {
            let bytes = request(client, server).encode();
            assert_eq!(Request::decode(&bytes), Err(Refusal::Malformed));
        }
        let mut short = WireRequest::decode(request(1, 1).encode()).unwrap();
        short.confirmation.truncate(31);
        let bytes = short.encode_to_vec();
        assert_eq!(Request::decode(&bytes), Err(Refusal::Malformed));
        let name = "no\nname".to_owned();
        let bytes = Answer::Refused { name, epoch: 0 }.encode();
        assert_eq!(Answer::decode(&bytes), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
