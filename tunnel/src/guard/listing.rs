//! What the kernel has, as `nft -j list table` says it, and whether that is the plan.
//!
//! Read as plain JSON: the typed schema cannot hold counters beyond 32 bits, and whatever else somebody put into
//! our tables must show as a difference, not as a parse error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Guard, plan};

/// Packets and bytes of the named counters, by family and name.
pub type Counts = BTreeMap<(String, String), (u64, u64)>;

/// The objects of our tables, brought into one form: without handles and counts, sets as sorted ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Rules stay in their order within a chain; everything else has none.
    objects: Vec<Value>,
    counts: Counts,
}

impl Listing {
    /// Makes a listing of the objects that nft printed, of one table or several.
    ///
    /// Objects look like `{"chain": {…}}`.
    #[must_use]
    pub fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut listing = Self::default();
        for mut object in objects {
            if object.get("metainfo").is_some() {
                continue;
            }
            listing.counts.extend(take_count(&mut object));
            settle(&mut object);
            listing.objects.push(object);
        }
        listing.objects.sort_by_cached_key(place);
        listing
    }

    /// Packets and bytes of the named counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tells whether both listings name the same objects, whatever their counters say.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.objects == other.objects
    }

    /// Tells whether both listings hold objects of the same names, sets of the same elements, and as
    /// many rules in each chain.
    ///
    /// Elements are compared because a guard of other prefixes has the same names.
    #[must_use]
    pub fn names_the_same(&self, other: &Self) -> bool {
        let parts = |listing: &Self| {
            let part = |object: &Value| (place(object), object.pointer("/set/elem").cloned());
            listing.objects.iter().map(part).collect::<Vec<_>>()
        };
        parts(self) == parts(other)
    }

    /// Tells whether this is what `guard` asks for while the devices in `present` exist.
    ///
    /// Chains of underlay devices that do not exist now may be there: newer kernels keep them.
    #[must_use]
    pub fn is_in_force(&self, guard: &Guard, present: &BTreeSet<String>) -> bool {
        let hooked = self.devices();
        guard
            .underlay
            .intersection(present)
            .all(|device| hooked.contains(device))
            && self.says_the_same(&plan(guard, &hooked).listing())
    }

    /// Devices that netdev chains of this listing are bound to.
    #[must_use]
    pub fn devices(&self) -> BTreeSet<String> {
        let devices = self
            .objects
            .iter()
            .filter_map(|object| object.pointer("/chain/dev")?.as_str());
        devices.map(str::to_owned).collect()
    }
}

/// Adds to netdev chains the device that nft's text names and its JSON leaves out (seen in nft 1.0.6).
///
/// `text` is what `nft list table netdev` prints.
pub fn name_devices(objects: &mut [Value], text: &str) {
    let mut chain = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.split_whitespace().next();
        }
        let devices: Vec<&str> = if line.starts_with("type ") && line.contains(" device") {
            line.split('"').skip(1).step_by(2).collect()
        } else {
            continue;
        };
        for object in objects
            .iter_mut()
            .filter_map(|object| object.get_mut("chain"))
        {
            let named = object["family"] == "netdev" && object["name"].as_str() == chain;
            if named && object.get("dev").is_none() {
                object["dev"] = json!(devices);
            }
        }
    }
}

/// Writes the count that `counts` has for it into a counter object.
pub(super) fn set_count(object: &mut Value, counts: &Counts) {
    let Some(counter) = object.get_mut("counter") else {
        return;
    };
    // The schema writes null for what it does not know, and nft refuses that.
    let (packets, bytes) = count_key(counter)
        .and_then(|key| counts.get(&key))
        .copied()
        .unwrap_or_default();
    counter["packets"] = json!(packets);
    counter["bytes"] = json!(bytes);
}

fn take_count(object: &mut Value) -> Option<((String, String), (u64, u64))> {
    let counter = object.get_mut("counter")?.as_object_mut()?;
    let mut number = |field| {
        counter
            .remove(field)
            .and_then(|value| value.as_u64())
            .unwrap_or_default()
    };
    let count = (number("packets"), number("bytes"));
    Some((count_key(object.get("counter")?)?, count))
}

