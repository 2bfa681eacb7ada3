//! The clusters of the file, and the identities that they publish.

use super::fault::{Fault, Rule};
use super::prefix::{self, Owners};
use super::raw;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::ClusterId;
use hawser_tunnel::state::Cluster;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The clusters by id, in the form that the data plane takes.
#[derive(Debug)]
pub(super) struct Clusters(pub(super) BTreeMap<ClusterId, Cluster>);

impl Clusters {
    pub(super) fn parse(raw: &[raw::Cluster]) -> Result<Self, Fault> {
        let mut clusters: BTreeMap<ClusterId, Cluster> = BTreeMap::new();
        let mut names = BTreeSet::new();
        let mut owners = Owners::default();
        for (at, raw) in raw.iter().enumerate() {
            let field = format!("clusters[{at}]");
            let name = cluster_name(&format!("{field}.name"), &raw.name)?;
            if !names.insert(name.clone()) {
                return Err(Fault::new(format!("{field}.name"), name, Rule::Twice));
            }
            let id = cluster_id(&format!("{field}.id"), &raw.id)?;
            if let Some(first) = clusters.get(&id) {
                let rule = Rule::ClusterIdTwice {
                    other: first.name.clone(),
                };
                return Err(Fault::new(
                    format!("{field}.id"),
                    format!("{id} of {name}"),
                    rule,
                ));
            }
            let owner = format!("cluster {name}");
            let prefixes = prefix::parse_list(
                &format!("{field}.prefixes"),
                &raw.prefixes,
                &owner,
                &mut owners,
            )?;
            let identities = identities(&format!("{field}.identities"), &raw.identities)?;
            clusters.insert(
                id,
                Cluster {
                    name,
                    prefixes,
                    identities,
                },
            );
        }
        owners.check()?;
        Ok(Self(clusters))
    }

    /// The cluster of that name.
    pub(super) fn by_name(&self, name: &str) -> Option<(ClusterId, &Cluster)> {
        self.0
            .iter()
            .find(|(_, cluster)| cluster.name == name)
            .map(|(&id, cluster)| (id, cluster))
    }

    /// The cluster and prefix that an address belongs to.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<(&Cluster, IpNet)> {
        self.0.values().find_map(|cluster| {
            let prefix = cluster
                .prefixes
                .iter()
                .find(|prefix| prefix.contains(&address))?;
            Some((cluster, *prefix))
        })
    }
}

/// Refuses a node's prefix outside those of its cluster.
pub(super) fn check_inside(field: &str, prefix: IpNet, cluster: &Cluster) -> Result<(), Fault> {
    if cluster.prefixes.iter().any(|outer| outer.contains(&prefix)) {
        return Ok(());
    }
    let rule = Rule::OutsideCluster {
        cluster: cluster.name.clone(),
        prefixes: cluster.prefixes.iter().copied().collect(),
    };
    Err(Fault::new(field, prefix, rule))
}

/// Reads a cluster's name: a DNS label (RFC 1123, section 2.1).
pub(super) fn cluster_name(field: &str, text: &str) -> Result<String, Fault> {
    if !is_label(text) {
        return Err(Fault::new(field, text, Rule::ClusterName));
    }
    Ok(text.to_owned())
}

/// Whether the text is one label of a DNS name, in lower case.
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Reads a cluster ID.
pub(crate) fn cluster_id(field: &str, text: &str) -> Result<ClusterId, Fault> {
    text.parse()
        .ok()
        .and_then(|number: u16| ClusterId::new(number).ok())
        .ok_or_else(|| Fault::new(field, text, Rule::ClusterId))
}

/// Reads an identity of any range.
pub(super) fn identity(field: &str, text: &str) -> Result<Identity, Fault> {
    text.parse()
        .ok()
        .and_then(|number: u32| Identity::new(number).ok())
        .ok_or_else(|| Fault::new(field, text, Rule::IdentityRange))
}

/// Reads an identity that stands for labels.
pub(super) fn unreserved_identity(field: &str, text: &str) -> Result<Identity, Fault> {
    let identity = identity(field, text)?;
    if identity.is_reserved() {
        return Err(Fault::new(field, text, Rule::IdentityReserved));
    }
    Ok(identity)
}

fn identities(field: &str, texts: &[String]) -> Result<BTreeSet<Identity>, Fault> {
    let mut identities = BTreeSet::new();
    for (at, text) in texts.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let identity = unreserved_identity(&field, text)?;
        if !identities.insert(identity) {
            return Err(Fault::new(field, text, Rule::Twice));
        }
    }
    Ok(identities)
}
