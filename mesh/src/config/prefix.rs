//! Prefixes as fields: their form, and that each has one owner.

use super::fault::{Fault, Rule};
use hawser_tunnel::state::martian;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// Reads a prefix without host bits.
pub(crate) fn parse(field: &str, text: &str) -> Result<IpNet, Fault> {
    let net: IpNet = text
        .parse()
        .map_err(|_| Fault::new(field, text, Rule::NotPrefix))?;
    let truncated = net.trunc();
    if truncated != net {
        return Err(Fault::new(field, text, Rule::HostBits { truncated }));
    }
    Ok(net)
}

/// Reads a list of prefixes that `owner` has.
pub(super) fn parse_list(
    field: &str,
    texts: &[String],
    owner: &str,
    owners: &mut Owners,
) -> Result<BTreeSet<IpNet>, Fault> {
    let mut prefixes = BTreeSet::new();
    for (at, text) in texts.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let prefix = parse(&field, text)?;
        if !prefixes.insert(prefix) {
            return Err(Fault::new(field, text, Rule::Twice));
        }
        owners.add(prefix, field, owner);
    }
    Ok(prefixes)
}

/// Prefixes with the fields and owners that they came from.
#[derive(Debug, Default)]
pub(super) struct Owners(Vec<Owned>);

#[derive(Debug)]
struct Owned {
    prefix: IpNet,
    /// Position in the file: the later of two is the one to complain of.
    order: usize,
    field: String,
    owner: String,
}

impl Owners {
    pub(super) fn add(&mut self, prefix: IpNet, field: String, owner: &str) {
        let order = self.0.len();
        self.0.push(Owned {
            prefix,
            order,
            field,
            owner: owner.to_owned(),
        });
    }

    /// Refuses two prefixes that share an address.
    pub(super) fn check(mut self) -> Result<(), Fault> {
        // Prefixes nest or are disjoint, so in this order one that overlaps any overlaps its
        // neighbour.
        self.0.sort_by_key(|owned| {
            (
                owned.prefix.network(),
                owned.prefix.prefix_len(),
                owned.order,
            )
        });
        let overlap = self
            .0
            .windows(2)
            .filter(|pair| pair[0].prefix.contains(&pair[1].prefix))
            .min_by_key(|pair| pair[0].order.max(pair[1].order));
        let Some([first, second]) = overlap else {
            return Ok(());
        };
        let (earlier, later) = if first.order < second.order {
            (first, second)
        } else {
            (second, first)
        };
        let rule = Rule::Overlap {
            owner: later.owner.clone(),
            other: earlier.prefix,
            other_owner: earlier.owner.clone(),
        };
        Err(Fault::new(later.field.clone(), later.prefix, rule))
    }
}

/// Reads prefixes of pods or services: sorted, each once, none in a range that nobody can have.
pub(crate) fn all(field: &str, texts: &[String]) -> Result<Vec<IpNet>, Fault> {
    let mut prefixes = BTreeSet::new();
    for (at, text) in texts.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let prefix = parse(&field, text)?;
        if let Some(range) = martian(&prefix) {
            return Err(Fault::new(field, text, Rule::PrefixProtected { range }));
        }
        if !prefixes.insert(prefix) {
            return Err(Fault::new(field, text, Rule::Twice));
        }
    }
    Ok(prefixes.into_iter().collect())
}
