//! `hub.yaml`: the hub of a cluster.
//!
//! ```yaml
//! cluster: { name: east, id: 1 }
//! clusterset: { name: demo.example }
//! podCidrs: [10.1.0.0/16]
//! serviceCidrs: [10.96.0.0/12]              # of virtual IPs: told to who joins; no other cluster's prefixes may touch them
//! listen: "[::]:6082"                       # UDP; this is the default
//! stateDirectory: /var/lib/hawser/hub       # this is the default; replicas of a hub share it
//! source: dir:/etc/hawser/manifests
//! hubs: [hub.east.example:6082]             # where nodes and other clusters find the replicas; tokens say so
//! name: hub-1                               # of this replica; the host's by default
//! nodeCertificateSeconds: 86400             # how long a node's certificate lives; it is renewed at half of that
//! tls:                                      # only where certificates are brought; otherwise the hub is its own CA
//!   ca: ca.crt                              # of the own cluster: what its nodes' certificates lead to
//!   certificate: hub.crt
//!   key: hub.key
//! excludedLabels: [pod-template-hash]       # besides the usual ones
//! quotas: { records: 250000, changesPerSecond: 2000 }
//! restSeconds: 600                          # before a number is used again
//! protectedNamespaces:                      # neither exported nor imported; this is the default
//!   [kube-system, kube-public, kube-node-lease, default/kubernetes]
//! ```

use super::clusters::{cluster_id, cluster_name};
use super::fault::{ConfigError, Fault, Rule};
use super::{prefix, read, syntax};
use crate::dial::Target;
use crate::hub::manifest::{QuotaLimits, overlaps};
use crate::hub::protected::Protected;
use crate::io::host_name::host_name;
use crate::record::{Cluster, check_name};
use hawser_tunnel::vni::Vni;
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a hub listens, unless its file says otherwise.
pub const DEFAULT_LISTEN: &str = "[::]:6082";
/// Where a hub keeps its state, unless its file says otherwise.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/hawser/hub";

/// How long a node's certificate may live, in seconds. Less than an hour is for trying it out: so long may every hub be
/// away, less half of it, before a node must enrol again.
const NODE_CERTIFICATE: RangeInclusive<u64> = 10..=30 * 86_400;

/// Labels that controllers put on pods and that tell one pod or one roll-out from the next, not one kind from another.
const EXCLUDED_LABELS: [&str; 6] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// A file that keeps every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// The own cluster.
    pub cluster: Cluster,
    /// The clusterset's name.
    pub clusterset: String,
    /// Its network id.
    pub vni: Vni,
    /// Virtual IPs of its services, as other clusters are told when they join. Sorted, each once.
    pub service_cidrs: Vec<IpNet>,
    /// Where to listen, UDP.
    pub listen: SocketAddr,
    /// Where state is kept.
    pub state_directory: PathBuf,
    /// The folder of manifests.
    pub source: PathBuf,
    /// This replica's name.
    pub name: String,
    /// Where nodes and other clusters find the replicas: HOST:PORT.
    pub hubs: Vec<String>,
    /// The certificates, where they are brought.
    pub tls: Option<TlsFiles>,
    /// How long a node's certificate lives.
    pub node_certificate: Duration,
    /// Labels that make no difference to an identity.
    pub excluded_labels: BTreeSet<String>,
    /// How much each other cluster may announce.
    pub quotas: QuotaLimits,
    /// How long a number rests before it is used again.
    pub rest: Duration,
    /// What is neither exported nor imported.
    pub protected: Protected,
}

