//! One table while it is being written down.

use std::collections::HashSet;

use nftables::expr::Expression;
use nftables::schema::{
    self, Chain, Counter, NfListObject, Rule, Set, SetFlag, SetType, SetTypeValue,
};
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::TABLE;
use super::prefixes::Prefixes;
use super::words::{count, discard, field, is, range, raw, text};

/// Bits of one VLAN tag.
pub(super) const TAG: u32 = 32;

/// Appends the objects of one table, in the order in which they are called for.
pub(super) struct Table<'a> {
    objects: &'a mut Vec<NfListObject<'static>>,
    family: NfFamily,
}

impl<'a> Table<'a> {
    pub(super) fn new(objects: &'a mut Vec<NfListObject<'static>>, family: NfFamily) -> Self {
        objects.push(NfListObject::Table(schema::Table {
            family,
            name: TABLE.into(),
            handle: None,
        }));
        Self { objects, family }
    }

    pub(super) fn counters(&mut self, names: &[&'static str]) {
        for &name in names {
            self.objects.push(NfListObject::Counter(Counter {
                family: self.family,
                table: TABLE.into(),
                name: name.into(),
                handle: None,
                packets: None,
                bytes: None,
            }));
        }
    }

    pub(super) fn sets(&mut self, name: &str, prefixes: &Prefixes) {
        let families = [
            ("4", SetType::Ipv4Addr, prefixes.v4_elements()),
            ("6", SetType::Ipv6Addr, prefixes.v6_elements()),
        ];
        for (suffix, kind, elements) in families {
            self.objects.push(NfListObject::Set(Box::new(Set {
                family: self.family,
                table: TABLE.into(),
                name: format!("{name}{suffix}").into(),
                set_type: SetTypeValue::Single(kind),
                flags: Some(HashSet::from([SetFlag::Interval])),
                elem: (!elements.is_empty()).then(|| elements.into()),
                ..Set::default()
            })));
        }
    }

    pub(super) fn chain(&mut self, name: &str) {
        self.objects.push(NfListObject::Chain(Chain {
            family: self.family,
            table: TABLE.into(),
            name: name.to_owned().into(),
            ..Chain::default()
        }));
    }

    pub(super) fn base_chain(
        &mut self,
        name: &str,
        hook: NfHook,
        priority: i32,
        device: Option<&str>,
    ) {
        self.objects.push(NfListObject::Chain(Chain {
            family: self.family,
            table: TABLE.into(),
            name: name.to_owned().into(),
            _type: Some(NfChainType::Filter),
            hook: Some(hook),
            prio: Some(priority),
            dev: device.map(|device| device.to_owned().into()),
            policy: Some(NfChainPolicy::Accept),
            ..Chain::default()
        }));
    }

    pub(super) fn rule(&mut self, chain: &str, statements: Vec<Statement<'static>>) {
        self.objects.push(NfListObject::Rule(Rule {
            family: self.family,
            table: TABLE.into(),
            chain: chain.to_owned().into(),
            expr: statements.into(),
            ..Rule::default()
        }));
    }

    pub(super) fn mesh_rules(&mut self, chain: &str, counter: &'static str) {
        for (protocol, set) in [("ip", "@mesh4"), ("ip6", "@mesh6")] {
            for address in ["saddr", "daddr"] {
                let mesh = is(field(protocol, address), text(set));
                self.rule(chain, vec![mesh, count(counter), discard()]);
            }
        }
    }

    /// Rules for a frame with a VLAN tag inside it, whose IP header starts `start` bits after what the kernel
    /// takes for the network header. nft has no words for that, so bits and numbers it is.
    pub(super) fn tagged_rules(
        &mut self,
        chain: &str,
        mesh: &Prefixes,
        start: u32,
        counter: &'static str,
    ) {
        let families = [
            (mesh.v4_numbers(), 0x0800, (0x40, 0x4f), [96, 128], 32),
            (mesh.v6_numbers(), 0x86dd, (0x60, 0x6f), [64, 192], 128),
        ];
        for (numbers, ether_type, (low, high), addresses, bits) in families {
            let Some(numbers) = numbers else { continue };
            let protocol = if start >= TAG {
                is(raw(start - 16, 16), Expression::Number(ether_type))
            } else {
                // No type field to look at: version and header length stand in for it.
                let version = range(Expression::Number(low), Expression::Number(high));
                is(raw(start, 8), version)
            };
            for address in addresses {
                let inside = is(raw(start + address, bits), numbers.clone());
                self.rule(
                    chain,
                    vec![protocol.clone(), inside, count(counter), discard()],
                );
            }
        }
    }
}
