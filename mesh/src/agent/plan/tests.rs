use super::super::kernel::UNREACHABLE_METRIC;
use super::*;
use std::collections::BTreeSet;

fn desired() -> Desired {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    Desired {
        device: "hawser0".to_owned(),
        mtu: 1392,
        routers: BTreeSet::from([ip("10.1.1.1"), ip("fd01:1:1::1")]),
        mesh: BTreeMap::from([
            (net("10.2.1.0/24"), (ip("10.1.1.1"), 1392)),
            (net("fd01:2:1::/64"), (ip("fd01:1:1::1"), 1392)),
        ]),
        unreachable: BTreeSet::from([net("10.1.0.0/16"), net("10.2.0.0/16"), net("fd01:2::/32")]),
        node_sysctls: vec![(Sysctl("ipv4/ip_forward".to_owned()), "1".to_owned())],
        accept_ra: vec![Sysctl("ipv6/conf/eth0/accept_ra".to_owned())],
        device_sysctls: vec![(
            Sysctl("ipv4/conf/hawser0/rp_filter".to_owned()),
            "0".to_owned(),
        )],
        ipv6: true,
    }
}

fn key(prefix: &str, metric: u32) -> RouteKey {
    RouteKey {
        prefix: prefix.parse().unwrap(),
        metric,
    }
}

/// What the kernel has after every step was carried out.
fn carried_out(mut observed: Observed, steps: &[Step]) -> Observed {
    for step in steps.iter().cloned() {
        let link = observed.link.as_mut();
        match step {
            Step::SetSysctl(name, value) => {
                observed.sysctls.insert(name, Some(value));
            }
            Step::SetMtu(mtu) => link.unwrap().mtu = mtu,
            Step::SetUp => link.unwrap().up = true,
            Step::AddAddress(address) => {
                observed.addresses.insert(address.into());
            }
            Step::RemoveAddress(net) => {
                observed.addresses.remove(&net);
            }
            Step::SetNeighbour(gateway) => {
                let neighbour = Neighbour {
                    mac: GATEWAY_MAC.to_vec(),
                    permanent: true,
                };
                observed.neighbours.insert(gateway, neighbour);
            }
            Step::SetRoute(key, way) => {
                observed.routes.insert(key, way);
            }
            Step::RemoveRoute(key) => {
                observed.routes.remove(&key);
            }
        }
    }
    observed
}

fn bare() -> Observed {
    Observed {
        link: Some(Link {
            index: 7,
            mtu: 1500,
            up: false,
            tap: true,
        }),
        ..Observed::default()
    }
}

fn settled() -> Observed {
    carried_out(bare(), &plan(&desired(), &bare()))
}

#[test]
fn what_stands_is_not_written() {
    assert_eq!(plan(&desired(), &settled()), []);
}

#[test]
fn everything_is_set_in_an_order_that_the_kernel_takes() {
    let steps = plan(&desired(), &bare());
    let at = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    let unreachable = at(|step| matches!(step, Step::SetRoute(_, Way::Unreachable)));
    let mtu = at(|step| matches!(step, Step::SetMtu(1392)));
    let device_sysctl =
        at(|step| matches!(step, Step::SetSysctl(name, _) if name.0.contains("hawser0")));
    let up = at(|step| *step == Step::SetUp);
    let address = at(|step| matches!(step, Step::AddAddress(_)));
    let mesh = at(|step| matches!(step, Step::SetRoute(_, Way::Mesh { .. })));
    assert!(
        unreachable < mesh
            && mtu < device_sysctl
            && device_sysctl < up
            && up < address
            && address < mesh
    );
}

#[test]
fn without_the_device_only_the_fail_safe_is_set() {
    let observed = Observed::default();
    let steps = plan(&desired(), &observed);
    assert_eq!(
        steps.len(),
        4,
        "one sysctl and three unreachable routes: {steps:?}"
    );
    assert_eq!(plan(&desired(), &carried_out(observed, &steps)), []);
}

/// Harm to what the kernel has, and the one step that undoes it.
type Loss = (fn(&mut Observed), Step);

fn forwarding() -> Sysctl {
    Sysctl("ipv4/ip_forward".to_owned())
}

