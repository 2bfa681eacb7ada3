//! What `nft -j` lists, and whether that is the guard's plan.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hawser_tunnel::guard::{self, Counts, Guard, Listing};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::source::Source;

/// Target: any text as the answer of nft, with any text beside it.
pub(super) fn listing(input: &[u8]) {
    let (answer, text) = match input.iter().position(|&byte| byte == 0) {
        Some(at) => (&input[..at], String::from_utf8_lossy(&input[at + 1..])),
        None => (input, String::from_utf8_lossy(input)),
    };
    let Ok(mut objects) = guard::objects_of(answer) else {
        return;
    };
    guard::name_devices(&mut objects, &text);
    let listing = Listing::new(objects.iter().cloned());
    assert!(listing.says_the_same(&listing) && listing.names_the_same(&listing));
    assert!(listing.devices().len() <= objects.len());
    // Handles, counts and the line about nft's version are no part of what is said.
    let mut dressed = vec![json!({ "metainfo": { "version": "1" } })];
    for mut object in objects {
        let kind = object
            .as_object()
            .and_then(|object| object.keys().next().cloned());
        if let Some(body) = kind
            .and_then(|kind| object.get_mut(&kind))
            .and_then(Value::as_object_mut)
        {
            body.insert("handle".to_owned(), json!(7));
        }
        if let Some(counter) = object.get_mut("counter").and_then(Value::as_object_mut) {
            counter.insert("packets".to_owned(), json!(u64::MAX));
        }
        dressed.push(object);
    }
    assert!(Listing::new(dressed).says_the_same(&listing));
}

/// Target: any guard becomes one transaction, and stands when nft lists what was written.
pub(super) fn plan(input: &[u8]) {
    let mut source = Source::new(input);
    let guard = any_guard(&mut source);
    let other = any_guard(&mut source);
    let read: Guard = serde_json::from_value(json!(guard)).expect("what was written is read");
    assert_eq!(read, guard);
    let listing = written(&guard);
    assert!(
        listing.is_in_force(&guard, &guard.underlay),
        "what was written does not stand"
    );
    assert_eq!(listing.devices(), guard.underlay);
    let both = guard.with(&other);
    for mesh in [&guard.mesh, &other.mesh] {
        assert!(
            mesh.is_subset(&both.mesh),
            "a prefix is open between two states"
        );
    }
    // A guard of other addresses does not stand for this one.
    let same = same_meaning(&guard, &both);
    assert_eq!(listing.is_in_force(&both, &both.underlay), same);
}

/// The listing of a guard as nft would give it back: as text, with handles, in another order.
fn written(guard: &Guard) -> Listing {
    let batch = guard::plan(guard, &guard.underlay)
        .batch(&Counts::new())
        .to_string();
    let batch: Value = serde_json::from_str(&batch).expect("a transaction is JSON");
    let commands = batch["nftables"].as_array().expect("a list of commands");
    let added = commands.iter().filter_map(|command| command.get("add"));
    // Two tables are added and deleted first.
    let objects: Vec<Value> = added.skip(2).cloned().collect();
    let text = json!({ "nftables": objects }).to_string();
    let (rules, others): (Vec<_>, Vec<_>) = guard::objects_of(text.as_bytes())
        .expect("nft's own JSON")
        .into_iter()
        .partition(|object| object.get("rule").is_some());
    // Rules keep their order within a chain; nothing else has one.
    Listing::new(rules.into_iter().chain(others.into_iter().rev()))
}

/// Whether two guards name the same devices and protect the same addresses.
fn same_meaning(one: &Guard, two: &Guard) -> bool {
    let all = |prefixes: &BTreeSet<IpNet>| {
        let prefixes: Vec<_> = prefixes.iter().map(IpNet::trunc).collect();
        IpNet::aggregate(&prefixes)
    };
    (&one.device, &one.underlay) == (&two.device, &two.underlay)
        && (all(&one.mesh), all(&one.local)) == (all(&two.mesh), all(&two.local))
}

fn any_guard(source: &mut Source<'_>) -> Guard {
    let device = |source: &mut Source<'_>| match source.once_in(4) {
        true => String::from_utf8_lossy(source.bytes(15)).into_owned(),
        false => source
            .pick(&["eth0", "hawser0", "eth1", "lo", ""])
            .to_owned(),
    };
    let prefixes = |source: &mut Source<'_>| (0..source.below(8)).map(|_| prefix(source)).collect();
    Guard {
        device: device(source),
        underlay: (0..source.below(4)).map(|_| device(source)).collect(),
        mesh: prefixes(source),
        local: prefixes(source),
    }
}

fn prefix(source: &mut Source<'_>) -> IpNet {
    let address = match source.pick(&[0, 1, 2]) {
        0 => IpAddr::from([10, source.pick(&[0, 1, 2, 255]), 0, source.any()]),
        1 => IpAddr::from(source.array::<4>()),
        _ => IpAddr::from(source.array::<16>()),
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    IpNet::new(address, source.any::<u8>() % (most + 1)).expect("a legal length")
}
