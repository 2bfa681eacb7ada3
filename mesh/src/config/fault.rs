//! What can be wrong with `node.yaml`: one line each, with field, value, rule and fix.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why a configuration file was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot be read: {}; correct the path or the permissions", path.display(), crate::io::secret_file::reason(error))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: has {size} bytes; must be at most {limit}; split the mesh or shorten the file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        size: u64,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// Not YAML, or not the fields of this file.
    #[error("{}: {syntax}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        syntax: Syntax,
    },
    /// A field with a value that breaks a rule.
    #[error("{}: {fault}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field, which value, which rule.
        fault: Box<Fault>,
    },
    /// A certificate or key that the file names.
    #[error("{}: {fault}", path.display())]
    Hub {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Box<super::HubFault>,
    },
    /// A rule of the data plane that no single field breaks.
    #[error("{}: {source}; correct it", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: hawser_tunnel::state::StateError,
    },
}

/// A place in the file and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Syntax {
    /// From 1; 0 where the parser could not tell.
    pub line: u64,
    /// From 1; 0 where the parser could not tell.
    pub column: u64,
    /// One line.
    pub what: String,
}

/// One field that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}: {rule}", OneLine(value))]
pub struct Fault {
    /// The path of the field, as in `clusters[1].id`.
    pub field: String,
    /// The value as it was written.
    pub value: String,
    /// The rule that it breaks.
    pub rule: Rule,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, value: impl fmt::Display, rule: Rule) -> Self {
        Self {
            field: field.into(),
            value: value.to_string(),
            rule,
        }
    }
}