fn count_key(counter: &Value) -> Option<(String, String)> {
    let text = |field| Some(counter.get(field)?.as_str()?.to_owned());
    Some((text("family")?, text("name")?))
}

/// Order of objects in a listing; the sort is stable, so rules of one chain keep theirs.
fn place(object: &Value) -> (String, String, String) {
    let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else {
        return Default::default();
    };
    let name = if kind == "rule" { "chain" } else { "name" };
    let text = |field: &str| {
        body.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    (text("family"), kind.clone(), text(name))
}

/// Brings an object into the one form in which it can be compared.
fn settle(object: &mut Value) {
    let Some((kind, body)) = object
        .as_object_mut()
        .and_then(|object| object.iter_mut().next())
    else {
        return;
    };
    let Some(body) = body.as_object_mut() else {
        return;
    };
    body.remove("handle");
    body.retain(|_, value| !value.is_null());
    match kind.as_str() {
        "set" => {
            let elements = body.remove("elem").unwrap_or_else(|| json!([]));
            body.insert("elem".to_owned(), settled_set(elements));
            if let Some(Value::String(flag)) = body.get("flags") {
                let flags = json!([flag]);
                body.insert("flags".to_owned(), flags);
            }
        }
        "chain" => {
            if let Some(Value::Array(devices)) = body.get("dev")
                && let [device] = devices.as_slice()
            {
                let device = device.clone();
                body.insert("dev".to_owned(), device);
            }
        }
        "rule" => {
            let statements = body.get_mut("expr").and_then(Value::as_array_mut);
            for right in statements
                .into_iter()
                .flatten()
                .filter_map(|statement| statement.pointer_mut("/match/right"))
            {
                let mut value = right.take();
                *right = match value.get_mut("set") {
                    Some(elements) => settled_set(elements.take()),
                    None => settled_set(json!([value])),
                };
            }
        }
        _ => {}
    }
}

/// The elements of a set as sorted, merged ranges where they are addresses or numbers, else sorted.
fn settled_set(elements: Value) -> Value {
    let Value::Array(elements) = elements else {
        return elements;
    };
    let mut ranges = Vec::with_capacity(elements.len());
    let mut others = Vec::new();
    for element in elements {
        match range_of(&element) {
            Some(range) => ranges.push(range),
            None => others.push(element.to_string()),
        }
    }
    ranges.sort_unstable();
    others.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    let merged: Vec<String> = merged
        .iter()
        .map(|(low, high)| format!("{low:x}-{high:x}"))
        .collect();
    json!({ "ranges": merged, "others": others })
}

/// First and last value of an element, if it is an address, a prefix, a number or a range of these.
fn range_of(element: &Value) -> Option<(u128, u128)> {
    if let Some(prefix) = element.get("prefix") {
        let address: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let len = prefix.get("len")?.as_u64().filter(|len| *len <= bits)?;
        let host = u128::MAX
            .checked_shr(u32::try_from(128 - (bits - len)).ok()?)
            .unwrap_or(0);
        let low = value_of(prefix.get("addr")?)? & !host;
        return Some((low, low | host));
    }
    if let Some(range) = element.get("range") {
        return Some((value_of(range.get(0)?)?, value_of(range.get(1)?)?));
    }
    value_of(element).map(|value| (value, value))
}

fn value_of(element: &Value) -> Option<u128> {
    if let Some(number) = element.as_u64() {
        return Some(number.into());
    }
    let text = element.as_str()?;
    if let Some(digits) = text.strip_prefix("0x") {
        return u128::from_str_radix(digits, 16).ok();
    }
    match text.parse().ok()? {
        IpAddr::V4(address) => Some(address.to_bits().into()),
        IpAddr::V6(address) => Some(address.to_bits()),
    }
}

/// Takes the objects out of what `nft -j list` printed.
///
/// # Errors
/// When it is not nft's JSON.
pub fn objects_of(answer: &[u8]) -> Result<Vec<Value>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Answer {
        nftables: Vec<Value>,
    }
    serde_json::from_slice::<Answer>(answer).map(|answer| answer.nftables)
}
