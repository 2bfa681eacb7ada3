//! The configuration of a network, as a runtime gives it to a plugin (SPEC, "Section 1").

use crate::attachment::{WORD, broken};
use crate::pod::address_of;
use crate::{
    Code, ContainerId, Error, InterfaceName, MacAddress, NetworkName, NetworkResult, SpecVersion,
    json,
};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::path::PathBuf;

/// A configuration, checked but for what not every command needs.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Results and errors are told in it.
    pub version: SpecVersion,
    /// The network.
    pub name: NetworkName,
    /// The IPAM plugin that addresses come from; `None`: from the agent.
    pub ipam: Option<String>,
    /// Where the agent listens, if it is elsewhere.
    pub socket: Option<PathBuf>,
    /// What the runtime wants for this container.
    pub runtime: RuntimeConfig,
    whole: Map<String, Value>,
}

/// What a runtime wants for one container (`runtimeConfig`, and what `args.cni` says; CONVENTIONS.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Addresses that it is to have.
    pub ips: Vec<IpAddr>,
    /// The Ethernet address that it is to have.
    pub mac: Option<MacAddress>,
}

/// An attachment that the runtime knows of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValidAttachment {
    /// The container.
    pub container_id: ContainerId,
    /// The interface in it.
    pub ifname: InterfaceName,
}

impl NetworkConfig {
    /// Reads a configuration of one plugin.
    ///
    /// # Errors
    /// [`Code::Decoding`], [`Code::IncompatibleVersion`] or [`Code::InvalidConfig`], with field, value and rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let whole = json::object(bytes)?;
        // Whatever else is wrong is told in it.
        let object = Value::Object(whole.clone());
        let version = SpecVersion::of(&object)?;
        let name = text(&whole, "name")?;
        let name =
            name.ok_or_else(|| fault("name", &Value::Null, "is missing; name the network"))?;
        let network = NetworkName::new(name).ok_or_else(|| fault("name", &name.into(), WORD))?;
        if let Some(kind) = text(&whole, "type")? {
            is_plugin("type", kind)?;
        }
        let socket = text(&whole, "socket")?.map(PathBuf::from);
        if let Some(path) = socket.as_ref().filter(|path| !path.is_absolute()) {
            let shown = Value::from(path.display().to_string());
            return Err(fault("socket", &shown, "must be a path from '/'"));
        }
        let ipam = match whole.get("ipam") {
            None | Some(Value::Null) => None,
            Some(Value::Object(ipam)) => text(ipam, "type")?.map(str::to_owned),
            Some(other) => return Err(fault("ipam", other, "must be an object")),
        };
        if let Some(kind) = &ipam {
            is_plugin("ipam.type", kind)?;
        }
        let runtime = RuntimeConfig::of(&whole)?;
        Ok(Self {
            version,
            name: network,
            ipam,
            socket,
            runtime,
            whole,
        })
    }

    /// As it came, for those to whom something is delegated: they are given the whole of it.
    pub fn whole(&self) -> &Map<String, Value> {
        &self.whole
    }

    /// What the plugins before this one made; `None`: this is the first.
    ///
    /// # Errors
    /// See [`NetworkResult::from_json`]. DEL goes on all the same.
    pub fn previous(&self) -> Result<Option<NetworkResult>, Error> {
        match self.whole.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => NetworkResult::from_json(value, "prevResult").map(Some),
        }
    }

    /// All attachments of this network that the runtime knows of, for GC.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: without the list nothing may be removed.
    pub fn valid_attachments(&self) -> Result<Vec<ValidAttachment>, Error> {
        const FIELD: &str = "cni.dev/valid-attachments";
        let listed = self.whole.get(FIELD);
        let Some(Value::Array(listed)) = listed else {
            let rule = "must be a list; GC removes all that is not in it";
            return Err(fault(FIELD, listed.unwrap_or(&Value::Null), rule));
        };
        let attachments = listed.iter().map(|entry| {
            let rule = "must have a containerID and an ifname, as attachments have";
            let part = |name: &str| entry.get(name).and_then(Value::as_str);
            let container_id = part("containerID").and_then(ContainerId::new);
            let ifname = part("ifname").and_then(InterfaceName::new);
            let both = container_id
                .zip(ifname)
                .ok_or_else(|| fault(FIELD, entry, rule));
            both.map(|(container_id, ifname)| ValidAttachment {
                container_id,
                ifname,
            })
        });
        attachments.collect()
    }
}