/// The rules of the fields, each with its fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum Rule {
    #[error("must be 0 to 16777215 (24 bits); choose another")]
    Vni,
    #[error("must be left or filled; leave it out for left")]
    Checksums,
    #[error("must be 1 to 2047; choose another")]
    ClusterId,
    #[error("must be 1 to 65534; choose another")]
    NodeIndex,
    #[error(
        "must be a DNS label (a-z, 0-9 and -, at most 63 characters, no - at either end); rename it"
    )]
    ClusterName,
    #[error("must be a DNS name (a-z, 0-9, - and ., at most 253 characters); rename it")]
    NodeName,
    #[error("must be 1 to 253 printable characters without white space; rename it")]
    EndpointName,
    #[error("is also the id of cluster {other}; give each cluster its own")]
    ClusterIdTwice { other: String },
    #[error("is listed twice; remove one")]
    Twice,
    #[error("is not in clusters; add it there with its id and prefixes")]
    OwnClusterMissing,
    #[error("clusters gives cluster {name} the id {id}; write the same in both places")]
    OwnClusterId { name: String, id: u16 },
    #[error("must be an absolute path; start it with /")]
    SocketRelative,
    #[error("has {length} bytes; a socket's path has at most 107; shorten it")]
    SocketTooLong { length: usize },
    #[error("must be 1 to 15 printable characters without / and :; correct the name")]
    Device,
    #[error("is the tunnel's own device; name the device that leads to the other nodes")]
    UnderlayIsTunnel,
    #[error("must name at least one device; add the one that leads to the other nodes")]
    NoUnderlay,
    #[error("must be a prefix, as in 10.1.0.0/16 or fd01:1::/32; write ADDRESS/LENGTH")]
    NotPrefix,
    #[error("has host bits set; write {truncated}")]
    HostBits { truncated: IpNet },
    #[error("of {owner} overlaps {other} of {other_owner}; a prefix has one owner: change one")]
    Overlap {
        owner: String,
        other: IpNet,
        other_owner: String,
    },
    #[error(
        "lies outside the prefixes of cluster {cluster} ({}); correct it or add it there",
        List(prefixes)
    )]
    OutsideCluster {
        cluster: String,
        prefixes: Vec<IpNet>,
    },
    #[error("must be an IP address, as in 10.1.1.1 or fd01:1:1::1; correct it")]
    NotAddress,
    #[error("lies outside {cidr}; choose an address inside")]
    RouterOutside { cidr: IpNet },
    #[error("must have at least one address; add it or remove the entry")]
    NoAddresses,
    #[error(
        "lies outside this node's pod prefixes ({}); correct it",
        List(prefixes)
    )]
    EndpointOutside { prefixes: Vec<IpNet> },
    #[error("already belongs to {other}; give each its own")]
    AddressTwice { other: String },
    #[error("must be 1 to 268435455 (28 bits); choose another")]
    IdentityRange,
    #[error("1 to 255 are reserved; choose 256 or more")]
    IdentityReserved,
    #[error("is not among the identities of cluster {cluster}; add it there or correct it")]
    IdentityUnpublished { cluster: String },
    #[error("must be 3 (world) or an identity of cluster {cluster}; correct it")]
    ForeignIdentity { cluster: String },
    #[error("is not in clusters ({}); add it there or correct it", .known.join(", "))]
    UnknownCluster { known: Vec<String> },
    #[error("is this node itself; remove the entry")]
    PeerIsSelf,
    #[error("is also the index of peer {other}; give each node of a cluster its own")]
    PeerTwice { other: String },
    #[error("must have 1 to 64 lanes; add one with publicKey and endpoint, or remove some")]
    Lanes,
    #[error("a foreign peer has exactly one lane; remove the others")]
    ForeignLanes,
    #[error("must be required or preferred; leave it out for preferred")]
    PostQuantum,
    #[error("must be off, or 5m to 24h, as in 90m or 2h; leave it out for 1h")]
    KeyRotation,
    #[error(
        "must be there with postQuantum: required; name a file with a key, or remove the peer and leave it to a hub"
    )]
    PresharedKeyRequired,
    #[error("must be true or false; leave it out for false")]
    Watched,
    #[error("a foreign peer answers no probes and cannot be watched; leave it out")]
    ForeignWatched,
    #[error(
        "must be 32 bytes in base64 (44 characters), as `hawser-tunnel key` prints; copy it again"
    )]
    Key,
    #[error("is also the key of peer {other}; every lane has its own")]
    KeyTwice { other: String },
    #[error("must be ADDRESS:PORT, as in 192.0.2.11:51820 or [2001:db8::11]:51820; correct it")]
    NotPeerEndpoint,
    #[error("has no port; write {with_port}")]
    NoPort { with_port: String },
    #[error("port 0 cannot be reached; write the port of the peer, as in 51820")]
    PortZero,
    #[error("is no node's address; write the address by which the peer is reached")]
    NotUnicast,
    #[error("lies inside {prefix} of cluster {cluster}; write the node's underlay address")]
    PeerEndpointInMesh { prefix: IpNet, cluster: String },
    #[error("cannot be read: {error}; correct the path or write the key there")]
    SecretUnreadable { error: String },
    #[error("is not a file; name the file that holds the key")]
    SecretNotFile,
    #[error("can be read by others (mode {mode:04o}); run chmod 600 on it")]
    SecretMode { mode: u32 },
    #[error("must hold 32 bytes in base64, as `wg genpsk` prints; write it again")]
    SecretContent,
    #[error("{prefix} of cluster {cluster} is still in use there; remove one of the two")]
    ReleasedInUse { prefix: IpNet, cluster: String },
    #[error("must be there unless a hub tells it; add it, or a hub section")]
    NeededWithoutHub,
    #[error("must name at least one hub; add one as HOST:PORT")]
    NoHubs,
    #[error("must be there unless hub.token is; add it, or a token from `hawser node-token`")]
    NeededWithoutToken,
    #[error("must not stand beside hub.token, which brings it; remove one of them")]
    BesideToken,
    #[error(
        "must be HOST:PORT, as in hub.example.org:6082, 192.0.2.1:6082 or [2001:db8::1]:6082; correct it"
    )]
    HubAddress,
    #[error("must have a port from 1 to 65535; write HOST:PORT")]
    HubPort,
    #[error("must be used or all; leave it out for used")]
    EndpointsWanted,
    #[error("is this cluster itself; remove the ClusterPeer or correct it")]
    PeerIsOwnCluster,
    #[error("overlaps {own} of this cluster; clusters whose pods share addresses cannot meet")]
    PeerPrefixOwn { own: IpNet },
    #[error("touches {range}, which no cluster can have; choose another prefix")]
    PrefixProtected { range: IpNet },
    #[error(
        "overlaps {own}, which is this cluster's services'; its pods would lose them: choose another prefix"
    )]
    PeerPrefixServices { own: IpNet },
    #[error(
        "overlaps {other} of {other_field}; pods and services have prefixes of their own: change one"
    )]
    PrefixShared {
        other: IpNet,
        other_field: &'static str,
    },
    #[error(
        "must be NAMESPACE or NAMESPACE/SERVICE, as in kube-system or default/kubernetes; correct it"
    )]
    ProtectedName,
    #[error("{what}; copy that cluster's ca.crt again")]
    Ca { what: String },
    #[error("cannot be written as JSON; correct it")]
    Unwritable,
    #[error("{what}; correct it")]
    Labels { what: String },
    #[error("must be 1 to 65535; choose another")]
    PortNumber,
    #[error("must be TCP, UDP or SCTP; choose one")]
    Protocol,
    #[error("must be ADDRESS:PORT, as in [::]:6082; correct it")]
    Listen,
    #[error("must be an absolute path; start it with /")]
    PathRelative,
    #[error("must be dir:PATH, as in dir:/etc/hawser/manifests; correct it")]
    Source,
    #[error("must name at least one; add it")]
    NoneNamed,
    #[error("must be {least} to {most}; choose another")]
    Between { least: u64, most: u64 },
    #[error("cannot change while the agent runs (it is {running}); restart the agent")]
    NeedsRestart { running: String },
}

/// Keeps a value on one line and short, whatever it holds.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 120;
        if self.0.is_empty() {
            return f.write_str("(empty)");
        }
        for (at, character) in self.0.chars().enumerate() {
            if at == LONGEST {
                return f.write_str("…");
            }
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// A few prefixes, and how many more there are.
struct List<'a>(&'a [IpNet]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, prefix) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{prefix}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, ", {more} more"),
        }
    }
}

/// The text of an address for [`Rule::NoPort`].
pub(super) fn with_default_port(address: IpAddr) -> String {
    std::net::SocketAddr::new(address, 51820).to_string()
}
