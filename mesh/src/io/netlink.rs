//! Reads and writes links, addresses, neighbours and routes over rtnetlink.

mod message;

use crate::agent::kernel::{GATEWAY_MAC, Link, Neighbour, Observed, PROTOCOL, RouteKey, Step, Way};
use crate::io::sysctl;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use message::{
    address, address_message, link, neighbour, output_device, route, route_message, route_mtu,
    route_source,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// A request that the kernel did not carry out.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}: {reason}")]
pub struct KernelError {
    what: String,
    reason: String,
}

/// A socket to the kernel of the network namespace that it was opened in.
#[derive(Clone, Debug)]
pub(crate) struct Netlink(Handle);

impl Netlink {
    /// Opens the socket and starts the task that serves it.
    pub(crate) fn open() -> io::Result<Self> {
        // Strict: then the kernel filters what it lists.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Reads what `device` is and what stands around it; the sysctls are not filled in.
    pub(crate) async fn observe(&self, device: &str) -> Result<Observed, KernelError> {
        let mut observed = Observed {
            routes: self.routes().await?,
            ..Observed::default()
        };
        if let Some(link) = self.link(device).await? {
            observed.addresses = self.addresses(link.index).await?;
            observed.neighbours = self.neighbours(link.index).await?;
            observed.link = Some(link);
        }
        Ok(observed)
    }

    /// Reads one device; `None` if there is none of that name.
    pub(crate) async fn link(&self, device: &str) -> Result<Option<Link>, KernelError> {
        let request = self.0.link().get().match_name(device).execute();
        match request.try_next_once().await {
            Ok(message) => Ok(message.map(|message| link(&message))),
            Err(error) if code(&error) == Some(ENODEV) => Ok(None),
            Err(error) => Err(failed(format!("read device {device}"), &error)),
        }
    }

    async fn addresses(&self, index: u32) -> Result<BTreeSet<IpNet>, KernelError> {
        let request = self
            .0
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        let messages: Vec<AddressMessage> = request
            .try_collect()
            .await
            .map_err(|error| failed("read addresses", &error))?;
        Ok(messages.iter().filter_map(address).collect())
    }

    async fn neighbours(&self, index: u32) -> Result<BTreeMap<IpAddr, Neighbour>, KernelError> {
        let mut request = self.0.neighbours().get();
        request
            .message_mut()
            .attributes
            .push(NeighbourAttribute::IfIndex(index));
        let messages: Vec<NeighbourMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("read neighbours", &error))?;
        let ours = messages
            .iter()
            .filter(|message| message.header.ifindex == index);
        Ok(ours.filter_map(neighbour).collect())
    }

    async fn routes(&self) -> Result<BTreeMap<RouteKey, Way>, KernelError> {
        let mut routes = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.table = RouteHeader::RT_TABLE_MAIN;
            filter.header.protocol = RouteProtocol::Other(PROTOCOL);
            let found: Vec<RouteMessage> =
                match self.0.route().get(filter).execute().try_collect().await {
                    Ok(found) => found,
                    // A kernel without IPv6 has none of its routes.
                    Err(error) if code(&error) == Some(EOPNOTSUPP) => continue,
                    Err(error) => return Err(failed("read routes", &error)),
                };
            let ours = found.iter().filter(|message| {
                message.header.protocol == RouteProtocol::Other(PROTOCOL)
                    && message.header.table == RouteHeader::RT_TABLE_MAIN
            });
            routes.extend(ours.filter_map(route));
        }
        Ok(routes)
    }

    /// The path to an underlay address; `None` where there is no route.
    pub(crate) async fn path(&self, to: IpAddr) -> Result<Option<Path>, KernelError> {
        let mut lookup = RouteMessage::default();
        let (family, length) = if to.is_ipv4() {
            (AddressFamily::Inet, 32)
        } else {
            (AddressFamily::Inet6, 128)
        };
        lookup.header.address_family = family;
        lookup.header.destination_prefix_length = length;
        lookup
            .attributes
            .push(RouteAttribute::Destination(to.into()));
        let found = match self.0.route().get(lookup).execute().try_next_once().await {
            Ok(Some(found))
                if found.header.kind == RouteType::Unicast
                    || found.header.kind == RouteType::Local =>
            {
                found
            }
            // Unreachable and the like, as an error or as a kind of route.
            Ok(_) => return Ok(None),
            Err(error) if code(&error).is_some() => return Ok(None),
            Err(error) => return Err(failed(format!("look up the route to {to}"), &error)),
        };
        let source = route_source(&found);
        if let Some(mtu) = route_mtu(&found) {
            return Ok(Some(Path { mtu, source }));
        }
        let Some(index) = output_device(&found) else {
            return Ok(None);
        };
        let request = self.0.link().get().match_index(index).execute();
        match request.try_next_once().await {
            Ok(message) => Ok(message.map(|message| Path {
                mtu: link(&message).mtu,
                source,
            })),
            // Gone in between: the next notification brings us back.
            Err(_) => Ok(None),
        }
    }

    /// Every address of this node.
    pub(crate) async fn own_addresses(&self) -> Result<BTreeSet<IpAddr>, KernelError> {
        let messages: Vec<AddressMessage> = self
            .0
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("read addresses", &error))?;
        Ok(messages
            .iter()
            .filter_map(address)
            .map(|net| net.addr())
            .collect())
    }

    /// The addresses of a device, in the kernel's order; none where it does not exist.
    pub(crate) async fn addresses_of(&self, device: &str) -> Result<Vec<IpAddr>, KernelError> {
        let Some(link) = self.link(device).await? else {
            return Ok(Vec::new());
        };
        let request = self.0.address().get();
        let request = request.set_link_index_filter(link.index);
        let messages: Vec<AddressMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("read addresses", &error))?;
        let addresses = messages.iter().filter_map(address);
        Ok(addresses.map(|net| net.addr()).collect())
    }

    /// Has the kernel choose again from which address it sends where: it does so whenever an address comes or goes, so
    /// one of the loopback device does.
    pub(crate) async fn refresh_sources(&self) -> Result<(), KernelError> {
        let passing = IpNet::from(IpAddr::from(PASSING));
        let request = self.0.address();
        let added = request.add(LOOPBACK, passing.addr(), passing.prefix_len());
        let added = added.replace().execute().await;
        let request = self.0.address();
        let removed = request
            .del(address_message(LOOPBACK, passing))
            .execute()
            .await;
        added
            .and(removed)
            .map_err(|error| failed("have source addresses chosen again", &error))
    }

    /// Carries out one step. `index` is the TAP's, for the steps that touch it.
    pub(crate) async fn apply(&self, step: &Step, index: u32) -> Result<(), KernelError> {
        let done = match step {
            Step::SetSysctl(name, value) => {
                return sysctl::write(name, value).map_err(|error| KernelError {
                    what: format!("set sysctl {} to {value}", name.0),
                    reason: error.to_string(),
                });
            }
            Step::SetMtu(mtu) => {
                self.set_link(LinkUnspec::new_with_index(index).mtu(*mtu))
                    .await
            }
            Step::SetUp => self.set_link(LinkUnspec::new_with_index(index).up()).await,
            Step::AddAddress(address) => {
                let mut request =
                    self.0
                        .address()
                        .add(index, *address, IpNet::from(*address).prefix_len());
                let flags = AddressFlags::Noprefixroute | AddressFlags::Nodad;
                request
                    .message_mut()
                    .attributes
                    .push(AddressAttribute::Flags(flags));
                request.replace().execute().await
            }
            Step::RemoveAddress(net) => {
                self.0
                    .address()
                    .del(address_message(index, *net))
                    .execute()
                    .await
            }
            Step::SetNeighbour(gateway) => {
                let request = self
                    .0
                    .neighbours()
                    .add(index, *gateway)
                    .link_layer_address(&GATEWAY_MAC);
                request.replace().execute().await
            }
            Step::SetRoute(key, way) => {
                self.0
                    .route()
                    .add(route_message(*key, Some(way)))
                    .replace()
                    .execute()
                    .await
            }
            Step::RemoveRoute(key) => match self
                .0
                .route()
                .del(route_message(*key, None))
                .execute()
                .await
            {
                // Somebody was faster.
                Err(error) if code(&error) == Some(ESRCH) => Ok(()),
                done => done,
            },
        };
        done.map_err(|error| failed(describe(step), &error))
    }

    async fn set_link(&self, message: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
        self.0.link().set(message.build()).execute().await
    }
}

