//! `ClusterPeer`: another cluster, and what it may announce.

use super::document::Ground;
use crate::config::{Fault, Rule, clusters, prefix};
use crate::trust::Trust;
use hawser_tunnel::node::ClusterId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Another cluster: its grant, and where its hubs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPeer {
    /// Unique in the clusterset.
    pub id: ClusterId,
    /// Its pods have addresses of these only. Sorted, each once.
    pub pod_cidrs: Vec<IpNet>,
    /// Its services have virtual IPs of these only. Sorted, each once.
    pub service_cidrs: Vec<IpNet>,
    /// Services and pods of these namespaces may be announced; `None`: of all.
    pub namespaces: Option<BTreeSet<String>>,
    /// `HOST:PORT` each; none: it must dial us.
    pub hubs: Vec<String>,
    /// Its CA's certificates, in PEM.
    pub ca: String,
    /// How much it may announce, where that differs from the hub's own settings.
    pub quotas: QuotaLimits,
    /// Whether clusters that it revokes are cut off here, too.
    pub may_revoke: bool,
}

/// How much an origin may announce. `None`: as the hub says for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QuotaLimits {
    /// Records.
    pub records: Option<u32>,
    /// Bytes of keys and values.
    pub bytes: Option<u64>,
    /// Changes a second, lasting.
    pub changes_per_second: Option<u32>,
    /// Changes at once.
    pub burst: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    cluster_id: String,
    pod_cidrs: Vec<String>,
    #[serde(default)]
    service_cidrs: Vec<String>,
    namespaces: Option<Vec<String>>,
    #[serde(default)]
    hubs: Vec<String>,
    ca: String,
    #[serde(default)]
    quotas: QuotaLimits,
    #[serde(default)]
    may_revoke: bool,
}

/// Whether two prefixes share an address.
pub(crate) fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

pub(super) fn check(spec: Spec, name: &str, ground: &Ground) -> Result<ClusterPeer, Fault> {
    let id = clusters::cluster_id("spec.clusterId", &spec.cluster_id)?;
    if let Some(fault) = own_cluster(id, name, ground.cluster, &ground.name) {
        return Err(fault);
    }
    let pod_cidrs = prefix::all("spec.podCidrs", &spec.pod_cidrs)?;
    let service_cidrs = prefix::all("spec.serviceCidrs", &spec.service_cidrs)?;
    apart("spec.podCidrs", &pod_cidrs, ground)?;
    apart("spec.serviceCidrs", &service_cidrs, ground)?;
    for prefix in &service_cidrs {
        if let Some(&other) = pod_cidrs.iter().find(|pods| overlaps(**pods, *prefix)) {
            let other_field = "spec.podCidrs";
            let rule = Rule::PrefixShared { other, other_field };
            return Err(Fault::new("spec.serviceCidrs", prefix, rule));
        }
    }
    let namespaces = match spec.namespaces {
        None => None,
        Some(names) => {
            for name in &names {
                if crate::record::check_label(name).is_err() {
                    return Err(Fault::new("spec.namespaces", name, Rule::ClusterName));
                }
            }
            Some(names.into_iter().collect())
        }
    };
    for hub in &spec.hubs {
        check_target("spec.hubs", hub)?;
    }
    if let Err(error) = Trust::new("any").set(name, &spec.ca) {
        let what = error.to_string();
        return Err(Fault::new("spec.ca", "", Rule::Ca { what }));
    }
    Ok(ClusterPeer {
        id,
        pod_cidrs,
        service_cidrs,
        namespaces,
        hubs: spec.hubs,
        ca: spec.ca,
        quotas: spec.quotas,
        may_revoke: spec.may_revoke,
    })
}

/// What is wrong with a peer that is the cluster itself, by its ID or by its name.
pub(crate) fn own_cluster(
    id: ClusterId,
    name: &str,
    own: ClusterId,
    own_name: &str,
) -> Option<Fault> {
    if id == own {
        return Some(Fault::new("spec.clusterId", id, Rule::PeerIsOwnCluster));
    }
    (name == own_name).then(|| Fault::new("metadata.name", name, Rule::PeerIsOwnCluster))
}

/// Refuses a prefix that shares an address with one of our own.
fn apart(field: &str, prefixes: &[IpNet], ground: &Ground) -> Result<(), Fault> {
    for prefix in prefixes {
        let own = |ours: &[IpNet]| ours.iter().find(|own| overlaps(**own, *prefix)).copied();
        let rule = match (own(&ground.pod_cidrs), own(&ground.service_cidrs)) {
            (Some(own), _) => Rule::PeerPrefixOwn { own },
            (None, Some(own)) => Rule::PeerPrefixServices { own },
            (None, None) => continue,
        };
        return Err(Fault::new(field, prefix, rule));
    }
    Ok(())
}

/// Checks `HOST:PORT`, where the host is a name or an address, IPv6 in brackets.
fn check_target(field: &str, text: &str) -> Result<(), Fault> {
    if text
        .parse::<std::net::SocketAddr>()
        .is_ok_and(|a| a.port() != 0)
    {
        return Ok(());
    }
    let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
        crate::record::check_name(&host.to_ascii_lowercase()).is_ok()
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if fits {
        return Ok(());
    }
    Err(Fault::new(field, text, Rule::HubAddress))
}