impl RuntimeConfig {
    fn of(config: &Map<String, Value>) -> Result<Self, Error> {
        let object = |name: &str, within: &Map<String, Value>| match within.get(name) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object.clone()),
            Some(other) => Err(fault(name, other, "must be an object")),
        };
        let runtime = object("runtimeConfig", config)?;
        let args = object("cni", &object("args", config)?)?;
        let mut ips = Vec::new();
        for (field, listed) in [
            ("runtimeConfig.ips", runtime.get("ips")),
            ("args.cni.ips", args.get("ips")),
        ] {
            let rule = "must be a list of addresses";
            let listed = match listed {
                None | Some(Value::Null) => continue,
                Some(Value::Array(listed)) => listed,
                Some(other) => return Err(fault(field, other, rule)),
            };
            // Whoever says it last, wins.
            ips = listed
                .iter()
                .map(|entry| {
                    let address = entry.as_str().and_then(address_of);
                    address.ok_or_else(|| fault(field, entry, rule))
                })
                .collect::<Result<_, _>>()?;
        }
        let mac = match runtime.get("mac") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let mac = value.as_str().unwrap_or_default().parse::<MacAddress>();
                let wrong = |error: crate::pod::MacError| {
                    fault("runtimeConfig.mac", value, &error.to_string())
                };
                Some(mac.map_err(wrong)?)
            }
        };
        Ok(Self { ips, mac })
    }
}

/// A text under a key.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Error> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(fault(key, other, "must be a text")),
    }
}

/// A plugin is a file of its folder, and no path (CVE-2021-20206).
fn is_plugin(field: &str, name: &str) -> Result<(), Error> {
    let is_file = NetworkName::new(name).is_some();
    is_file
        .then_some(())
        .ok_or_else(|| fault(field, &name.into(), WORD))
}

