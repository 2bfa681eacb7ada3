//! Results (SPEC, "ADD Success"), in the version of who asks and out of the version of who answered.

use crate::attachment::broken;
use crate::{Code, Error, SpecVersion};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What an attachment consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkResult {
    /// Both ends of what was made, and what others made before; of a delegated IPAM plugin none.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Where names are asked for.
    pub dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes; since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace, of an interface in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Of a vhost-user interface; since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// Of a PCI device; since 1.1.0.
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// With the length of its prefix.
    pub address: IpNet,
    /// Of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Its place in [`NetworkResult::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub dst: IpNet,
    /// By way of whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// In bytes; since 1.1.0, as all that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The largest segment to announce, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The lower, the sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The table it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// 0 global, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Where names are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains that are searched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// As in resolv.conf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What a result is written as; unknown fields are let be.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<WrittenIp>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Deserialize)]
struct WrittenIp {
    /// `4` or `6`; gone since 1.0.0.
    version: Option<String>,
    #[serde(flatten)]
    ip: IpConfig,
}

impl NetworkResult {
    /// As a runtime is told it. What the version has no field for is left out.
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let is_new = version >= SpecVersion::V1_1_0;
        let interfaces = self.interfaces.iter().map(|interface| {
            let mut interface = interface.clone();
            if !is_new {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
            }
            json!(interface)
        });
        let ips = self.ips.iter().map(|ip| {
            let mut written = json!(ip);
            if version < SpecVersion::V1_0_0 {
                let family = if ip.address.addr().is_ipv4() {
                    "4"
                } else {
                    "6"
                };
                written["version"] = family.into();
            }
            written
        });
        let routes = self.routes.iter().map(|route| {
            let old = Route {
                mtu: None,
                advmss: None,
                priority: None,
                table: None,
                scope: None,
                ..route.clone()
            };
            json!(if is_new { route } else { &old })
        });
        let mut written = Map::new();
        written.insert("cniVersion".to_owned(), version.name().into());
        for (name, values) in [
            ("interfaces", interfaces.collect::<Vec<_>>()),
            ("ips", ips.collect()),
            ("routes", routes.collect()),
        ] {
            if !values.is_empty() {
                written.insert(name.to_owned(), values.into());
            }
        }
        if self.dns != Dns::default() {
            written.insert("dns".to_owned(), json!(self.dns));
        }
        written.into()
    }

    /// Reads one that a plugin wrote, in whichever of the spoken versions it says that it is.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`], or [`Code::Decoding`] with what is wrong. `field`: what it is called there.
    pub fn from_json(value: &Value, field: &str) -> Result<Self, Error> {
        SpecVersion::of(value)?;
        let fault = |what: String| Error::new(Code::Decoding, format!("{field}: {what}"));
        let written = Written::deserialize(value);
        let written = written.map_err(|error| fault(crate::json::short(&error.to_string())))?;
        let mut ips = Vec::with_capacity(written.ips.len());
        for (at, WrittenIp { version, ip }) in written.ips.into_iter().enumerate() {
            let family = if ip.address.addr().is_ipv4() {
                "4"
            } else {
                "6"
            };
            if let Some(said) = version.filter(|said| said != family) {
                let rule = format!("must be \"{family}\", as {} is", ip.address);
                return Err(fault(broken(&format!("ips[{at}].version"), &said, &rule)));
            }
            if let Some(gateway) = ip.gateway
                && gateway.is_ipv4() != ip.address.addr().is_ipv4()
            {
                let rule = format!("must be of the family of {}", ip.address);
                let name = format!("ips[{at}].gateway");
                return Err(fault(broken(&name, &gateway.to_string(), &rule)));
            }
            if let Some(interface) = ip.interface
                && interface >= written.interfaces.len()
            {
                let rule = format!("there are {} interfaces", written.interfaces.len());
                let name = format!("ips[{at}].interface");
                return Err(fault(broken(&name, &interface.to_string(), &rule)));
            }
            ips.push(ip);
        }
        Ok(Self {
            interfaces: written.interfaces,
            ips,
            routes: written.routes,
            dns: written.dns,
        })
    }

    /// The interface in the container that has this name.
    pub fn in_container(&self, name: &str) -> Option<(usize, &Interface)> {
        let mut interfaces = self.interfaces.iter().enumerate();
        interfaces.find(|(_, interface)| interface.name == name && interface.sandbox.is_some())
    }

    /// The addresses of an interface.
    pub fn addresses_of(&self, interface: usize) -> impl Iterator<Item = &IpConfig> {
        let ips = self.ips.iter();
        ips.filter(move |ip| ip.interface == Some(interface))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> NetworkResult {
        NetworkResult {
            interfaces: vec![
                Interface {
                    name: "hw12345678".to_owned(),
                    mac: Some("0a:58:0a:01:01:01".to_owned()),
                    mtu: Some(1392),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".to_owned(),
                    mac: Some("0a:58:0a:01:01:02".to_owned()),
                    mtu: Some(1392),
                    sandbox: Some("/run/netns/pod".to_owned()),
                    socket_path: Some("/run/vhost".to_owned()),
                    pci_id: Some("0000:00:1f.6".to_owned()),
                },
            ],
            ips: vec![
                IpConfig {
                    address: "10.1.1.2/32".parse().unwrap(),
                    gateway: Some("10.1.1.1".parse().unwrap()),
                    interface: Some(1),
                },
                IpConfig {
                    address: "fd00:1::2/128".parse().unwrap(),
                    gateway: None,
                    interface: Some(1),
                },
            ],
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("10.1.1.1".parse().unwrap()),
                mtu: Some(1392),
                advmss: Some(1352),
                priority: Some(7),
                table: Some(254),
                scope: Some(0),
            }],
            dns: Dns {
                nameservers: vec!["10.96.0.10".to_owned()],
                domain: Some("cluster.local".to_owned()),
                search: vec!["svc.cluster.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            },
        }
    }

    #[test]
    fn the_newest_version_says_all() {
        let written = whole().to_json(SpecVersion::V1_1_0);
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "hw12345678", "mac": "0a:58:0a:01:01:01", "mtu": 1392 },
                {
                    "name": "eth0", "mac": "0a:58:0a:01:01:02", "mtu": 1392, "sandbox": "/run/netns/pod",
                    "socketPath": "/run/vhost", "pciID": "0000:00:1f.6",
                },
            ],
            "ips": [
                { "address": "10.1.1.2/32", "gateway": "10.1.1.1", "interface": 1 },
                { "address": "fd00:1::2/128", "interface": 1 },
            ],
            "routes": [{
                "dst": "0.0.0.0/0", "gw": "10.1.1.1", "mtu": 1392, "advmss": 1352, "priority": 7, "table": 254, "scope": 0,
            }],
            "dns": {
                "nameservers": ["10.96.0.10"], "domain": "cluster.local", "search": ["svc.cluster.local"], "options": ["ndots:5"],
            },
        });
        assert_eq!(written, expected);
        assert_eq!(
            NetworkResult::from_json(&written, "prevResult"),
            Ok(whole())
        );
    }

    #[test]
    fn older_versions_say_what_they_have_fields_for() {
        for version in [SpecVersion::V0_4_0, SpecVersion::V1_0_0] {
            let written = whole().to_json(version);
            assert_eq!(written["cniVersion"], version.name());
            assert!(written["interfaces"][1].get("mtu").is_none());
            assert!(written["interfaces"][1].get("pciID").is_none());
            assert_eq!(
                written["routes"],
                json!([{ "dst": "0.0.0.0/0", "gw": "10.1.1.1" }])
            );
            let family = |at: usize| written["ips"][at].get("version").cloned();
            let expected = match version {
                SpecVersion::V0_4_0 => [Some(json!("4")), Some(json!("6"))],
                SpecVersion::V1_0_0 | SpecVersion::V1_1_0 => [None, None],
            };
            assert_eq!([family(0), family(1)], expected);
            let read = NetworkResult::from_json(&written, "prevResult").unwrap();
            assert_eq!((read.ips, read.dns), (whole().ips, whole().dns));
        }
        let nothing = NetworkResult::default().to_json(SpecVersion::V1_0_0);
        assert_eq!(nothing, json!({ "cniVersion": "1.0.0" }));
    }

    #[test]
    fn interfaces_are_found_with_their_addresses() {
        let whole = whole();
        let (at, _) = whole.in_container("eth0").unwrap();
        assert_eq!(whole.addresses_of(at).count(), 2);
        assert_eq!(
            whole.in_container("hw12345678"),
            None,
            "it is the host's end"
        );
    }

    #[test]
    fn what_no_plugin_writes_is_refused_with_its_place() {
        let with = |more: Value| {
            let mut value = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0" }] });
            let Value::Object(more) = more else {
                panic!("an object");
            };
            value.as_object_mut().unwrap().extend(more);
            let error = NetworkResult::from_json(&value, "prevResult").unwrap_err();
            let line = error.to_string();
            assert!(!line.contains('\n') && line.len() < 300, "{line}");
            (error.code, line)
        };
        for (more, told) in [
            (
                json!({ "ips": [{ "address": "10.1.1.2/33" }] }),
                "prevResult: ",
            ),
            (json!({ "ips": 7 }), "prevResult: "),
            (json!({ "ips": [{}] }), "prevResult: "),
            (json!({ "routes": [{ "dst": "10.0.0.0" }] }), "prevResult: "),
            (
                json!({ "ips": [{ "version": "6", "address": "10.1.1.2/32" }] }),
                "prevResult: ips[0].version \"6\": must be \"4\"",
            ),
            (
                json!({ "ips": [{ "address": "10.1.1.2/32", "gateway": "fd00::1" }] }),
                "prevResult: ips[0].gateway \"fd00::1\"",
            ),
            (
                json!({ "ips": [{ "address": "10.1.1.2/32", "interface": 1 }] }),
                "prevResult: ips[0].interface \"1\": there are 1",
            ),
        ] {
            let (code, line) = with(more);
            assert_eq!(code, Code::Decoding);
            assert!(line.starts_with(told), "{line}");
        }
        let (code, _) = with(json!({ "cniVersion": "0.2.0" }));
        assert_eq!(code, Code::IncompatibleVersion);
    }
}
