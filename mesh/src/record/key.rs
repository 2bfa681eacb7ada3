//! Where a record is found: bytes that sort, of which every filter is a set of prefixes.

use super::endpoint::Scope;
use bytes::Bytes;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::fmt;

/// The longest key, in bytes: a kind, two names of 63, one of 253, and what parts them, with room to grow.
pub const MAX_KEY: usize = 512;

/// The kinds of records. The number is a key's first byte, so it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A node.
    Node = 1,
    /// An identity.
    Identity = 2,
    /// An exported service.
    Service = 3,
    /// A pod, in a scope.
    Endpoint = 4,
    /// Whom the origin has cut off.
    Revocations = 5,
    /// The origin's CAs.
    Authorities = 6,
    /// A network policy.
    Policy = 65,
    /// A namespace.
    Namespace = 66,
    /// A pod, for its own node.
    Pod = 67,
    /// A member of the clusterset.
    Cluster = 68,
}

impl Kind {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 10] = [
        Self::Node,
        Self::Identity,
        Self::Service,
        Self::Endpoint,
        Self::Revocations,
        Self::Authorities,
        Self::Policy,
        Self::Namespace,
        Self::Pod,
        Self::Cluster,
    ];

    /// Numbers from here on never leave their cluster, also those of kinds that are still to come.
    pub const FIRST_PRIVATE: u8 = 64;

    /// The kind with that number, if we know it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether only the origin's own agents may have it.
    pub fn is_private(self) -> bool {
        self as u8 >= Self::FIRST_PRIVATE
    }

    /// Its name, as in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Identity => "identity",
            Self::Service => "service",
            Self::Endpoint => "endpoint",
            Self::Revocations => "revocations",
            Self::Authorities => "authorities",
            Self::Policy => "policy",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Cluster => "cluster",
        }
    }
}

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is none.
    #[error("a key has at least one byte")]
    Empty,
    /// See [`MAX_KEY`].
    #[error("a key has at most 512 bytes")]
    TooLong,
}

/// The key of a record. Cheap to clone.
///
/// | kind | after the kind's byte |
/// |---|---|
/// | node | index, 2 bytes, big endian |
/// | identity | number, 4 bytes, big endian |
/// | service, policy | namespace, 0, name |
/// | endpoint of a service | `s`, namespace, 0, service, 0, name |
/// | endpoint of an identity | `i`, number, 4 bytes, big endian, name |
/// | revocations, authorities | nothing: an origin has one list |
/// | namespace | name |
/// | pod | node index, 2 bytes, big endian, namespace, 0, name |
/// | cluster | cluster ID, 2 bytes, big endian |
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// The beginning of keys: all keys that begin so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Bytes);

impl Key {
    /// Takes bytes from the wire. Keys of kinds that are still to come are keys too.
    ///
    /// # Errors
    /// Too short or too long.
    pub fn parse(bytes: Bytes) -> Result<Self, KeyError> {
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_KEY => Ok(Self(bytes)),
            _ => Err(KeyError::TooLong),
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// All keys that begin as this one, of which it is the first.
    pub fn as_prefix(&self) -> Prefix {
        Prefix(self.0.clone())
    }

    /// Its kind, if we know it.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.0[0])
    }

    /// Whether only the origin's own agents may have it.
    pub fn is_private(&self) -> bool {
        self.0[0] >= Kind::FIRST_PRIVATE
    }

    /// Of a node.
    pub fn node(index: NodeIndex) -> Self {
        Self(build(Kind::Node, &[&u16::from(index).to_be_bytes()]))
    }

    /// Of an identity.
    pub fn identity(identity: Identity) -> Self {
        Self(build(Kind::Identity, &[&u32::from(identity).to_be_bytes()]))
    }

    /// Of an exported service.
    pub fn service(namespace: &str, name: &str) -> Self {
        Self(build(
            Kind::Service,
            &[namespace.as_bytes(), &[0], name.as_bytes()],
        ))
    }

