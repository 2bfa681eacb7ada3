//! What a runtime says of a pod beside its container: `CNI_ARGS`, and `args.cni` of the configuration, which wins
//! (CONVENTIONS.md).

use crate::attachment::broken;
use crate::{Code, Error};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest `CNI_ARGS`, in bytes.
const LONGEST: usize = 8 << 10;

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; newer runtimes say it.
    pub uid: Option<String>,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Its bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

/// `0a:58:0a:01:01:02`
impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no Ethernet address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be six bytes in hexadecimal with ':' between, of one interface: 0a:58:0a:01:01:02")]
pub struct MacError;

/// What its `Display` says; neither a group's address nor all zeros.
impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or(MacError)?, 16).map_err(|_| MacError)?;
        }
        let is_one = parts.next().is_none() && octets[0] & 1 == 0 && octets != [0; 6];
        is_one.then_some(Self(octets)).ok_or(MacError)
    }
}

/// What `CNI_ARGS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// The pod, where the runtime is one of Kubernetes.
    pub pod: Option<Pod>,
    /// Addresses that it is to have.
    pub ips: Vec<IpAddr>,
    /// The Ethernet address that it is to have.
    pub mac: Option<MacAddress>,
}

impl PodArgs {
    /// Reads `K=V;K=V`. A key that is none of ours is refused, as runtimes' own plugins do, unless `IgnoreUnknown` says
    /// otherwise.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fault = |value: &str, rule: &str| {
            Error::new(Code::InvalidEnvironment, broken("CNI_ARGS", value, rule))
        };
        if text.len() > LONGEST {
            return Err(fault(text, "must have at most 8192 bytes"));
        }
        let mut args = Self::default();
        let mut pod = Pod::default();
        let (mut ignores, mut unknown) = (false, Vec::new());
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(fault(pair, "must be KEY=VALUE pairs with ';' between"));
            };
            match key {
                "IgnoreUnknown" => {
                    ignores = match value {
                        "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                        "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                        _ => return Err(fault(pair, "must be true or false")),
                    };
                }
                "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut pod.name),
                "K8S_POD_UID" => pod.uid = (!value.is_empty()).then(|| value.to_owned()),
                // The container that `CNI_CONTAINERID` names.
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => {
                    for address in value.split(',') {
                        let address = address_of(address);
                        let rule = "IP must be addresses, with ',' between";
                        args.ips.push(address.ok_or_else(|| fault(pair, rule))?);
                    }
                }
                "MAC" => {
                    let mac = value.parse::<MacAddress>();
                    args.mac = Some(mac.map_err(|error| fault(pair, &error.to_string()))?);
                }
                _ => unknown.push(key),
            }
        }
        if let (false, [first, ..]) = (ignores, &unknown[..]) {
            return Err(fault(
                first,
                "is no argument of ours; leave it out, or say IgnoreUnknown=1",
            ));
        }
        args.pod = match (pod.namespace.is_empty(), pod.name.is_empty()) {
            (true, true) => None,
            (false, false) => Some(pod),
            (true, false) | (false, true) => {
                let rule = "must have both K8S_POD_NAMESPACE and K8S_POD_NAME, or neither";
                return Err(fault(text, rule));
            }
        };
        Ok(args)
    }
}

/// An address, with or without the length of its prefix.
pub(crate) fn address_of(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok();
    address.or_else(|| Some(text.parse::<IpNet>().ok()?.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_what_kubelets_runtimes_say() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=77ab;K8S_POD_UID=1-2;X=y=z";
        let pod = Pod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: Some("1-2".to_owned()),
        };
        let args = PodArgs::parse(text).unwrap();
        assert_eq!(args.pod, Some(pod));
        for none in ["", ";", ";;IgnoreUnknown=true;"] {
            assert_eq!(PodArgs::parse(none).unwrap(), PodArgs::default());
        }
        let wished = PodArgs::parse("IP=10.1.1.9/24,fd00::9;MAC=0a:58:0a:01:01:09").unwrap();
        assert_eq!(
            wished.ips,
            [
                "10.1.1.9".parse::<IpAddr>().unwrap(),
                "fd00::9".parse().unwrap()
            ]
        );
        assert_eq!(wished.mac.unwrap().to_string(), "0a:58:0a:01:01:09");
    }

    #[test]
    fn what_breaks_a_rule_is_told_with_the_pair() {
        for (text, told) in [
            ("a", "CNI_ARGS \"a\": must be KEY=VALUE"),
            ("=a", "CNI_ARGS \"=a\": must be KEY=VALUE"),
            ("FOO=bar", "CNI_ARGS \"FOO\": is no argument of ours"),
            (
                "IgnoreUnknown=0;FOO=bar",
                "CNI_ARGS \"FOO\": is no argument",
            ),
            (
                "IgnoreUnknown=yes",
                "CNI_ARGS \"IgnoreUnknown=yes\": must be true or false",
            ),
            (
                "K8S_POD_NAME=web",
                "CNI_ARGS \"K8S_POD_NAME=web\": must have both",
            ),
            (
                "K8S_POD_NAMESPACE=shop",
                "CNI_ARGS \"K8S_POD_NAMESPACE=shop\": must have both",
            ),
            ("IP=10.1.1", "CNI_ARGS \"IP=10.1.1\": IP must be addresses"),
            ("MAC=0a:58", "CNI_ARGS \"MAC=0a:58\": must be six bytes"),
            (&"a".repeat(9000), "CNI_ARGS \"aaa"),
        ] {
            let error = PodArgs::parse(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.to_string().starts_with(told), "{error}");
        }
    }

    #[test]
    fn an_ethernet_address_is_of_one_interface() {
        for wrong in [
            "",
            "0a:58:0a:01:01",
            "0a:58:0a:01:01:02:03",
            "0a-58-0a-01-01-02",
            "a:58:0a:01:01:02",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "0g:58:0a:01:01:02",
            "+a:58:0a:01:01:02",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }
}