fn fault(field: &str, value: &Value, rule: &str) -> Error {
    let message = match value {
        Value::Null => format!("{field}: {rule}"),
        Value::String(text) => broken(field, text, rule),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("{field} {}: {rule}", json::short(&value.to_string()))
        }
    };
    Error::new(Code::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(more: Value) -> Value {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "hawser", "type": "hawser-cni" });
        let Value::Object(more) = more else {
            panic!("an object");
        };
        config.as_object_mut().unwrap().extend(more);
        config
    }

    fn parse(more: Value) -> Result<NetworkConfig, Error> {
        NetworkConfig::parse(config(more).to_string().as_bytes())
    }

    #[test]
    fn what_a_runtime_gives_is_read_and_the_rest_kept() {
        let parsed = parse(json!({
            "ipam": { "type": "host-local", "subnet": "10.1.1.0/24" },
            "socket": "/run/hawser/other.sock",
            "runtimeConfig": { "ips": ["10.1.1.9/24"], "mac": "0a:58:0a:01:01:09", "portMappings": [{ "hostPort": 80 }] },
            "cni.dev/attachments": [],
            "future": { "a": 1 },
        }))
        .unwrap();
        assert_eq!(parsed.version, SpecVersion::V1_1_0);
        assert_eq!(parsed.name.as_str(), "hawser");
        assert_eq!(parsed.ipam.as_deref(), Some("host-local"));
        assert_eq!(parsed.socket, Some(PathBuf::from("/run/hawser/other.sock")));
        assert_eq!(parsed.runtime.ips, ["10.1.1.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            parsed.runtime.mac.unwrap().octets(),
            [10, 0x58, 10, 1, 1, 9]
        );
        assert_eq!(parsed.whole()["future"], json!({ "a": 1 }));
        assert_eq!(parsed.previous(), Ok(None));
        // `args.cni` wins.
        let both = json!({ "runtimeConfig": { "ips": ["10.1.1.9"] }, "args": { "cni": { "ips": ["10.1.1.8"] } } });
        assert_eq!(
            parse(both).unwrap().runtime.ips,
            ["10.1.1.8".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn what_the_plugins_before_made_is_read_when_it_is_needed() {
        let previous = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.1.1.2/24" }] });
        let parsed = parse(json!({ "prevResult": previous })).unwrap();
        assert_eq!(parsed.previous().unwrap().unwrap().ips.len(), 1);
        // DEL is not kept from its work by what it does not need.
        let parsed = parse(json!({ "prevResult": { "cniVersion": "9.9" } })).unwrap();
        assert_eq!(
            parsed.previous().unwrap_err().code,
            Code::IncompatibleVersion
        );
    }

    #[test]
    fn attachments_that_are_valid_are_listed_or_nothing_is_collected() {
        let listed = |more: Value| parse(more).unwrap().valid_attachments();
        const FIELD: &str = "cni.dev/valid-attachments";
        let attachments =
            listed(json!({ FIELD: [{ "containerID": "a", "ifname": "eth0" }] })).unwrap();
        assert_eq!(attachments[0].container_id.as_str(), "a");
        assert_eq!(listed(json!({ FIELD: [] })), Ok(Vec::new()));
        for wrong in [
            json!({}),
            json!({ FIELD: null }),
            json!({ FIELD: {} }),
            json!({ FIELD: [{ "containerID": "a" }] }),
            json!({ FIELD: [{ "containerID": "../a", "ifname": "eth0" }] }),
        ] {
            let error = listed(wrong).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.to_string().starts_with(FIELD), "{error}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_with_field_value_and_rule() {
        for (more, code, told) in [
            (json!({ "name": null }), 7, "name: is missing"),
            (json!({ "name": "" }), 7, "name: is missing"),
            (
                json!({ "name": "../x" }),
                7,
                "name \"../x\": must be 1 to 255 letters",
            ),
            (json!({ "name": 7 }), 7, "name 7: must be a text"),
            (
                json!({ "type": "../../bin/sh" }),
                7,
                "type \"../../bin/sh\": must be",
            ),
            (
                json!({ "ipam": { "type": "a/b" } }),
                7,
                "ipam.type \"a/b\": must be",
            ),
            (json!({ "ipam": 7 }), 7, "ipam 7: must be an object"),
            (
                json!({ "socket": "run" }),
                7,
                "socket \"run\": must be a path",
            ),
            (
                json!({ "runtimeConfig": [] }),
                7,
                "runtimeConfig []: must be an object",
            ),
            (
                json!({ "runtimeConfig": { "ips": ["10.1.1"] } }),
                7,
                "runtimeConfig.ips \"10.1.1\": must be a list",
            ),
            (
                json!({ "runtimeConfig": { "ips": "10.1.1.1" } }),
                7,
                "runtimeConfig.ips \"10.1.1.1\": must be a list",
            ),
            (
                json!({ "runtimeConfig": { "mac": 7 } }),
                7,
                "runtimeConfig.mac 7: must be six bytes",
            ),
            (
                json!({ "args": { "cni": 7 } }),
                7,
                "cni 7: must be an object",
            ),
            (
                json!({ "cniVersion": "9.9" }),
                1,
                "cniVersion \"9.9\" is not supported",
            ),
            (
                json!({ "cniVersion": null }),
                1,
                "cniVersion null is not supported",
            ),
        ] {
            let error = parse(more).unwrap_err();
            assert_eq!(error.code as u16, code, "{error}");
            let line = error.to_string();
            assert!(
                line.starts_with(told) && !line.contains('\n') && line.len() < 300,
                "{line}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_configuration_or_refused_in_one_line(bytes: Vec<u8>, cut in 0..300usize, flip in 0..300usize, to: u8) {
            let right = config(json!({
                "runtimeConfig": { "ips": ["10.1.1.9/24"], "mac": "0a:58:0a:01:01:09" },
                "prevResult": { "cniVersion": "1.0.0", "ips": [{ "address": "10.1.1.2/24", "interface": 0 }] },
                "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }],
            }));
            let mut spoiled = right.to_string().into_bytes();
            spoiled.truncate(cut.max(1));
            let at = flip % spoiled.len();
            spoiled[at] = to;
            let mut flipped = right.to_string().into_bytes();
            let at = flip % flipped.len();
            flipped[at] = to;
            for bytes in [bytes, spoiled, flipped] {
                let told = NetworkConfig::parse(&bytes).and_then(|config| {
                    config.previous()?;
                    config.valid_attachments()
                });
                if let Err(error) = told {
                    let line = error.to_string();
                    proptest::prop_assert!(!line.contains('\n') && line.len() < 400, "{}", line);
                }
            }
        }
    }
}
