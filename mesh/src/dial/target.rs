//! Where a hub is said to be.

use crate::record::check_name;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A name or an address, with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Who.
    pub host: Host,
    /// Never 0.
    pub port: u16,
}

/// What is before the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A literal address; nothing is resolved.
    Address(IpAddr),
    /// A DNS name in lower case.
    Name(String),
}

/// Why a text is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// No `host:port`.
    #[error("must be HOST:PORT, as in hub.example.org:7443, 192.0.2.1:7443 or [2001:db8::1]:7443")]
    Form,
    /// No port.
    #[error("must have a port from 1 to 65535")]
    Port,
    /// The address is of nobody.
    #[error("must be the address of a host")]
    Unspecified,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.ip().is_unspecified() || address.ip().is_multicast() {
                return Err(TargetError::Unspecified);
            }
            let host = Host::Address(address.ip());
            return Self::new(host, address.port());
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::Form)?;
        let name = host.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        check_name(name).map_err(|_| TargetError::Form)?;
        // "10.0.0" or "10.0.0.256": meant as an address.
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(TargetError::Form);
        }
        let port = port.parse().map_err(|_| TargetError::Port)?;
        Self::new(Host::Name(name.to_owned()), port)
    }
}

impl Target {
    fn new(host: Host, port: u16) -> Result<Self, TargetError> {
        match port {
            0 => Err(TargetError::Port),
            port => Ok(Self { host, port }),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Address(address.ip()),
            port: address.port(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}
