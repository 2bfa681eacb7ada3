use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn prefixes(prefixes: &[&str]) -> BTreeSet<IpNet> {
    prefixes
        .iter()
        .map(|prefix| prefix.parse().unwrap())
        .collect()
}

fn guard() -> Guard {
    Guard {
        device: "hawser0".to_owned(),
        underlay: names(&["eth0", "eth1"]),
        mesh: prefixes(&[
            "10.1.0.0/16",
            "10.2.0.0/16",
            "10.4.0.0/16",
            "fd01:1::/48",
            "fd01:7::/48",
        ]),
        local: prefixes(&["10.1.1.0/24", "fd01:1:1::/64"]),
    }
}

/// The objects as nft would list them, with handles.
fn listed(guard: &Guard) -> Vec<Value> {
    let batch = plan(guard, &guard.underlay).batch(&Counts::new());
    let commands = batch["nftables"].as_array().unwrap().iter();
    let added = commands.filter_map(|command| command.get("add"));
    // Two tables are added and deleted first; the third and fourth stay.
    let mut objects: Vec<Value> = added.skip(2).cloned().collect();
    for (handle, object) in objects.iter_mut().enumerate() {
        object.as_object_mut().unwrap().values_mut().next().unwrap()["handle"] = json!(handle);
    }
    objects
}

#[test]
fn a_plan_is_in_force_when_it_is_listed_with_handles_and_counts() {
    let guard = guard();
    let mut objects = listed(&guard);
    objects.insert(0, json!({ "metainfo": { "version": "1.0.6" } }));
    for object in &mut objects {
        if let Some(counter) = object.get_mut("counter") {
            counter["packets"] = json!(5_000_000_000_u64);
        }
    }
    let listing = Listing::new(objects);
    assert!(listing.is_in_force(&guard, &guard.underlay));
    let key = ("netdev".to_owned(), EGRESS.to_owned());
    assert_eq!(listing.counts()[&key], (5_000_000_000, 0));
}

#[test]
fn anything_removed_added_or_moved_is_seen() {
    let guard = guard();
    let whole = listed(&guard);
    let stands = |objects: Vec<Value>| Listing::new(objects).is_in_force(&guard, &guard.underlay);
    assert!(stands(whole.clone()));
    for at in 0..whole.len() {
        let mut less = whole.clone();
        let gone = less.remove(at);
        assert!(!stands(less), "unnoticed: {gone} removed");
        let mut more = whole.clone();
        more.push(whole[at].clone());
        assert!(!stands(more), "unnoticed: {} twice", whole[at]);
    }
    for (at, object) in whole.iter().enumerate() {
        let Some(elements) = object.pointer("/set/elem").and_then(Value::as_array) else {
            continue;
        };
        for (element, gone) in elements.iter().enumerate() {
            let mut less = whole.clone();
            less[at]["set"]["elem"]
                .as_array_mut()
                .unwrap()
                .remove(element);
            assert!(!stands(less), "unnoticed: {} left out of {object}", gone);
        }
    }
    let rules: Vec<usize> = (0..whole.len())
        .filter(|at| whole[*at].get("rule").is_some())
        .collect();
    for pair in rules.windows(2) {
        let mut swapped = whole.clone();
        swapped.swap(pair[0], pair[1]);
        let same_chain = whole[pair[0]]["rule"]["chain"] == whole[pair[1]]["rule"]["chain"];
        assert_eq!(
            stands(swapped),
            !same_chain,
            "order matters within a chain only"
        );
    }
    let mut dormant = whole.clone();
    dormant[0]["table"]["flags"] = json!("dormant");
    assert!(!stands(dormant));
}

#[test]
fn a_chain_of_an_absent_device_may_stay_and_of_a_present_one_must() {
    let guard = guard();
    let only = |devices: &[&str]| plan(&guard, &names(devices)).listing();
    assert!(only(&["eth0", "eth1"]).is_in_force(&guard, &names(&["eth0", "lo"])));
    assert!(only(&["eth0"]).is_in_force(&guard, &names(&["eth0", "lo"])));
    assert!(!only(&["eth0"]).is_in_force(&guard, &guard.underlay));
    assert!(!only(&[]).is_in_force(&guard, &names(&["eth0"])));
}

#[test]
fn a_chain_on_another_device_than_its_name_says_is_seen() {
    let guard = guard();
    let mut objects = listed(&guard);
    for object in &mut objects {
        if let Some(chain) = object
            .get_mut("chain")
            .filter(|chain| chain["name"] == "egress-eth0")
        {
            chain["dev"] = json!("eth9");
        }
    }
    assert!(!Listing::new(objects).is_in_force(&guard, &guard.underlay));
}

