//! What a cluster says of itself, and what it lets another announce.

use crate::config::hub_yaml::HubConfig;
use crate::hub::manifest::{ClusterPeer, QuotaLimits};
use crate::record::check_label;
use crate::token::{Pin, pins};
use hawser_tunnel::node::ClusterId;
use hawser_tunnel::vni::Vni;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// What this program speaks with other clusters' hubs.
pub const PROTOCOLS: Protocols = Protocols {
    oldest: 1,
    newest: 1,
};

/// Versions of the protocol between hubs, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

/// What a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The clusterset.
    pub clusterset: String,
    /// The clusterset's network.
    pub vni: Vni,
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: ClusterId,
    /// Its pods have addresses of these only.
    pub pod_cidrs: Vec<IpNet>,
    /// Its services have virtual IPs of these only.
    pub service_cidrs: Vec<IpNet>,
    /// Where its hubs are: `HOST:PORT` each.
    pub hubs: Vec<String>,
    /// Its CAs, in PEM.
    pub ca: String,
    /// What its hub speaks.
    pub protocols: Protocols,
}

/// What another cluster may announce here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Services and pods of these namespaces; `None`: of all.
    pub namespaces: Option<BTreeSet<String>>,
    /// How much, where that differs from the hub's own settings.
    pub quotas: QuotaLimits,
    /// Whether clusters that it revokes are cut off here, too.
    pub may_revoke: bool,
}

/// What is wrong with an offer or a grant: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OfferFault(pub(crate) String);

impl OfferFault {
    /// Its name in logs and answers.
    pub const NAME: &str = "offer_malformed";

    pub(super) fn field(field: &str, value: &str, rule: &str) -> Self {
        let shown: String = value
            .chars()
            .take(80)
            .flat_map(char::escape_default)
            .collect();
        Self(format!("{field}: {shown}: {rule}"))
    }
}

impl Offer {
    /// What a hub offers by its configuration, with its cluster's CAs in PEM.
    pub fn of_hub(config: &HubConfig, ca: String) -> Self {
        Self {
            clusterset: config.clusterset.clone(),
            vni: config.vni,
            name: config.cluster.name.clone(),
            id: config.cluster.id,
            pod_cidrs: config.cluster.prefixes.clone(),
            service_cidrs: config.service_cidrs.clone(),
            hubs: hubs(config),
            ca,
            protocols: PROTOCOLS,
        }
    }

    /// The other cluster as a member with that grant.
    pub fn peer(&self, grant: &Grant) -> ClusterPeer {
        ClusterPeer {
            id: self.id,
            pod_cidrs: self.pod_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            namespaces: grant.namespaces.clone(),
            hubs: self.hubs.clone(),
            ca: self.ca.clone(),
            quotas: grant.quotas,
            may_revoke: grant.may_revoke,
        }
    }

    /// The keys of its CAs.
    pub fn pins(&self) -> BTreeSet<Pin> {
        pins(&self.ca)
    }

    /// By what it is known again: the keys of all its CAs.
    pub fn fingerprint(&self) -> String {
        let pins: Vec<String> = self.pins().iter().map(ToString::to_string).collect();
        pins.join(" ")
    }
}

/// Where others find the hub: as its configuration says, else where it listens, if that is an address.
fn hubs(config: &HubConfig) -> Vec<String> {
    let listen = config.listen;
    if config.hubs.is_empty() && !listen.ip().is_unspecified() && listen.port() != 0 {
        return vec![listen.to_string()];
    }
    config.hubs.clone()
}

impl Grant {
    /// Checks names that somebody wrote.
    ///
    /// # Errors
    /// One is none.
    pub fn new(
        namespaces: Option<Vec<String>>,
        quotas: QuotaLimits,
        may_revoke: bool,
    ) -> Result<Self, OfferFault> {
        for name in namespaces.iter().flatten() {
            check_label(name).map_err(|rule| {
                OfferFault::field("namespaces", name, &format!("{rule}; correct it"))
            })?;
        }
        let namespaces = namespaces.map(|names| names.into_iter().collect());
        Ok(Self {
            namespaces,
            quotas,
            may_revoke,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::SystemTime;

    /// A cluster of `set.example`.
    pub(crate) fn offer(name: &str, id: u16, pods: &str) -> Offer {
        let ca = crate::ca::init("set.example", name, SystemTime::now()).unwrap();
        Offer {
            clusterset: "set.example".to_owned(),
            vni: Vni::DEFAULT,
            name: name.to_owned(),
            id: ClusterId::new(id).unwrap(),
            pod_cidrs: vec![pods.parse().unwrap()],
            service_cidrs: Vec::new(),
            hubs: vec![format!("hub.{name}.example:6082")],
            ca: ca.certificate,
            protocols: PROTOCOLS,
        }
    }

    #[test]
    fn a_hub_is_where_its_file_says_or_where_it_listens() {
        let of = |lines: &str| {
            let text = format!(
                "cluster: {{name: east, id: 1}}\nclusterset: {{name: set.example}}\npodCidrs: [10.1.0.0/16]\n\
                 source: dir:manifests\nname: hub-1\n{lines}"
            );
            let config = HubConfig::parse(&text, std::path::Path::new("/hub.yaml"), None).unwrap();
            Offer::of_hub(&config, String::new()).hubs
        };
        assert_eq!(of(""), [""; 0]);
        assert_eq!(of("listen: \"192.0.2.1:6082\"\n"), ["192.0.2.1:6082"]);
        let said = of("listen: \"192.0.2.1:6082\"\nhubs: [\"hub.east.example:7000\"]\n");
        assert_eq!(said, ["hub.east.example:7000"]);
    }

    #[test]
    fn a_grant_names_namespaces() {
        let grant =
            |name: &str| Grant::new(Some(vec![name.to_owned()]), QuotaLimits::default(), false);
        assert!(grant("shop").is_ok());
        let told = grant("Shop").unwrap_err().to_string();
        assert!(
            told.starts_with("namespaces: Shop: must be a DNS label"),
            "{told}"
        );
    }

    #[test]
    fn a_cluster_is_known_again_by_the_keys_of_its_cas() {
        let (west, other) = (
            offer("west", 2, "10.2.0.0/16"),
            offer("west", 2, "10.2.0.0/16"),
        );
        assert_eq!(west.fingerprint().len(), 64);
        assert_ne!(west.fingerprint(), other.fingerprint());
        let both = format!("{}{}", west.ca, other.ca);
        assert_eq!(pins(&both).len(), 2);
    }
}
