//! The writes that lead from what the kernel has to what it should have. None where both agree.

use super::desired::{Desired, IPV6_FORWARDING};
use super::kernel::{
    GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Link, Neighbour, Observed, RouteKey, Step, Sysctl, Way,
    gateway,
};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Plans the writes, in the order in which the kernel takes them.
///
/// What depends on the TAP is left out while it does not exist. Setting a device's MTU or setting
/// it up makes the kernel change routes by itself, so whoever applies a plan observes and plans
/// again until nothing is left.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = keep_router_advertisements(desired, observed);
    steps.extend(sysctls(&desired.node_sysctls, observed));
    // Before the routes into the tunnel, so that there is no moment without either.
    for key in desired.unreachable_keys() {
        if observed.routes.get(&key) != Some(&Way::Unreachable) {
            steps.push(Step::SetRoute(key, Way::Unreachable));
        }
    }
    // A device of another kind leads wherever somebody wants it to lead.
    let Some(link) = observed.link.filter(|link| link.tap) else {
        steps.extend(stale_routes(desired, observed, None));
        return steps;
    };
    if link.mtu != desired.mtu {
        // First: below 1280 the kernel has no IPv6 on the device, and no sysctls for it.
        steps.push(Step::SetMtu(desired.mtu));
    }
    steps.extend(sysctls(&desired.device_sysctls, observed));
    if !link.up {
        steps.push(Step::SetUp);
    }
    let held = |router: &IpAddr| observed.addresses.contains(&IpNet::from(*router));
    steps.extend(
        desired
            .routers
            .iter()
            .filter(|router| !held(router))
            .copied()
            .map(Step::AddAddress),
    );
    steps.extend(
        gateways(desired)
            .filter(|gateway| !is_set(observed.neighbours.get(gateway)))
            .map(Step::SetNeighbour),
    );
    let mesh = mesh_routes(desired, link);
    for (key, way) in &mesh {
        if observed.routes.get(key) != Some(way) {
            steps.push(Step::SetRoute(*key, way.clone()));
        }
    }
    steps.extend(stale_routes(desired, observed, Some(&mesh)));
    steps.extend(stale_addresses(desired, observed));
    steps
}

/// Before forwarding is turned on, devices that take router advertisements are told to go on (2).
fn keep_router_advertisements(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let value = |sysctl: &Sysctl| observed.sysctls.get(sysctl).and_then(Option::as_deref);
    if value(&Sysctl(IPV6_FORWARDING.to_owned())) != Some("0") {
        return Vec::new();
    }
    let taking = desired
        .accept_ra
        .iter()
        .filter(|sysctl| value(sysctl) == Some("1"));
    taking
        .map(|sysctl| Step::SetSysctl(sysctl.clone(), "2".to_owned()))
        .collect()
}

fn sysctls(wanted: &[(Sysctl, String)], observed: &Observed) -> Vec<Step> {
    wanted
        .iter()
        .filter(|(sysctl, value)| {
            observed.sysctls.get(sysctl).and_then(Option::as_ref) != Some(value)
        })
        .map(|(sysctl, value)| Step::SetSysctl(sysctl.clone(), value.clone()))
        .collect()
}

fn gateways(desired: &Desired) -> impl Iterator<Item = IpAddr> {
    [Some(GATEWAY_V4), desired.ipv6.then_some(GATEWAY_V6)]
        .into_iter()
        .flatten()
}

fn is_set(neighbour: Option<&Neighbour>) -> bool {
    neighbour.is_some_and(|neighbour| neighbour.permanent && neighbour.mac == GATEWAY_MAC)
}

fn mesh_routes(desired: &Desired, link: Link) -> BTreeMap<RouteKey, Way> {
    let way = |(key, source, mtu): (RouteKey, IpAddr, u32)| {
        let gateway = gateway(key.prefix);
        (
            key,
            Way::Mesh {
                device: link.index,
                gateway,
                source,
                mtu,
            },
        )
    };
    desired.mesh_keys().map(way).collect()
}

/// Our routes that nothing asks for any more. Without a TAP its routes are gone already.
fn stale_routes(
    desired: &Desired,
    observed: &Observed,
    mesh: Option<&BTreeMap<RouteKey, Way>>,
) -> Vec<Step> {
    let unreachable: Vec<RouteKey> = desired.unreachable_keys().collect();
    let wanted = |key: &RouteKey| {
        unreachable.binary_search(key).is_ok() || mesh.is_some_and(|mesh| mesh.contains_key(key))
    };
    observed
        .routes
        .keys()
        .filter(|key| !wanted(key))
        .copied()
        .map(Step::RemoveRoute)
        .collect()
}

/// Addresses on the TAP that would make the kernel send from a wrong source: former router
/// addresses, and the link-local ones that it makes up.
fn stale_addresses(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let stale = |net: &&IpNet| {
        let address = net.addr();
        let router = desired.routers.contains(&address) && net.prefix_len() == net.max_prefix_len();
        let made_up = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !router
            && (made_up
                || desired
                    .unreachable
                    .iter()
                    .any(|prefix| prefix.contains(&address)))
    };
    observed
        .addresses
        .iter()
        .filter(stale)
        .copied()
        .map(Step::RemoveAddress)
        .collect()
}

#[cfg(test)]
mod tests;
