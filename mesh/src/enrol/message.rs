//! What a guest asks a hub, and what it is answered (docs/wire.md, "Enrolment"): one message each way.
//!
//! Fields are added, never renumbered. A request that is newer than its reader has no body, and is refused by name.

use crate::join::message::{WireJoin, WireTerms};
use crate::join::{Offer, OfferFault, Terms};
use crate::record::check_name;
use crate::token::Secret;
use bytes::Bytes;
use prost::Message as _;
use zeroize::{Zeroize as _, Zeroizing};

/// The longest message, in bytes, either way.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The longest certificate signing request, in bytes. Ours have 250.
const MAX_CSR: usize = 4 << 10;

/// What a guest asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// A node's first certificate.
    Node(NodeRequest),
    /// The next certificate of whoever shows a present one.
    Renew {
        /// A certificate signing request (PKCS #10, DER). Only its key counts.
        csr: Bytes,
    },
    /// A cluster that was invited looks at what it is offered, or joins.
    Join(Box<JoinRequest>),
}

/// A cluster that was invited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The token's.
    pub secret: Secret,
    /// What it says of itself.
    pub offer: Offer,
    /// Its clock: seconds since 1970.
    pub time: u64,
    /// [`Terms::digest`] of what its operator agreed to; nothing: it only looks.
    pub agreed: Option<[u8; 32]>,
}

/// A node asks for its first certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRequest {
    /// The token's.
    pub secret: Secret,
    /// The node's name.
    pub name: String,
    /// A certificate signing request (PKCS #10, DER). Only its key counts.
    pub csr: Bytes,
}

/// What a guest is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Here it is.
    Certificate {
        /// The certificate, in PEM.
        chain: String,
        /// The CAs of the cluster from now on, in PEM.
        ca: String,
    },
    /// What a cluster that was invited is offered; if it agreed to just that, it has joined.
    Terms(Box<Terms>),
    /// No.
    Refused {
        /// The name of the reason, as the hub counts it.
        name: String,
        /// One line.
        text: String,
    },
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It is longer than any.
    #[error("enrol_too_long")]
    TooLong,
    /// It is no protobuf, or no such message.
    #[error("enrol_malformed")]
    Malformed,
    /// It is newer than we are.
    #[error("enrol_unknown")]
    Unknown,
    /// One of its fields is impossible.
    #[error("enrol_field: {0}")]
    Field(&'static str),
    /// What a cluster says of itself is impossible.
    #[error(transparent)]
    Offer(#[from] OfferFault),
}

impl MessageError {
    /// Its name in metrics, logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLong => "enrol_too_long",
            Self::Malformed => "enrol_malformed",
            Self::Unknown => "enrol_unknown",
            Self::Field(_) => "enrol_field",
            Self::Offer(_) => OfferFault::NAME,
        }
    }
}

/// Tags 10 to 19 are for clusters that join.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct WireRequest {
    #[prost(oneof = "Asked", tags = "1, 2, 10")]
    body: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