/// The path to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// In bytes.
    pub(crate) mtu: u32,
    /// From where the kernel sends there, if it says so.
    pub(crate) source: Option<IpAddr>,
}

/// The loopback device has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// An address of the loopback device that nobody uses.
const PASSING: [u8; 4] = [127, 72, 87, 83];

const ESRCH: i32 = 3;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

/// The first message of an answer that has at most one.
trait TryNextOnce<T> {
    async fn try_next_once(self) -> Result<Option<T>, Error>;
}

impl<T, S: futures::Stream<Item = Result<T, Error>>> TryNextOnce<T> for S {
    async fn try_next_once(self) -> Result<Option<T>, Error> {
        std::pin::pin!(self).try_next().await
    }
}

fn code(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => Some(message.raw_code().saturating_abs()),
        Error::UnexpectedMessage(_)
        | Error::RequestFailed
        | Error::NamespaceError(_)
        | Error::InvalidHardwareAddress(_)
        | Error::InvalidIp(_)
        | Error::InvalidAddress(..)
        | Error::InvalidNla(_) => None,
    }
}

fn failed(what: impl Into<String>, error: &Error) -> KernelError {
    let reason = code(error).map_or_else(
        || error.to_string(),
        |code| io::Error::from_raw_os_error(code).to_string(),
    );
    KernelError {
        what: what.into(),
        reason,
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::SetSysctl(name, value) => format!("set sysctl {} to {value}", name.0),
        Step::SetMtu(mtu) => format!("set the device's MTU to {mtu}"),
        Step::SetUp => "set the device up".to_owned(),
        Step::AddAddress(address) => format!("add address {address}"),
        Step::RemoveAddress(net) => format!("remove address {net}"),
        Step::SetNeighbour(gateway) => format!("set neighbour {gateway}"),
        Step::SetRoute(key, _) => format!("set the route to {}", key.prefix),
        Step::RemoveRoute(key) => format!("remove the route to {}", key.prefix),
    }
}
