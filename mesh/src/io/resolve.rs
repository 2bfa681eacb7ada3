//! Addresses of names, by the system's settings: `/etc/hosts`, then the servers of `/etc/resolv.conf`.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// For one question to one server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for addresses. Nothing is kept from one question to the next: changes of the settings count at once, and how
/// long an answer holds is for [`crate::dial`].
#[derive(Clone, Debug)]
pub struct Resolver(Servers);

#[derive(Clone, Debug)]
enum Servers {
    System,
    Only(Vec<SocketAddr>),
}

impl Resolver {
    /// By the system's settings.
    pub fn system() -> Self {
        Self(Servers::System)
    }

    /// By these servers.
    pub fn of_servers(servers: Vec<SocketAddr>) -> Self {
        Self(Servers::Only(servers))
    }

    /// The addresses of a name, IPv6 and IPv4, and until when they hold.
    ///
    /// # Errors
    /// No server answers, or there is no such name.
    pub async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Instant), NetError> {
        let lookup = self.resolver()?.lookup_ip(absolute(name)).await?;
        Ok((lookup.iter().collect(), lookup.valid_until()))
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match &self.0 {
            Servers::System => TokioResolver::builder_tokio()?,
            Servers::Only(servers) => {
                let servers = servers.iter().map(|server| {
                    let mut config = NameServerConfig::udp_and_tcp(server.ip());
                    for connection in &mut config.connections {
                        connection.port = server.port();
                    }
                    config
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        builder.build()
    }
}

/// Names with a dot are complete; `hub` alone may be found in the domains that the system searches.
fn absolute(name: &str) -> String {
    if name.contains('.') {
        format!("{name}.")
    } else {
        name.to_owned()
    }
}