enum Asked {
    #[prost(message, tag = "1")]
    Node(WireNode),
    #[prost(message, tag = "2")]
    Renew(WireRenew),
    #[prost(message, tag = "10")]
    Join(WireJoin),
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct WireNode {
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", tag = "3")]
    csr: Bytes,
}

impl Drop for WireNode {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRenew {
    #[prost(bytes = "bytes", tag = "1")]
    csr: Bytes,
}

/// Tags 10 to 19 are for clusters that join.
#[derive(Clone, PartialEq, prost::Message)]
struct WireAnswer {
    #[prost(oneof = "Answered", tags = "1, 2, 10")]
    body: Option<Answered>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Answered {
    #[prost(message, tag = "1")]
    Certificate(WireCertificate),
    #[prost(message, tag = "2")]
    Refused(WireRefused),
    #[prost(message, tag = "10")]
    Terms(WireTerms),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCertificate {
    #[prost(string, tag = "1")]
    chain: String,
    #[prost(string, tag = "2")]
    ca: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRefused {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    text: String,
}

impl Request {
    /// Its bytes, with the secret in them.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let body = match self {
            Self::Node(node) => Asked::Node(WireNode {
                secret: node.secret.as_bytes().to_vec(),
                name: node.name.clone(),
                csr: node.csr.clone(),
            }),
            Self::Renew { csr } => Asked::Renew(WireRenew { csr: csr.clone() }),
            Self::Join(join) => Asked::Join(WireJoin {
                secret: join.secret.as_bytes().to_vec(),
                offer: Some((&join.offer).into()),
                time: join.time,
                agreed: join
                    .agreed
                    .map_or_else(Bytes::new, |agreed| agreed.to_vec().into()),
            }),
        };
        let wire = WireRequest { body: Some(body) };
        // Growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(wire.encoded_len()));
        wire.encode(&mut *bytes)
            .expect("a vector takes all that is put into it");
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let wire = WireRequest::decode(short(bytes)?).map_err(|_| MessageError::Malformed)?;
        match wire.body.ok_or(MessageError::Unknown)? {
            Asked::Node(node) => {
                let secret = Secret::from_slice(&node.secret);
                check_name(&node.name).map_err(|_| MessageError::Field("name"))?;
                Ok(Self::Node(NodeRequest {
                    secret: secret.ok_or(MessageError::Field("secret"))?,
                    name: node.name.clone(),
                    csr: checked_csr(&node.csr)?,
                }))
            }
            Asked::Renew(renew) => Ok(Self::Renew {
                csr: checked_csr(&renew.csr)?,
            }),
            Asked::Join(mut join) => {
                let secret = Secret::from_slice(&join.secret);
                let offer = join.offer.take().ok_or(MessageError::Field("offer"))?;
                let agreed = match &*join.agreed {
                    [] => None,
                    some => Some(some.try_into().map_err(|_| MessageError::Field("agreed"))?),
                };
                Ok(Self::Join(Box::new(JoinRequest {
                    secret: secret.ok_or(MessageError::Field("secret"))?,
                    offer: offer.try_into()?,
                    time: join.time,
                    agreed,
                })))
            }
        }
    }
}

impl Answer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let body = match self.clone() {
            Self::Terms(terms) => Answered::Terms((&*terms).into()),
            Self::Certificate { chain, ca } => Answered::Certificate(WireCertificate { chain, ca }),
            Self::Refused { name, text } => Answered::Refused(WireRefused { name, text }),
        };
        WireAnswer { body: Some(body) }.encode_to_vec().into()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let wire = WireAnswer::decode(short(bytes)?).map_err(|_| MessageError::Malformed)?;
        Ok(match wire.body.ok_or(MessageError::Unknown)? {
            Answered::Certificate(WireCertificate { chain, ca }) => Self::Certificate { chain, ca },
            Answered::Terms(terms) => Self::Terms(Box::new(terms.try_into()?)),
            // It is shown to people: one line, and not a long one.
            Answered::Refused(WireRefused { name, text }) => Self::Refused {
                name: line(&name, 64),
                text: line(&text, 400),
            },
        })
    }
}

fn short(bytes: &[u8]) -> Result<&[u8], MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    Ok(bytes)
}

fn checked_csr(csr: &Bytes) -> Result<Bytes, MessageError> {
    if csr.is_empty() || csr.len() > MAX_CSR {
        return Err(MessageError::Field("csr"));
    }
    Ok(csr.clone())
}

