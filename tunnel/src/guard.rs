//! The guard: the nftables tables that keep mesh packets off the underlay in clear.
//!
//! On every underlay device a netdev chain each way drops a packet whose source *or* destination is a
//! mesh prefix. A postrouting chain does the same for every other way out of the node except the TAP,
//! loopback and delivery to a local pod. WireGuard, masqueraded egress and NodePort replies carry node
//! addresses by then, so they pass without any mark.
//!
//! This module decides what the tables hold and whether a listing says the same ([`Listing`]); it touches
//! nothing. [`crate::io::nft`] carries it out. The tables have no owner: they stand when every process of
//! ours is dead.

mod listing;
mod prefixes;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;

use ipnet::IpNet;
use nftables::expr::{Expression, MetaKey};
use nftables::schema::NfListObject;
use nftables::types::{NfFamily, NfHook};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use listing::{Counts, Listing, name_devices, objects_of};
use prefixes::Prefixes;
use table::Table;
use words::{accept, any_of, count, discard, field, is, is_not, jump, meta, text};

/// Name of both tables, one of family `netdev` and one of family `inet`.
pub const TABLE: &str = "hawser_guard";

/// Families in which [`TABLE`] exists.
pub const FAMILIES: [&str; 2] = ["netdev", "inet"];

/// Counter of packets that would have left by an underlay device in clear.
pub const EGRESS: &str = "hawser_guard_egress";
/// Counter of packets in clear that came in by an underlay device.
pub const INGRESS: &str = "hawser_guard_ingress";
/// Counter of packets in clear on an underlay device, either way, inside a VLAN tag that the kernel left in place.
pub const TAGGED: &str = "hawser_guard_tagged";
/// Counter of packets that would have left by any other device in clear.
pub const POSTROUTING: &str = "hawser_guard_postrouting";
/// Counter of Geneve datagrams addressed to the node itself.
pub const GENEVE: &str = "hawser_guard_geneve";

/// First to see what comes in, before another table may redirect it.
const INGRESS_PRIORITY: i32 = -500;
/// Last to see what goes out, after another table may have rewritten it.
const EGRESS_PRIORITY: i32 = 500;
/// The kernel translates sources at 100, whatever priority a nat chain names; from there on addresses are final.
const POSTROUTING_PRIORITY: i32 = 300;
/// Ahead of every ordinary filter chain.
const INPUT_PRIORITY: i32 = -300;
/// UDP port of Geneve (RFC 8926).
const GENEVE_PORT: u32 = 6081;

/// What the guard protects on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guard {
    /// The TAP: the only device by which mesh packets may leave.
    pub device: String,
    /// Devices that lead to other nodes.
    pub underlay: BTreeSet<String>,
    /// Prefixes of every cluster, of those that left too.
    pub mesh: BTreeSet<IpNet>,
    /// This node's own pod prefixes.
    pub local: BTreeSet<IpNet>,
}

impl Guard {
    /// A guard that protects what either protects, for the time between two states. What counts as
    /// delivery to a local pod is the other's alone.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            device: other.device.clone(),
            underlay: self.underlay.union(&other.underlay).cloned().collect(),
            mesh: self.mesh.union(&other.mesh).copied().collect(),
            local: other.local.clone(),
        }
    }
}

/// The objects of both tables, each after those that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    objects: Vec<NfListObject<'static>>,
}

/// Returns what both tables must hold, with netdev chains for those underlay devices that are in `hooked`.
///
/// Older kernels refuse a chain whose device does not exist; newer ones (6.16) keep it and hook the device
/// when it appears.
#[must_use]
pub fn plan(guard: &Guard, hooked: &BTreeSet<String>) -> Plan {
    let mesh = Prefixes::new(&guard.mesh);
    let mut plan = Plan {
        objects: Vec::new(),
    };
    plan.underlay(&mesh, guard.underlay.intersection(hooked));
    plan.elsewhere(&mesh, guard);
    plan
}

