//! Where the hubs of the node's cluster are, and how it proves to them who it is.

use super::fault::{Fault, Rule};
use super::raw;
use crate::dial::{Target, TargetError};
use crate::io::node_files::NodeFiles;
use crate::io::pem_file::{self, PemFault, Readers};
use crate::token::{Purpose, Token, TokenError};
use crate::trust::{Credentials, PeerId, Trust};
use std::path::{Path, PathBuf};

/// Where agents derive keys with others, unless the file says otherwise.
const DEFAULT_KEY_PORT: u16 = 6083;

/// Where the agent keeps what it heard, unless the file says otherwise.
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/hawser/agent";

/// The `hub` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// The replicas of the cluster's hub, in no order; at least one.
    pub addresses: Vec<Target>,
    /// By what the node proves who it is.
    pub identity: NodeIdentity,
    /// Which endpoints are asked for.
    pub endpoints: EndpointsWanted,
    /// Where what was heard is kept.
    pub state_directory: PathBuf,
    /// The UDP port at which other agents derive keys with this one.
    pub key_port: u16,
}

/// By what a node proves to its hub who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeIdentity {
    /// By a certificate that somebody brings and renews.
    Files {
        /// The CA of the cluster, in PEM.
        ca: PathBuf,
        /// The certificate of this node, in PEM.
        certificate: PathBuf,
        /// Its private key, in PEM; a file that only its owner reads.
        key: PathBuf,
    },
    /// By a token from `hawser node-token`, once; then by the certificate that it got for it. A file that only its owner
    /// reads.
    Token(PathBuf),
}

impl NodeIdentity {
    /// The file with the token.
    pub fn token(&self) -> Option<&Path> {
        match self {
            Self::Files { .. } => None,
            Self::Token(path) => Some(path),
        }
    }
}

/// Which endpoints a node asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointsWanted {
    /// Those of exported services, and those of identities that an egress policy of a local pod selects.
    #[default]
    Used,
    /// All of them.
    All,
}

impl HubConfig {
    /// Reads the certificates that the file names, and checks that they are those of this node. `None`: it names a
    /// token.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub fn read_files(
        &self,
        cluster: &str,
        node: &str,
    ) -> Result<Option<(Credentials, Trust)>, Box<HubFault>> {
        let NodeIdentity::Files {
            ca,
            certificate,
            key,
        } = &self.identity
        else {
            return Ok(None);
        };
        let fields = ("hub.certificate", "hub.key");
        let credentials =
            pem_file::credentials(certificate, key, fields).map_err(HubFault::from)?;
        let expected = PeerId::node(cluster, node);
        if *credentials.id() != expected {
            return Err(Box::new(HubFault::OtherNode {
                certificate: certificate.clone(),
                found: credentials.id().clone(),
                expected,
            }));
        }
        let mut trust = Trust::new(credentials.clusterset());
        pem_file::trust_ca(&mut trust, cluster, ca, "hub.ca").map_err(HubFault::from)?;
        Ok(Some((credentials, trust)))
    }

    /// Checks the files that the section names. A token matters only to a node that has no certificate yet.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub(crate) fn check_files(&self, cluster: &str, node: &str) -> Result<(), Box<HubFault>> {
        match &self.identity {
            NodeIdentity::Files { .. } => self.read_files(cluster, node).map(drop),
            NodeIdentity::Token(path) => match NodeFiles::of(&self.state_directory).stored() {
                Ok(None) => Self::read_token(path, cluster, node).map(drop),
                Ok(Some(_)) | Err(_) => Ok(()),
            },
        }
    }

    /// Reads a token, and checks that it is for this node.
    ///
    /// # Errors
    /// It cannot be read, is none, or is somebody else's.
    pub(crate) fn read_token(
        path: &Path,
        cluster: &str,
        node: &str,
    ) -> Result<Token, Box<HubFault>> {
        let text = pem_file::text(path, Readers::Owner).map_err(|rule| {
            HubFault::File(PemFault {
                field: "hub.token".to_owned(),
                path: path.to_owned(),
                rule,
            })
        })?;
        let token = Token::parse_for(Purpose::Node, &text);
        let token = token.map_err(|error| HubFault::Token {
            path: path.to_owned(),
            error,
        })?;
        let expected = PeerId::node(cluster, node);
        let found = PeerId::node(&*token.cluster, &*token.name);
        if found != expected {
            return Err(Box::new(HubFault::OtherToken {
                path: path.to_owned(),
                found,
                expected,
            }));
        }
        Ok(token)
    }
}