#[test]
fn devices_missing_from_the_json_are_read_from_the_text() {
    let guard = guard();
    let mut objects = listed(&guard);
    let mut text = String::new();
    for chain in objects
        .iter_mut()
        .filter_map(|object| object.get_mut("chain"))
    {
        let name = chain["name"].as_str().unwrap().to_owned();
        text.push_str(&format!("\tchain {name} {{\n"));
        if let Some(device) = chain.as_object_mut().unwrap().remove("dev") {
            text.push_str(&format!(
                "\t\ttype filter hook egress device {device} priority 500; policy accept;\n"
            ));
        }
        text.push_str("\t}\n");
    }
    assert!(!Listing::new(objects.clone()).is_in_force(&guard, &guard.underlay));
    name_devices(&mut objects, &text);
    assert!(Listing::new(objects).is_in_force(&guard, &guard.underlay));
}

#[test]
fn counts_are_carried_over_a_repair() {
    let guard = guard();
    let counts = Counts::from([(("inet".to_owned(), GENEVE.to_owned()), (1 << 40, 7))]);
    let batch = plan(&guard, &guard.underlay).batch(&counts);
    let counters: Vec<&Value> = batch["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c.pointer("/add/counter"))
        .collect();
    assert_eq!(counters.len(), 5);
    for counter in counters {
        let packets: u64 = if counter["name"] == GENEVE {
            1 << 40
        } else {
            0
        };
        assert_eq!(counter["packets"], packets, "{counter}");
        assert!(counter["bytes"].is_u64(), "nft refuses null");
    }
}

#[test]
fn nested_and_adjacent_prefixes_become_one() {
    let whole = Guard {
        mesh: prefixes(&["10.0.0.0/8"]),
        ..guard()
    };
    let parts = Guard {
        mesh: prefixes(&["10.0.0.0/9", "10.128.0.0/9", "10.1.2.0/24", "10.1.2.3/32"]),
        ..guard()
    };
    assert_eq!(plan(&whole, &whole.underlay), plan(&parts, &parts.underlay));
}

#[test]
fn a_node_without_prefixes_or_underlay_still_has_a_valid_plan() {
    let guard = Guard {
        device: "hawser0".to_owned(),
        ..Guard::default()
    };
    let text = plan(&guard, &BTreeSet::new())
        .batch(&Counts::new())
        .to_string();
    assert!(
        !text.contains("[]") && !text.contains("null,"),
        "nft refuses empty sets in rules: {text}"
    );
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 1..=32_u8)
        .prop_map(|(bits, len)| (IpAddr::V4(Ipv4Addr::from_bits(bits)), len));
    let v6 = (any::<u128>(), 1..=128_u8)
        .prop_map(|(bits, len)| (IpAddr::V6(Ipv6Addr::from_bits(bits)), len));
    prop_oneof![v4, v6].prop_map(|(address, len)| IpNet::new(address, len).unwrap().trunc())
}

proptest! {
    /// However nft cuts a set into elements, in whatever order, the same addresses are the same set.
    #[test]
    fn the_spelling_of_a_set_does_not_matter(
        mesh in proptest::collection::btree_set(any_prefix(), 1..20),
        seed in any::<u64>(),
    ) {
        let guard = Guard { mesh, ..guard() };
        let mut objects = listed(&guard);
        for elements in objects.iter_mut().filter_map(|object| object.pointer_mut("/set/elem")?.as_array_mut()) {
            let mut spelled = Vec::new();
            for element in elements.iter() {
                let net: IpNet = format!("{}/{}", element["prefix"]["addr"].as_str().unwrap(), element["prefix"]["len"]).parse().unwrap();
                match (seed + u64::from(net.prefix_len())) % 3 {
                    0 => spelled.push(json!({ "range": [net.network(), net.broadcast()] })),
                    1 if net.prefix_len() < net.max_prefix_len() => {
                        for half in net.subnets(net.prefix_len() + 1).unwrap() {
                            spelled.push(json!({ "prefix": { "addr": half.addr(), "len": half.prefix_len() } }));
                        }
                    }
                    _ if net.prefix_len() == net.max_prefix_len() => spelled.push(json!(net.addr())),
                    _ => spelled.push(element.clone()),
                }
            }
            spelled.reverse();
            *elements = spelled;
        }
        prop_assert!(Listing::new(objects).is_in_force(&guard, &guard.underlay));
    }

    /// A guard of other prefixes is never taken for this one, unless they cover the same addresses.
    #[test]
    fn other_prefixes_are_another_guard(extra in any_prefix()) {
        let one = guard();
        let mut other = guard();
        other.mesh.insert(extra);
        let covered = one.mesh.iter().any(|prefix| prefix.contains(&extra));
        let listing = plan(&one, &one.underlay).listing();
        prop_assert_eq!(listing.is_in_force(&other, &other.underlay), covered);
    }
}

/// A guard of other prefixes has the same names; it must not pass for this one in other words.
#[test]
fn a_guard_of_other_prefixes_does_not_name_the_same() {
    let guard = |prefix: &str| Guard {
        device: "hawser0".to_owned(),
        mesh: [prefix.parse().unwrap()].into(),
        ..Guard::default()
    };
    let listing = |prefix: &str| plan(&guard(prefix), &BTreeSet::new()).listing();
    assert!(listing("10.1.0.0/16").names_the_same(&listing("10.1.0.0/16")));
    assert!(!listing("10.1.0.0/16").names_the_same(&listing("10.2.0.0/16")));
}
