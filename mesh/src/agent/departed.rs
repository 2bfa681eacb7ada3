//! Prefixes of clusters that left. They stay blocked and unreachable until they are released.
//!
//! Their pods may still run and send; a packet to one of them must not take the default route in
//! clear only because the cluster is no longer listed.

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What of `from` lies outside `minus`, in as few prefixes as possible.
pub(crate) fn subtract(from: &BTreeSet<IpNet>, minus: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let mut rest: Vec<IpNet> = from.iter().copied().collect();
    for cut in minus {
        rest = rest.into_iter().flat_map(|net| cut_out(net, cut)).collect();
    }
    IpNet::aggregate(&rest).into_iter().collect()
}

fn cut_out(net: IpNet, cut: &IpNet) -> Vec<IpNet> {
    if cut.contains(&net) {
        return Vec::new();
    }
    if !net.contains(cut) {
        return vec![net];
    }
    // It holds more than `cut`, so it has halves.
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| cut_out(half, cut)).collect()
}

/// The mesh prefixes that a guard table in the kernel blocks, read from nft's listing of it.
pub(super) fn blocked(listing: &[Value]) -> BTreeSet<IpNet> {
    let sets = listing.iter().filter_map(|object| object.get("set"));
    let mesh = sets.filter(|set| {
        set.get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| name == "mesh4" || name == "mesh6")
    });
    let elements = mesh.filter_map(|set| set.get("elem")?.as_array()).flatten();
    elements.flat_map(element).collect()
}

/// One element of an interval set: an address, a prefix, or a range.
fn element(value: &Value) -> Vec<IpNet> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(address) = address(value) {
        return vec![address.into()];
    }
    if let Some(prefix) = value.get("prefix") {
        let net = prefix
            .get("addr")
            .and_then(address)
            .zip(prefix.get("len").and_then(Value::as_u64));
        let net = net.and_then(|(address, len)| IpNet::new(address, u8::try_from(len).ok()?).ok());
        return net.into_iter().collect();
    }
    let ends = value
        .get("range")
        .and_then(Value::as_array)
        .map(Vec::as_slice);
    let Some([first, last]) = ends else {
        return Vec::new();
    };
    match (address(first), address(last)) {
        (Some(IpAddr::V4(first)), Some(IpAddr::V4(last))) => {
            IpSubnets::from(Ipv4Subnets::new(first, last, 0)).collect()
        }
        (Some(IpAddr::V6(first)), Some(IpAddr::V6(last))) => {
            IpSubnets::from(Ipv6Subnets::new(first, last, 0)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_left_of_a_prefix_is_exact() {
        let left = subtract(
            &nets(&["10.2.0.0/15", "fd00::/16"]),
            &nets(&["10.3.0.0/16"]),
        );
        assert_eq!(left, nets(&["10.2.0.0/16", "fd00::/16"]));
        let left = subtract(&nets(&["10.0.0.0/8"]), &nets(&["10.0.0.1/32"]));
        assert_eq!(left.len(), 24);
        assert!(
            !left
                .iter()
                .any(|net| net.contains(&"10.0.0.1".parse::<IpAddr>().unwrap()))
        );
        assert_eq!(
            subtract(&nets(&["10.2.3.0/24"]), &nets(&["10.2.0.0/16"])),
            nets(&[])
        );
        assert_eq!(
            subtract(&nets(&["10.2.3.0/24"]), &nets(&["10.2.3.0/24"])),
            nets(&[])
        );
    }

    #[test]
    fn a_listing_tells_what_is_blocked() {
        let listing = [
            json!({ "table": { "family": "inet", "name": "hawser_guard" } }),
            json!({ "set": { "name": "mesh4", "elem": [
                { "prefix": { "addr": "10.1.0.0", "len": 16 } }, "192.0.2.1",
                { "range": ["10.9.0.0", "10.9.2.255"] } ] } }),
            json!({ "set": { "name": "local4", "elem": [{ "prefix": { "addr": "10.1.1.0", "len": 24 } }] } }),
            json!({ "set": { "name": "mesh6", "elem": [{ "prefix": { "addr": "fd01:1::", "len": 32 } }] } }),
        ];
        let wanted = [
            "10.1.0.0/16",
            "10.9.0.0/23",
            "10.9.2.0/24",
            "192.0.2.1/32",
            "fd01:1::/32",
        ];
        assert_eq!(blocked(&listing), nets(&wanted));
        assert_eq!(
            blocked(&[json!({ "set": { "name": "mesh4", "elem": [7, {}, { "range": 1 }] } })]),
            nets(&[])
        );
    }
}