impl Plan {
    /// Returns the one transaction that puts this plan in the place of whatever stands now.
    ///
    /// `counts` are carried over, so that a repair does not wipe out the evidence.
    #[must_use]
    pub fn batch(&self, counts: &Counts) -> Value {
        let mut commands = clear();
        for object in &self.objects {
            let mut object = json!(object);
            listing::set_count(&mut object, counts);
            commands.push(json!({ "add": object }));
        }
        json!({ "nftables": commands })
    }

    /// Returns the objects as nft lists them.
    #[must_use]
    pub fn listing(&self) -> Listing {
        Listing::new(self.objects.iter().map(|object| json!(object)))
    }

    fn underlay<'a>(&mut self, mesh: &Prefixes, devices: impl Iterator<Item = &'a String>) {
        let mut table = Table::new(&mut self.objects, NfFamily::NetDev);
        table.counters(&[EGRESS, INGRESS, TAGGED]);
        table.sets("mesh", mesh);
        // The kernel has taken the outer tag off a frame that comes in, and the network header is then the
        // inner tag. Of a frame that goes out it is the IP header, or a tag if the frame was bridged.
        table.chain("tagged");
        table.tagged_rules("tagged", mesh, table::TAG, TAGGED);
        table.chain("tagged_here");
        table.tagged_rules("tagged_here", mesh, 0, TAGGED);
        let directions = [
            (
                "ingress",
                NfHook::Ingress,
                INGRESS_PRIORITY,
                INGRESS,
                &["tagged"][..],
            ),
            (
                "egress",
                NfHook::Egress,
                EGRESS_PRIORITY,
                EGRESS,
                &["tagged", "tagged_here"],
            ),
        ];
        for (name, _, _, counter, tagged) in directions {
            let all = format!("{name}_all");
            table.chain(&all);
            table.mesh_rules(&all, counter);
            for chain in tagged {
                let vlan = is(meta(MetaKey::Protocol), any_of(["8021q", "8021ad"]));
                table.rule(&all, vec![vlan, jump(chain)]);
            }
        }
        for device in devices {
            for (name, hook, priority, ..) in directions {
                let chain = format!("{name}-{device}");
                table.base_chain(&chain, hook, priority, Some(device));
                table.rule(&chain, vec![jump(&format!("{name}_all"))]);
            }
        }
    }

    fn elsewhere(&mut self, mesh: &Prefixes, guard: &Guard) {
        let mut table = Table::new(&mut self.objects, NfFamily::INet);
        table.counters(&[POSTROUTING, GENEVE]);
        table.sets("mesh", mesh);
        table.sets("local", &Prefixes::new(&guard.local));

        let chain = "postrouting";
        table.base_chain(chain, NfHook::Postrouting, POSTROUTING_PRIORITY, None);
        let inside = any_of([guard.device.as_str(), "lo"]);
        table.rule(chain, vec![is(meta(MetaKey::Oifname), inside), accept()]);
        for (protocol, set) in [("ip", "@local4"), ("ip6", "@local6")] {
            let mut delivery = vec![is(field(protocol, "daddr"), text(set)), accept()];
            if !guard.underlay.is_empty() {
                let underlay = any_of(guard.underlay.iter().map(String::as_str));
                delivery.insert(0, is_not(meta(MetaKey::Oifname), underlay));
            }
            table.rule(chain, delivery);
        }
        table.mesh_rules(chain, POSTROUTING);

        let chain = "input";
        table.base_chain(chain, NfHook::Input, INPUT_PRIORITY, None);
        let geneve = is(field("udp", "dport"), Expression::Number(GENEVE_PORT));
        table.rule(chain, vec![geneve, count(GENEVE), discard()]);
    }
}

/// Returns the commands that remove both tables, whether they exist or not.
#[must_use]
pub fn clear() -> Vec<Value> {
    let mut commands = Vec::new();
    for family in FAMILIES {
        let table = json!({ "table": { "family": family, "name": TABLE } });
        commands.push(json!({ "add": table }));
        commands.push(json!({ "delete": table }));
    }
    commands
}
