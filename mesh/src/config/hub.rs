//! Where the hubs of the node's cluster are, and how it proves to them who it is.

use super::fault::{Fault, Rule};
use super::raw;
use crate::dial::{Target, TargetError};
use crate::io::pem_file::{self, PemFault};
use crate::trust::{Credentials, PeerId, Trust};
use std::path::{Path, PathBuf};

/// Where the agent keeps what it heard, unless the file says otherwise.
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/hawser/agent";

/// The `hub` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// The replicas of the cluster's hub, in no order; at least one.
    pub addresses: Vec<Target>,
    /// The CA of the cluster, in PEM.
    pub ca: PathBuf,
    /// The certificate of this node, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM; a file that only its owner reads.
    pub key: PathBuf,
    /// Which endpoints are asked for.
    pub endpoints: EndpointsWanted,
    /// Where what was heard is kept.
    pub state_directory: PathBuf,
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
    /// Reads the certificates, and checks that they are those of this node.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub fn read_files(&self, cluster: &str, node: &str) -> Result<(Credentials, Trust), HubFault> {
        let fields = ("hub.certificate", "hub.key");
        let credentials = pem_file::credentials(&self.certificate, &self.key, fields)?;
        let expected = PeerId::node(cluster, node);
        if *credentials.id() != expected {
            return Err(HubFault::OtherNode {
                certificate: self.certificate.clone(),
                found: credentials.id().clone(),
                expected,
            });
        }
        let mut trust = Trust::new(credentials.clusterset());
        pem_file::trust_ca(&mut trust, cluster, &self.ca, "hub.ca")?;
        Ok((credentials, trust))
    }
}

/// What is wrong with a file that the section names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubFault {
    /// It cannot be read, or is none.
    #[error(transparent)]
    File(#[from] PemFault),
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
        ca: folder.join(&raw.ca),
        certificate: folder.join(&raw.certificate),
        key: folder.join(&raw.key),
        endpoints,
        state_directory,
    })
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
