//! An exported service (KEP-1645).

/// What the origin says of a service that it exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// A DNS label.
    pub namespace: String,
    /// A DNS label.
    pub name: String,
    /// Whether it has a virtual IP.
    pub kind: ServiceType,
    /// Its ports, in the order of the `Service`.
    pub ports: Vec<ServicePort>,
    /// When the `ServiceExport` was made, in seconds since 1970: of clusters that disagree the oldest export wins.
    pub exported_at: u64,
    /// Seconds for which a client keeps to its backend (`ClientIP`); `None`: it need not.
    pub session_affinity: Option<u32>,
}

/// `ClusterSetIP` or `Headless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// With a virtual IP of the clusterset.
    ClusterSetIp,
    /// Its names answer with its endpoints.
    Headless,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty where the service has one port without.
    pub name: String,
    /// The protocol's number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Never 0.
    pub port: u16,
    /// For `appProtocol`; empty: not said.
    pub app_protocol: String,
}