fn line(text: &str, longest: usize) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(longest).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::offer::tests::offer;
    use proptest::prelude::*;

    fn node() -> Request {
        Request::Node(NodeRequest {
            secret: Secret::from_slice(&[7; 32]).unwrap(),
            name: "east-1".to_owned(),
            csr: Bytes::from_static(b"csr"),
        })
    }

    fn join(agreed: Option<[u8; 32]>) -> Request {
        Request::Join(Box::new(JoinRequest {
            secret: Secret::from_slice(&[7; 32]).unwrap(),
            offer: offer("west", 2, "10.2.0.0/16"),
            time: 1_800_000_000,
            agreed,
        }))
    }

    #[test]
    fn each_wrong_field_of_a_cluster_that_joins_has_its_name() {
        let refused = |change: &dyn Fn(&mut WireJoin)| {
            let offer = (&offer("west", 2, "10.2.0.0/16")).into();
            let mut join = WireJoin {
                secret: vec![7; 32],
                offer: Some(offer),
                time: 0,
                agreed: Bytes::new(),
            };
            change(&mut join);
            let body = Some(Asked::Join(join));
            Request::decode(&WireRequest { body }.encode_to_vec()).unwrap_err()
        };
        assert_eq!(
            refused(&|j| j.secret.clear()),
            MessageError::Field("secret")
        );
        assert_eq!(refused(&|j| j.offer = None), MessageError::Field("offer"));
        let short = Bytes::from_static(b"short");
        assert_eq!(
            refused(&|j| j.agreed = short.clone()),
            MessageError::Field("agreed")
        );
        let no_hubs = refused(&|j| j.offer.as_mut().unwrap().hubs.clear());
        assert_eq!(no_hubs.name(), "offer_malformed");
        assert!(Answer::decode(&[0x52, 0x00]).is_err(), "terms of nothing");
    }

    #[test]
    fn what_is_written_is_read() {
        for request in [
            node(),
            Request::Renew {
                csr: Bytes::from_static(b"csr"),
            },
            join(None),
            join(Some([9; 32])),
        ] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        for answer in [
            Answer::Certificate {
                chain: "chain".to_owned(),
                ca: "ca".to_owned(),
            },
            Answer::Refused {
                name: "token_used".to_owned(),
                text: "why".to_owned(),
            },
            Answer::Terms(Box::new(Terms {
                offer: offer("east", 1, "10.1.0.0/16"),
                grant: crate::join::Grant::default(),
                time: 7,
            })),
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn each_wrong_message_has_its_name() {
        let wire = |change: &dyn Fn(&mut WireNode)| {
            let mut node = WireNode {
                secret: vec![7; 32],
                name: "east-1".to_owned(),
                csr: Bytes::from_static(b"csr"),
            };
            change(&mut node);
            let body = Some(Asked::Node(node));
            WireRequest { body }.encode_to_vec()
        };
        assert!(Request::decode(&wire(&|_| {})).is_ok());
        for (bytes, error) in [
            (vec![], MessageError::Unknown),
            // Field 15 of a release to come.
            (vec![0x7a, 0x00], MessageError::Unknown),
            (vec![0xff; 8], MessageError::Malformed),
            (vec![0; MAX_MESSAGE + 1], MessageError::TooLong),
            (
                wire(&|n| n.secret.truncate(31)),
                MessageError::Field("secret"),
            ),
            (
                wire(&|n| n.name = "../etc".to_owned()),
                MessageError::Field("name"),
            ),
            (wire(&|n| n.name.clear()), MessageError::Field("name")),
            (wire(&|n| n.csr = Bytes::new()), MessageError::Field("csr")),
            (
                wire(&|n| n.csr = vec![0; 5000].into()),
                MessageError::Field("csr"),
            ),
        ] {
            assert_eq!(Request::decode(&bytes), Err(error));
        }
        assert_eq!(Answer::decode(&[]), Err(MessageError::Unknown));
        assert_eq!(Answer::decode(&[0xff; 8]), Err(MessageError::Malformed));
    }

    #[test]
    fn what_a_hub_says_is_one_short_line() {
        let long = Answer::Refused {
            name: "a\nb".to_owned(),
            text: "\u{1b}[31m".to_owned() + &"x".repeat(9000),
        };
        let Ok(Answer::Refused { name, text }) = Answer::decode(&long.encode()) else {
            panic!("a refusal");
        };
        assert_eq!(name, "a?b");
        assert!(text.starts_with("?[31mx") && text.len() == 400);
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        assert!(format!("{:?}", node()).contains("Secret(..)"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Request::decode(&bytes), Answer::decode(&bytes));
        }

        #[test]
        fn a_mangled_request_is_read_or_refused(at in 0usize..100, byte: u8) {
            let mut bytes = node().encode().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Request::decode(&bytes);
        }
    }
}
