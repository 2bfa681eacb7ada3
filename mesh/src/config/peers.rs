//! The other nodes and their lanes.

use super::clusters::{self, Clusters};
use super::fault::{Fault, Rule, with_default_port};
use super::own::{self, Own};
use super::prefix::{self, Owners};
use super::raw;
use crate::io::secret_file;
use crate::psk::PostQuantum;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::{PresharedKey, PublicKey};
use hawser_tunnel::mtu;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::{Cluster, Lane, Peer, PeerKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The most lanes that one peer can have.
const MAX_LANES: usize = 64;

/// What the entries of `peers` are checked against.
#[derive(Debug)]
pub(super) struct Peers<'a> {
    pub(super) post_quantum: PostQuantum,
    pub(super) own: &'a Own,
    pub(super) own_name: &'a str,
    pub(super) clusters: &'a Clusters,
    /// Where relative paths start.
    pub(super) folder: &'a Path,
    pub(super) owners: &'a mut Owners,
}

impl Peers<'_> {
    pub(super) fn parse(&mut self, raw: &[raw::Peer]) -> Result<BTreeMap<NodeId, Peer>, Fault> {
        let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
        let own_name = self.own.id.map(|id| (id, self.own_name.to_owned()));
        let mut names: BTreeSet<_> = own_name.into_iter().collect();
        let mut keys: BTreeMap<PublicKey, String> = BTreeMap::new();
        for (at, raw) in raw.iter().enumerate() {
            let field = |name: &str| format!("peers[{at}].{name}");
            let name = own::node_name(&field("name"), &raw.name)?;
            let Some((cluster_id, cluster)) = self.clusters.by_name(&raw.cluster) else {
                let known = self.clusters.0.values().map(|c| c.name.clone()).collect();
                return Err(Fault::new(
                    field("cluster"),
                    &raw.cluster,
                    Rule::UnknownCluster { known },
                ));
            };
            let index = own::node_index(&field("index"), &raw.index)?;
            let id = NodeId {
                cluster: cluster_id,
                index,
            };
            if Some(id) == self.own.node() {
                return Err(Fault::new(field("index"), &raw.index, Rule::PeerIsSelf));
            }
            if let Some(first) = peers.get(&id) {
                let rule = Rule::PeerTwice {
                    other: first.name.clone(),
                };
                return Err(Fault::new(field("index"), &raw.index, rule));
            }
            if !names.insert((cluster_id, name.clone())) {
                return Err(Fault::new(field("name"), name, Rule::Twice));
            }
            let owner = format!("node {name}");
            let prefixes =
                prefix::parse_list(&field("prefixes"), &raw.prefixes, &owner, self.owners)?;
            for (nth, &prefix) in prefixes.iter().enumerate() {
                let written = raw
                    .prefixes
                    .iter()
                    .position(|text| text.parse() == Ok(prefix));
                let field = field(&format!("prefixes[{}]", written.unwrap_or(nth)));
                clusters::check_inside(&field, prefix, cluster)?;
            }
            let kind = kind(&field("foreign.identity"), raw.foreign.as_ref(), cluster)?;
            let lanes = self.lanes(&field("lanes"), &raw.lanes, kind)?;
            for (nth, lane) in lanes.iter().enumerate() {
                if let Some(other) = keys.insert(lane.public_key, name.clone()) {
                    let field = field(&format!("lanes[{nth}].publicKey"));
                    return Err(Fault::new(field, lane.public_key, Rule::KeyTwice { other }));
                }
            }
            let watched = watched(&field("watched"), raw.watched.as_deref(), kind)?;
            // Until the path is measured, what every path can carry.
            let path_mtu = mtu::MIN_UNDERLAY;
            peers.insert(
                id,
                Peer {
                    name,
                    kind,
                    prefixes,
                    lanes,
                    path_mtu,
                    watched,
                },
            );
        }
        Ok(peers)
    }

    fn lanes(&self, field: &str, raw: &[raw::Lane], kind: PeerKind) -> Result<Vec<Lane>, Fault> {
        if raw.is_empty() || raw.len() > MAX_LANES {
            return Err(Fault::new(field, raw.len(), Rule::Lanes));
        }
        if kind != PeerKind::Native && raw.len() > 1 {
            return Err(Fault::new(field, raw.len(), Rule::ForeignLanes));
        }
        raw.iter()
            .enumerate()
            .map(|(at, raw)| self.lane(&format!("{field}[{at}]"), raw))
            .collect()
    }

    fn lane(&self, field: &str, raw: &raw::Lane) -> Result<Lane, Fault> {
        let public_key = raw
            .public_key
            .parse()
            .map_err(|_| Fault::new(format!("{field}.publicKey"), &raw.public_key, Rule::Key))?;
        let endpoint = raw
            .endpoint
            .as_ref()
            .map(|text| self.endpoint(&format!("{field}.endpoint"), text))
            .transpose()?;
        let preshared_key = raw
            .preshared_key_file
            .as_ref()
            .map(|text| self.preshared_key(&format!("{field}.presharedKeyFile"), text))
            .transpose()?;
        if preshared_key.is_none() && self.post_quantum == PostQuantum::Required {
            let field = format!("{field}.presharedKeyFile");
            return Err(Fault::new(field, "", Rule::PresharedKeyRequired));
        }
        Ok(Lane {
            public_key,
            endpoint,
            preshared_key,
            needs_key: false,
        })
    }

    fn endpoint(&self, field: &str, text: &str) -> Result<SocketAddr, Fault> {
        let Ok(endpoint) = text.parse::<SocketAddr>() else {
            let bare = text
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<IpAddr>();
            let rule = bare.map_or(Rule::NotPeerEndpoint, |address| Rule::NoPort {
                with_port: with_default_port(address),
            });
            return Err(Fault::new(field, text, rule));
        };
        if endpoint.port() == 0 {
            return Err(Fault::new(field, text, Rule::PortZero));
        }
        let address = endpoint.ip().to_canonical();
        let broadcast = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
        if address.is_unspecified() || address.is_multicast() || broadcast {
            return Err(Fault::new(field, text, Rule::NotUnicast));
        }
        if let Some((cluster, prefix)) = self.clusters.of_address(address) {
            let rule = Rule::PeerEndpointInMesh {
                prefix,
                cluster: cluster.name.clone(),
            };
            return Err(Fault::new(field, text, rule));
        }
        Ok(endpoint)
    }

    fn preshared_key(&self, field: &str, text: &str) -> Result<PresharedKey, Fault> {
        let secret = secret_file::read(&self.folder.join(text))
            .map_err(|rule| Fault::new(field, text, rule))?;
        PresharedKey::from_base64(&secret).map_err(|_| Fault::new(field, text, Rule::SecretContent))
    }
}

fn kind(field: &str, raw: Option<&raw::Foreign>, cluster: &Cluster) -> Result<PeerKind, Fault> {
    let Some(raw) = raw else {
        return Ok(PeerKind::Native);
    };
    let identity = clusters::identity(field, &raw.identity)?;
    if identity != Identity::WORLD && !cluster.identities.contains(&identity) {
        let rule = Rule::ForeignIdentity {
            cluster: cluster.name.clone(),
        };
        return Err(Fault::new(field, identity, rule));
    }
    Ok(PeerKind::Foreign { identity })
}

/// Whether the peer is probed.
fn watched(field: &str, text: Option<&str>, kind: PeerKind) -> Result<bool, Fault> {
    match (text, kind) {
        (None | Some("false"), _) => Ok(false),
        (Some("true"), PeerKind::Native) => Ok(true),
        (Some("true"), PeerKind::Foreign { .. }) => {
            Err(Fault::new(field, "true", Rule::ForeignWatched))
        }
        (Some(other), _) => Err(Fault::new(field, other, Rule::Watched)),
    }
}