#[test]
fn each_thing_that_is_taken_away_or_changed_comes_back_alone() {
    let router: IpAddr = "10.1.1.1".parse().unwrap();
    let mesh = key("10.2.1.0/24", 0);
    let lost: [Loss; 7] = [
        (
            |seen| {
                seen.addresses
                    .retain(|net| net.to_string() != "10.1.1.1/32")
            },
            Step::AddAddress(router),
        ),
        (
            |seen| seen.neighbours.retain(|gateway, _| *gateway != GATEWAY_V6),
            Step::SetNeighbour(GATEWAY_V6),
        ),
        (
            |seen| seen.neighbours.get_mut(&GATEWAY_V4).unwrap().mac = vec![2, 0, 0, 0, 0, 9],
            Step::SetNeighbour(GATEWAY_V4),
        ),
        (|seen| seen.link.as_mut().unwrap().up = false, Step::SetUp),
        (
            |seen| seen.routes.retain(|at, _| *at != key("10.2.1.0/24", 0)),
            Step::SetRoute(mesh, settled().routes[&mesh].clone()),
        ),
        (
            |seen| {
                *seen
                    .routes
                    .get_mut(&key("10.2.0.0/16", UNREACHABLE_METRIC))
                    .unwrap() = Way::Other
            },
            Step::SetRoute(key("10.2.0.0/16", UNREACHABLE_METRIC), Way::Unreachable),
        ),
        (
            |seen| *seen.sysctls.get_mut(&forwarding()).unwrap() = Some("0".to_owned()),
            Step::SetSysctl(forwarding(), "1".to_owned()),
        ),
    ];
    for (spoil, repair) in lost {
        let mut observed = settled();
        spoil(&mut observed);
        assert_eq!(plan(&desired(), &observed), [repair]);
    }
}

#[test]
fn routes_follow_a_device_that_was_made_again() {
    let mut observed = settled();
    observed.link.as_mut().unwrap().index = 9;
    let steps = plan(&desired(), &observed);
    assert_eq!(steps.len(), 2, "both mesh routes");
    assert!(
        steps
            .iter()
            .all(|step| matches!(step, Step::SetRoute(_, Way::Mesh { device: 9, .. })))
    );
}

#[test]
fn only_what_is_ours_is_pruned() {
    let mut observed = settled();
    let gone = key("10.3.1.0/24", 0);
    observed.routes.insert(gone, Way::Other);
    for address in ["10.2.9.1/32", "fe80::1234/64", "192.0.2.77/24"] {
        observed.addresses.insert(address.parse().unwrap());
    }
    let pruned = [
        Step::RemoveRoute(gone),
        Step::RemoveAddress("10.2.9.1/32".parse().unwrap()),
        Step::RemoveAddress("fe80::1234/64".parse().unwrap()),
    ];
    assert_eq!(plan(&desired(), &observed), pruned);
}

#[test]
fn a_node_keeps_its_default_route_from_router_advertisements() {
    let forwarding = Sysctl(IPV6_FORWARDING.to_owned());
    let accept_ra = Sysctl("ipv6/conf/eth0/accept_ra".to_owned());
    let mut desired = desired();
    desired
        .node_sysctls
        .push((forwarding.clone(), "1".to_owned()));
    let mut observed = carried_out(bare(), &plan(&desired, &bare()));
    observed
        .sysctls
        .insert(forwarding.clone(), Some("0".to_owned()));
    observed
        .sysctls
        .insert(accept_ra.clone(), Some("1".to_owned()));
    let wanted = [
        Step::SetSysctl(accept_ra.clone(), "2".to_owned()),
        Step::SetSysctl(forwarding, "1".to_owned()),
    ];
    assert_eq!(plan(&desired, &observed), wanted);
    observed.sysctls.insert(accept_ra, Some("0".to_owned()));
    assert_eq!(
        plan(&desired, &observed).len(),
        1,
        "a device that takes none is left alone"
    );
}

#[test]
fn a_device_of_another_kind_gets_nothing_for_its_name() {
    let mut observed = bare();
    observed.link = observed.link.map(|link| Link { tap: false, ..link });
    let without = Observed {
        link: None,
        ..bare()
    };
    let steps = plan(&desired(), &observed);
    assert_eq!(steps, plan(&desired(), &without));
    let leads_there =
        |step: &Step| matches!(step, Step::SetRoute(_, Way::Mesh { .. }) | Step::SetUp);
    assert!(!steps.is_empty() && !steps.iter().any(leads_there));
}