/// Certificates that are brought from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own cluster's CA.
    pub ca: PathBuf,
    /// The hub's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    cluster: OwnCluster,
    clusterset: Clusterset,
    pod_cidrs: Vec<String>,
    #[serde(default)]
    service_cidrs: Vec<String>,
    listen: Option<String>,
    state_directory: Option<String>,
    source: Option<String>,
    name: Option<String>,
    #[serde(default)]
    hubs: Vec<String>,
    tls: Option<Tls>,
    node_certificate_seconds: Option<u32>,
    #[serde(default)]
    excluded_labels: Vec<String>,
    #[serde(default)]
    quotas: QuotaLimits,
    rest_seconds: Option<u32>,
    protected_namespaces: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OwnCluster {
    name: String,
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Clusterset {
    name: String,
    vni: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tls {
    ca: String,
    certificate: String,
    key: String,
}

impl HubConfig {
    /// Reads and checks a file. A `source` that is given takes the place of the file's.
    ///
    /// # Errors
    /// The file cannot be read, is too long, is not YAML, or breaks a rule.
    pub fn load(path: &Path, source: Option<&str>) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path, source)
    }

    /// Checks the text of a file that lies at `path`: complaints name it, and relative paths of certificates in it start
    /// in its folder.
    ///
    /// # Errors
    /// The text is not YAML or breaks a rule.
    pub fn parse(text: &str, path: &Path, source: Option<&str>) -> Result<Self, ConfigError> {
        let file = syntax::read(text).map_err(|syntax| ConfigError::Syntax {
            path: path.to_owned(),
            syntax,
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        Self::check(file, folder, source).map_err(|fault| ConfigError::Field {
            path: path.to_owned(),
            fault: Box::new(fault),
        })
    }

    fn check(file: File, folder: &Path, source: Option<&str>) -> Result<Self, Fault> {
        let name = cluster_name("cluster.name", &file.cluster.name)?;
        let id = cluster_id("cluster.id", &file.cluster.id)?;
        let prefixes = prefix::all("podCidrs", &file.pod_cidrs)?;
        let service_cidrs = prefix::all("serviceCidrs", &file.service_cidrs)?;
        for prefix in &service_cidrs {
            if let Some(&other) = prefixes.iter().find(|pods| overlaps(**pods, *prefix)) {
                let other_field = "podCidrs";
                let rule = Rule::PrefixShared { other, other_field };
                return Err(Fault::new("serviceCidrs", prefix, rule));
            }
        }
        let protected = match &file.protected_namespaces {
            Some(entries) => Protected::parse("protectedNamespaces", entries)?,
            None => Protected::default(),
        };
        if prefixes.is_empty() {
            return Err(Fault::new("podCidrs", "[]", Rule::NoneNamed));
        }
        let clusterset = file.clusterset.name;
        if check_name(&clusterset).is_err() {
            return Err(Fault::new("clusterset.name", clusterset, Rule::NodeName));
        }
        let listen = file.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        let listen = listen
            .parse()
            .map_err(|_| Fault::new("listen", listen, Rule::Listen))?;
        let state = file.state_directory.as_deref();
        let state_directory = absolute("stateDirectory", state.unwrap_or(DEFAULT_STATE_DIRECTORY))?;
        let (source_field, source) = match source {
            Some(text) => ("--source", text),
            None => ("source", file.source.as_deref().unwrap_or_default()),
        };
        let directory = source.strip_prefix("dir:").filter(|path| !path.is_empty());
        let directory = directory.ok_or_else(|| Fault::new(source_field, source, Rule::Source))?;
        let rest = u64::from(file.rest_seconds.unwrap_or(600));
        if !(1..=86_400).contains(&rest) {
            let (least, most) = (1, 86_400);
            return Err(Fault::new(
                "restSeconds",
                rest,
                Rule::Between { least, most },
            ));
        }
        let life = u64::from(file.node_certificate_seconds.unwrap_or(86_400));
        if !NODE_CERTIFICATE.contains(&life) {
            let (least, most) = (*NODE_CERTIFICATE.start(), *NODE_CERTIFICATE.end());
            let rule = Rule::Between { least, most };
            return Err(Fault::new("nodeCertificateSeconds", life, rule));
        }
        for (at, text) in file.hubs.iter().enumerate() {
            let target: Result<Target, _> = text.parse();
            target.map_err(|_| Fault::new(format!("hubs[{at}]"), text, Rule::HubAddress))?;
        }
        let own_name = file.name.unwrap_or_else(host_name);
        if check_name(&own_name).is_err() {
            return Err(Fault::new("name", own_name, Rule::NodeName));
        }
        let excluded = EXCLUDED_LABELS.map(str::to_owned);
        Ok(Self {
            cluster: Cluster {
                id,
                name,
                prefixes,
                ca: String::new(),
            },
            service_cidrs,
            clusterset,
            vni: vni(file.clusterset.vni.as_deref())?,
            listen,
            state_directory,
            source: folder.join(directory),
            name: own_name,
            hubs: file.hubs,
            tls: file.tls.map(|tls| TlsFiles {
                ca: folder.join(tls.ca),
                certificate: folder.join(tls.certificate),
                key: folder.join(tls.key),
            }),
            node_certificate: Duration::from_secs(life),
            excluded_labels: file.excluded_labels.into_iter().chain(excluded).collect(),
            quotas: file.quotas,
            rest: Duration::from_secs(rest),
            protected,
        })
    }
}

fn vni(text: Option<&str>) -> Result<Vni, Fault> {
    let Some(text) = text else {
        return Ok(Vni::DEFAULT);
    };
    let number = text.parse().ok();
    let vni = number.and_then(|number: u32| Vni::new(number).ok());
    vni.ok_or_else(|| Fault::new("clusterset.vni", text, Rule::Vni))
}

fn absolute(field: &str, text: &str) -> Result<PathBuf, Fault> {
    if !Path::new(text).is_absolute() {
        return Err(Fault::new(field, text, Rule::PathRelative));
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster: {name: east, id: 1}\nclusterset: {name: demo.example}\npodCidrs: [10.1.0.0/16]\n\
                        source: dir:manifests\ntls: {ca: ca.crt, certificate: hub.crt, key: hub.key}\n";

    fn parse(text: &str) -> Result<HubConfig, String> {
        let path = Path::new("/etc/hawser/hub.yaml");
        HubConfig::parse(text, path, None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_file_has_the_defaults() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.listen.to_string(), "[::]:6082");
        assert_eq!(config.source, Path::new("/etc/hawser/manifests"));
        let tls = config.tls.unwrap();
        assert_eq!(tls.ca, Path::new("/etc/hawser/ca.crt"));
        assert_eq!(config.node_certificate, Duration::from_secs(86_400));
        assert!(config.excluded_labels.contains("pod-template-hash"));
        assert_eq!(config.rest, Duration::from_secs(600));
        assert!(config.hubs.is_empty() && config.service_cidrs.is_empty());
    }

    #[test]
    fn service_prefixes_are_read_as_those_of_pods() {
        let with = |line: &str| parse(&GOOD.replace("tls:", &format!("{line}\ntls:")));
        let config = with("serviceCidrs: [10.92.0.0/16, 10.91.0.0/16]").unwrap();
        let expected = ["10.91.0.0/16", "10.92.0.0/16"].map(|text| text.parse().unwrap());
        assert_eq!(config.service_cidrs, expected);
        let told = with("serviceCidrs: [10.91.0.1/16]").unwrap_err();
        assert!(
            told.contains("serviceCidrs[0]: 10.91.0.1/16: has host bits set"),
            "{told}"
        );
    }

    #[test]
    fn each_wrong_field_is_told_in_one_line_with_value_rule_and_fix() {
        for (from, to, told) in [
            (
                "id: 1",
                "id: 4000",
                "cluster.id: 4000: must be 1 to 2047; choose another",
            ),
            (
                "10.1.0.0/16",
                "10.1.0.1/16",
                "podCidrs[0]: 10.1.0.1/16: has host bits set; write 10.1.0.0/16",
            ),
            (
                "[10.1.0.0/16]",
                "[127.0.0.0/8]",
                "podCidrs[0]: 127.0.0.0/8: touches 127.0.0.0/8, which no cluster can have; choose another prefix",
            ),
            (
                "tls:",
                "serviceCidrs: [10.0.0.0/8]\ntls:",
                "serviceCidrs: 10.0.0.0/8: overlaps 10.1.0.0/16 of podCidrs; pods and services have prefixes of their \
                 own: change one",
            ),
            (
                "tls:",
                "protectedNamespaces: [vault, Shop]\ntls:",
                "protectedNamespaces[1]: Shop: must be NAMESPACE or NAMESPACE/SERVICE, as in kube-system or \
                 default/kubernetes; correct it",
            ),
            (
                "[10.1.0.0/16]",
                "[]",
                "podCidrs: []: must name at least one; add it",
            ),
            (
                "dir:manifests",
                "manifests",
                "source: manifests: must be dir:PATH, as in dir:/etc/hawser/manifests; correct it",
            ),
            (
                "tls:",
                "listen: 6082\ntls:",
                "listen: 6082: must be ADDRESS:PORT, as in [::]:6082; correct it",
            ),
            (
                "tls:",
                "stateDirectory: state\ntls:",
                "stateDirectory: state: must be an absolute path; start it with /",
            ),
            (
                "tls:",
                "restSeconds: 0\ntls:",
                "restSeconds: 0: must be 1 to 86400; choose another",
            ),
            (
                "tls:",
                "nodeCertificateSeconds: 9\ntls:",
                "nodeCertificateSeconds: 9: must be 10 to 2592000; choose another",
            ),
            (
                "tls:",
                "hubs: [hub.example]\ntls:",
                "hubs[0]: hub.example: must be HOST:PORT, as in hub.example.org:6082, 192.0.2.1:6082 or [2001:db8::1]:6082; correct it",
            ),
            (
                "podCidrs",
                "podCidr",
                "line 3, column 1: unknown field podCidr; did you mean podCidrs?",
            ),
        ] {
            let text = GOOD.replace(from, to);
            assert_eq!(parse(&text), Err(format!("/etc/hawser/hub.yaml: {told}")));
        }
    }
}
