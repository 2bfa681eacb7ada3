//! Nodes: index, prefixes, lanes.

use super::{Claim, Derive, Name, Unit};
use crate::record::{self, LaneRecord, Record};
use hawser_tunnel::node::NodeIndex;
use ipnet::IpNet;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct Node {
    /// As its manifest says; `None`: it has none, but pods or lanes speak of it.
    pub(super) prefixes: Option<Vec<IpNet>>,
    pub(super) index: Option<NodeIndex>,
    pub(super) lanes: Vec<LaneRecord>,
    pub(super) pods: BTreeSet<Name>,
}

impl Derive {
    pub(super) fn set_node(&mut self, name: &str, prefixes: Option<Vec<IpNet>>) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        if node.prefixes == prefixes {
            return;
        }
        let (had, has) = (node.prefixes.is_some(), prefixes.is_some());
        node.prefixes = prefixes;
        if !has {
            node.index = None;
        }
        if had != has {
            let claim = Claim::Node(name.to_owned());
            self.claims.insert(claim, has);
            self.touch_pods_of(name);
        }
        self.prefixes.retain(|_, owner| owner != name);
        // What gave way before may have room now.
        let waiting = std::mem::take(&mut self.crowded);
        for node in waiting.iter().map(String::as_str).chain([name]) {
            self.take_prefixes(node);
        }
        self.dirty.insert(Unit::Node(name.to_owned()));
    }

    /// Takes the prefixes of a node that overlap no other node's: who came first, keeps.
    fn take_prefixes(&mut self, name: &str) {
        let Some(wanted) = self.nodes.get(name).and_then(|node| node.prefixes.clone()) else {
            return;
        };
        for prefix in wanted {
            match owner(&self.prefixes, prefix) {
                None => {
                    self.prefixes.insert(prefix, name.to_owned());
                    self.dirty.insert(Unit::Node(name.to_owned()));
                }
                Some(other) if other == name => {}
                Some(_) => {
                    self.crowded.insert(name.to_owned());
                }
            }
        }
    }

    pub(super) fn take_lanes(&mut self, name: &str, lanes: Vec<LaneRecord>) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        let old = std::mem::replace(&mut node.lanes, lanes);
        let new: BTreeSet<[u8; 32]> = node.lanes.iter().map(key_of).collect();
        for key in &new {
            let owners = self.keys.entry(*key).or_default();
            if !owners.iter().any(|owner| owner == name) {
                owners.push(name.to_owned());
            }
        }
        for key in old.iter().map(key_of).filter(|key| !new.contains(key)) {
            if let Some(owners) = self.keys.get_mut(&key) {
                owners.retain(|owner| owner != name);
                self.dirty.extend(owners.first().cloned().map(Unit::Node));
                if owners.is_empty() {
                    self.keys.remove(&key);
                }
            }
        }
        self.dirty.insert(Unit::Node(name.to_owned()));
    }

    pub(super) fn set_index(&mut self, name: &str, number: u32) {
        let index = u16::try_from(number).ok();
        let index = index.and_then(|number| NodeIndex::new(number).ok());
        if let Some(node) = self.nodes.get_mut(name)
            && node.prefixes.is_some()
            && node.index != index
        {
            node.index = index;
            self.dirty.insert(Unit::Node(name.to_owned()));
            self.touch_pods_of(name);
        }
    }

    pub(super) fn index_of(&self, name: &str) -> Option<NodeIndex> {
        self.nodes.get(name)?.index
    }

    fn touch_pods_of(&mut self, name: &str) {
        let pods = self.nodes.get(name).map(|node| node.pods.clone());
        for pod in pods.into_iter().flatten() {
            self.touch_pod(&pod);
        }
    }

    pub(super) fn node_record(&self, name: &str) -> Option<Record> {
        let node = self.nodes.get(name)?;
        let wanted = node.prefixes.as_ref()?;
        let has = |prefix: &IpNet| self.prefixes.get(prefix).is_some_and(|o| o == name);
        let is_first = |lane: &&LaneRecord| {
            let owners = self.keys.get(&key_of(lane));
            owners
                .and_then(|owners| owners.first())
                .is_some_and(|first| first == name)
        };
        Some(Record::Node(record::Node {
            index: node.index?,
            name: name.to_owned(),
            prefixes: wanted
                .iter()
                .filter(|prefix| has(prefix))
                .copied()
                .collect(),
            lanes: node.lanes.iter().filter(is_first).cloned().collect(),
        }))
    }
}

fn key_of(lane: &LaneRecord) -> [u8; 32] {
    *lane.public_key.as_bytes()
}

/// Whose prefix shares an address with this one. Those in the map share none with each other, so only the neighbours
/// can.
fn owner(prefixes: &std::collections::BTreeMap<IpNet, String>, prefix: IpNet) -> Option<&str> {
    let before = prefixes.range(..=prefix).next_back();
    let after = prefixes.range(prefix..).next();
    let overlaps = |other: &&IpNet| other.contains(&prefix) || prefix.contains(*other);
    let mut near = before.into_iter().chain(after);
    let found = near.find(|(other, _)| overlaps(other));
    found.map(|(_, owner)| owner.as_str())
}