    /// Of an endpoint.
    pub fn endpoint(scope: &Scope, name: &str) -> Self {
        let mut bytes = Prefix::scope(scope).0.to_vec();
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes.into())
    }

    /// Of an origin's revocations.
    pub fn revocations() -> Self {
        Self(build(Kind::Revocations, &[]))
    }

    /// Of an origin's CAs.
    pub fn authorities() -> Self {
        Self(build(Kind::Authorities, &[]))
    }

    /// Of a network policy.
    pub fn policy(namespace: &str, name: &str) -> Self {
        Self(build(
            Kind::Policy,
            &[namespace.as_bytes(), &[0], name.as_bytes()],
        ))
    }

    /// Of a namespace.
    pub fn namespace(name: &str) -> Self {
        Self(build(Kind::Namespace, &[name.as_bytes()]))
    }

    /// Of a pod.
    pub fn pod(node: NodeIndex, namespace: &str, name: &str) -> Self {
        let node = u16::from(node).to_be_bytes();
        Self(build(
            Kind::Pod,
            &[&node, namespace.as_bytes(), &[0], name.as_bytes()],
        ))
    }

    /// Of a member of the clusterset.
    pub fn cluster(id: ClusterId) -> Self {
        Self(build(Kind::Cluster, &[&u16::from(id).to_be_bytes()]))
    }
}

impl Prefix {
    /// Takes bytes from the wire; as long as a key at most, and not empty: nobody may ask for what has no kind.
    ///
    /// # Errors
    /// Too short or too long.
    pub fn parse(bytes: Bytes) -> Result<Self, KeyError> {
        Key::parse(bytes).map(|key| Self(key.0))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// All keys of a kind.
    pub fn kind(kind: Kind) -> Self {
        Self(build(kind, &[]))
    }

    /// All endpoints of services.
    pub fn service_endpoints() -> Self {
        Self(build(Kind::Endpoint, &[b"s"]))
    }

    /// The endpoints of one scope.
    pub fn scope(scope: &Scope) -> Self {
        Self(match scope {
            Scope::Service { namespace, name } => build(
                Kind::Endpoint,
                &[b"s", namespace.as_bytes(), &[0], name.as_bytes(), &[0]],
            ),
            Scope::Identity(identity) => {
                build(Kind::Endpoint, &[b"i", &u32::from(*identity).to_be_bytes()])
            }
        })
    }

    /// The pods of one node.
    pub fn pods_of(node: NodeIndex) -> Self {
        Self(build(Kind::Pod, &[&u16::from(node).to_be_bytes()]))
    }

    /// Whether a key begins so.
    pub fn covers(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    /// Whether only the origin's own agents may ask for it.
    pub fn is_private(&self) -> bool {
        self.0[0] >= Kind::FIRST_PRIVATE
    }
}

fn build(kind: Kind, parts: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(kind as u8);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.into()
}

/// `endpoint:"s" shop \0 ...`: the kind, and the rest as text where it is text.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => f.write_str(kind.name())?,
            None => write!(f, "kind {}", self.0[0])?,
        }
        write!(f, ":{}", self.0[1..].escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", Key(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(number: u16) -> NodeIndex {
        NodeIndex::new(number).unwrap()
    }

    #[test]
    fn keys_are_these_bytes() {
        let shop = Scope::Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        for (key, bytes) in [
            (Key::node(index(0x0102)), &b"\x01\x01\x02"[..]),
            (
                Key::identity(Identity::new(1001).unwrap()),
                b"\x02\0\0\x03\xe9",
            ),
            (Key::service("shop", "web"), b"\x03shop\0web"),
            (Key::endpoint(&shop, "web-1"), b"\x04sshop\0web\0web-1"),
            (
                Key::endpoint(&Scope::Identity(Identity::new(1001).unwrap()), "a"),
                b"\x04i\0\0\x03\xe9a",
            ),
            (Key::revocations(), b"\x05"),
            (Key::authorities(), b"\x06"),
            (
                Key::pod(index(7), "shop", "web-1"),
                b"\x43\0\x07shop\0web-1",
            ),
            (Key::cluster(ClusterId::new(2).unwrap()), b"\x44\0\x02"),
        ] {
            assert_eq!(key.as_bytes(), bytes);
            assert_eq!(Key::parse(bytes.to_vec().into()), Ok(key));
        }
        assert!(Prefix::scope(&shop).covers(&Key::endpoint(&shop, "web-1")));
        assert!(!Prefix::scope(&shop).covers(&Key::service("shop", "web")));
    }

    #[test]
    fn a_service_is_no_prefix_of_another_whose_name_begins_so() {
        let scope = |name: &str| Scope::Service {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        assert!(!Prefix::scope(&scope("web")).covers(&Key::endpoint(&scope("web2"), "a")));
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        assert_eq!(Key::parse(Bytes::new()), Err(KeyError::Empty));
        assert_eq!(Key::parse(vec![1; 513].into()), Err(KeyError::TooLong));
        assert!(Key::parse(vec![200; 512].into()).unwrap().is_private());
    }
}
