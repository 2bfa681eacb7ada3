//! The nftables table that keeps TCP from sending segments that the tunnel would have to refuse.
//!
//! A SYN that leaves by the TAP gets a maximum segment size that fits its route. The other direction
//! is clamped where it enters the tunnel.

use serde_json::{Value, json};

/// The table, of family `inet`.
pub(crate) const TABLE: &str = "hawser";
/// Its family.
pub(crate) const FAMILY: &str = "inet";

const CHAINS: [&str; 2] = ["forward", "output"];
/// nft's `mangle`.
const PRIORITY: i32 = -150;

/// The objects of the table, each after those that it refers to.
pub(crate) fn plan(device: &str) -> Vec<Value> {
    let mut objects = vec![json!({ "table": { "family": FAMILY, "name": TABLE } })];
    for name in CHAINS {
        objects.push(json!({ "chain": {
            "family": FAMILY, "table": TABLE, "name": name,
            "type": "filter", "hook": name, "prio": PRIORITY, "policy": "accept",
        } }));
    }
    for chain in CHAINS {
        objects.push(json!({ "rule": { "family": FAMILY, "table": TABLE, "chain": chain, "expr": [
            { "match": { "op": "==", "left": { "meta": { "key": "oifname" } }, "right": device } },
            { "match": {
                "op": "==",
                "left": { "&": [{ "payload": { "protocol": "tcp", "field": "flags" } }, ["syn", "rst"]] },
                "right": "syn",
            } },
            { "mangle": {
                "key": { "tcp option": { "name": "maxseg", "field": "size" } },
                "value": { "rt": { "key": "mtu" } },
            } },
        ] } }));
    }
    objects
}

/// The one transaction that puts the objects in the place of whatever stands now.
pub(crate) fn batch(objects: &[Value]) -> Value {
    let table = json!({ "table": { "family": FAMILY, "name": TABLE } });
    let mut commands = vec![json!({ "add": table }), json!({ "delete": table })];
    commands.extend(objects.iter().map(|object| json!({ "add": object })));
    json!({ "nftables": commands })
}

/// What nft lists, without what differs from one load to the next.
pub(crate) fn normalise(listing: Value) -> Vec<Value> {
    let Some(Value::Array(objects)) = listing.get("nftables").cloned() else {
        return Vec::new();
    };
    let mut objects: Vec<Value> = objects
        .into_iter()
        .filter(|object| object.get("metainfo").is_none())
        .collect();
    for object in objects.iter_mut().filter_map(Value::as_object_mut) {
        for fields in object.values_mut().filter_map(Value::as_object_mut) {
            fields.remove("handle");
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_do_not_matter_and_everything_else_does() {
        let plan = plan("hawser0");
        let mut listed = vec![json!({ "metainfo": { "version": "1.0.6" } })];
        listed.extend(plan.iter().cloned());
        for (at, object) in listed.iter_mut().enumerate().skip(1) {
            for fields in object.as_object_mut().unwrap().values_mut() {
                fields["handle"] = json!(at);
            }
        }
        assert_eq!(normalise(json!({ "nftables": listed })), plan);
        listed.pop();
        assert_ne!(normalise(json!({ "nftables": listed })), plan);
    }
}