/// What is wrong with a file that the section names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubFault {
    /// It cannot be read, or is none.
    #[error(transparent)]
    File(#[from] PemFault),
    /// The token is none.
    #[error("hub.token: {}: {error}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: TokenError,
    },
    /// The token is for somebody else.
    #[error(
        "hub.token: {}: is for {found}; must be for {expected}: have it made with `hawser node-token`",
        path.display()
    )]
    OtherToken {
        /// The file.
        path: PathBuf,
        /// Whom it is for.
        found: PeerId,
        /// Who this node is.
        expected: PeerId,
    },
    /// The certificate of somebody else.
    #[error(
        "hub.certificate: {}: is that of {found}; must be that of {expected}: issue it with `hawser ca node`",
        certificate.display()
    )]
    OtherNode {
        /// The file.
        certificate: PathBuf,
        /// Whose it is.
        found: PeerId,
        /// Who this node is.
        expected: PeerId,
    },
}

/// Reads the section. Relative paths start in `folder`.
pub(super) fn parse(raw: &raw::Hub, folder: &Path) -> Result<HubConfig, Fault> {
    let mut addresses = Vec::new();
    for (at, text) in raw.addresses.iter().enumerate() {
        let field = format!("hub.addresses[{at}]");
        let address = address(&field, text)?;
        if addresses.contains(&address) {
            return Err(Fault::new(field, text, Rule::Twice));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(Fault::new("hub.addresses", "[]", Rule::NoHubs));
    }
    let endpoints = match raw.endpoints.as_deref() {
        None | Some("used") => EndpointsWanted::Used,
        Some("all") => EndpointsWanted::All,
        Some(other) => return Err(Fault::new("hub.endpoints", other, Rule::EndpointsWanted)),
    };
    let state_directory = raw.state_directory.as_deref();
    let state_directory = PathBuf::from(state_directory.unwrap_or(DEFAULT_STATE_DIRECTORY));
    if !state_directory.is_absolute() {
        let shown = state_directory.display();
        return Err(Fault::new("hub.stateDirectory", shown, Rule::PathRelative));
    }
    Ok(HubConfig {
        addresses,
        identity: identity(raw, folder)?,
        endpoints,
        state_directory,
        key_port: key_port(raw.key_port.as_deref())?,
    })
}

fn identity(raw: &raw::Hub, folder: &Path) -> Result<NodeIdentity, Fault> {
    let brought = [
        ("hub.ca", &raw.ca),
        ("hub.certificate", &raw.certificate),
        ("hub.key", &raw.key),
    ];
    if let Some(token) = &raw.token {
        for (field, path) in brought {
            if let Some(path) = path {
                return Err(Fault::new(field, path, Rule::BesideToken));
            }
        }
        return Ok(NodeIdentity::Token(folder.join(token)));
    }
    let file = |(field, path): (&str, &Option<String>)| match path {
        Some(path) => Ok(folder.join(path)),
        None => Err(Fault::new(field, "", Rule::NeededWithoutToken)),
    };
    let [ca, certificate, key] = brought.map(file);
    Ok(NodeIdentity::Files {
        ca: ca?,
        certificate: certificate?,
        key: key?,
    })
}

fn key_port(text: Option<&str>) -> Result<u16, Fault> {
    let Some(text) = text else {
        return Ok(DEFAULT_KEY_PORT);
    };
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Fault::new("hub.keyPort", text, Rule::PortNumber))
}

fn address(field: &str, text: &str) -> Result<Target, Fault> {
    text.parse().map_err(|error| {
        let rule = match error {
            TargetError::Port => Rule::HubPort,
            TargetError::Unspecified => Rule::NotUnicast,
            TargetError::Form => Rule::HubAddress,
        };
        Fault::new(field, text, rule)
    })
}
