//! What two clusters must not have in common, and what they must. Checked on both sides before anything changes.

use super::offer::{Offer, Protocols};
use crate::ca::show;
use crate::hub::manifest::{ClusterPeer, overlaps};
use crate::token::pins;
use hawser_tunnel::node::ClusterId;
use hawser_tunnel::state::martian;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The furthest that two clocks may be apart, in seconds: so much earlier certificates begin.
pub const MAX_CLOCKS_APART: u64 = 300;

/// Why two clusters cannot meet: one line, with both values. `here` is the cluster that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Clusters meet in one clusterset.
    #[error("clusterset.name: {theirs} of {other}: is {ours} in {here}; give both the same")]
    Clusterset {
        /// Who says so.
        here: String,
        /// The other.
        other: String,
        /// Here.
        ours: String,
        /// There.
        theirs: String,
    },
    /// Packets of another network are dropped.
    #[error("clusterset.vni: {theirs} of {other}: is {ours} in {here}; give both the same")]
    NetworkId {
        /// Who says so.
        here: String,
        /// The other.
        other: String,
        /// Here.
        ours: u32,
        /// There.
        theirs: u32,
    },
    /// No version of the protocol is spoken by both.
    #[error(
        "protocol: {} to {} of {other}: is {} to {} in {here}; upgrade the older one",
        theirs.oldest, theirs.newest, ours.oldest, ours.newest
    )]
    Protocol {
        /// Who says so.
        here: String,
        /// The other.
        other: String,
        /// Here.
        ours: Protocols,
        /// There.
        theirs: Protocols,
    },
    /// Certificates of the one would be of the future or the past for the other.
    #[error("clock: {} of {other}: is {} in {here}; set both to within 300 s", clock(*theirs), clock(*ours))]
    Clocks {
        /// Who says so.
        here: String,
        /// The other.
        other: String,
        /// Here, in seconds since 1970.
        ours: u64,
        /// There.
        theirs: u64,
    },
    /// Another cluster has this name.
    #[error(
        "cluster.name: {name} (id {theirs}): is also the name of cluster {ours}, as {here} knows it; rename one"
    )]
    NameTaken {
        /// Who says so.
        here: String,
        /// The name.
        name: String,
        /// The ID of who has it.
        ours: ClusterId,
        /// The ID of who wants it.
        theirs: ClusterId,
    },
    /// Another cluster has this ID.
    #[error(
        "cluster.id: {id} of {other}: is also the id of {holder}, as {here} knows it; give each its own"
    )]
    IdTaken {
        /// Who says so.
        here: String,
        /// Who wants it.
        other: String,
        /// The ID.
        id: ClusterId,
        /// Who has it.
        holder: String,
    },
    /// Another cluster has addresses of this prefix.
    #[error(
        "{field}: {theirs} of {other}: overlaps {ours} of {holder}, as {here} knows it; give each its own"
    )]
    PrefixTaken {
        /// Who says so.
        here: String,
        /// `podCidrs` or `serviceCidrs`.
        field: &'static str,
        /// Who wants it.
        other: String,
        /// The prefix.
        theirs: IpNet,
        /// Who has some of it.
        holder: String,
        /// Its prefix.
        ours: IpNet,
    },
    /// No cluster can have this prefix.
    #[error(
        "{field}: {prefix} of {other}: touches {range}, which no cluster can have; choose another prefix"
    )]
    PrefixProtected {
        /// `podCidrs` or `serviceCidrs`.
        field: &'static str,
        /// Who wants it.
        other: String,
        /// The prefix.
        prefix: IpNet,
        /// What it touches.
        range: IpNet,
    },
    /// Whoever holds a CA's key speaks for every cluster that it is said to be of.
    #[error(
        "ca: SHA256:{pin} of {other}: is also a CA of {holder}, as {here} knows it; every cluster has its own"
    )]
    CaTaken {
        /// Who says so.
        here: String,
        /// Who shows it.
        other: String,
        /// Its key.
        pin: String,
        /// Whose it is.
        holder: String,
    },
    /// Somebody wrote a manifest of this cluster.
    #[error(
        "metadata.name: {other}: {here} has a ClusterPeer of it in its source; remove that, or write one on the other side too"
    )]
    Declared {
        /// Who says so.
        here: String,
        /// The cluster.
        other: String,
    },
}

impl Conflict {
    /// Its name in logs, metrics and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clusterset { .. } => "clusterset_other",
            Self::NetworkId { .. } => "network_id_other",
            Self::Protocol { .. } => "protocol_other",
            Self::Clocks { .. } => "clocks_apart",
            Self::NameTaken { .. } => "name_taken",
            Self::IdTaken { .. } => "id_taken",
            Self::PrefixTaken { .. } => "prefix_taken",
            Self::PrefixProtected { .. } => "prefix_protected",
            Self::CaTaken { .. } => "ca_taken",
            Self::Declared { .. } => "peer_declared",
        }
    }
}

fn clock(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.map_or_else(|| format!("{seconds} s after 1970"), show::time)
}

/// Says whether a cluster can meet ours and all that are known here. One that is known already by the same name, ID and
/// a common CA is the same cluster, and may say something new of itself. Times are seconds since 1970.
///
/// # Errors
/// It cannot.
pub fn check(
    ours: &Offer,
    now: u64,
    known: &BTreeMap<String, Arc<ClusterPeer>>,
    other: &Offer,
    time: u64,
) -> Result<(), Conflict> {
    meet(ours, now, other, time)?;
    let here = || ours.name.clone();
    let pins_of_other = other.pins();
    if let Some(member) = known.get(&other.name) {
        let same = member.id == other.id && !pins(&member.ca).is_disjoint(&pins_of_other);
        if !same {
            return Err(name_taken(ours, &other.name, member.id, other));
        }
    }
    let own = ours.peer(&super::Grant::default());
    let members = known.iter().filter(|(name, _)| **name != other.name);
    let members = members.map(|(name, peer)| (name.as_str(), &**peer));
    for (holder, peer) in std::iter::once((ours.name.as_str(), &own)).chain(members) {
        if peer.id == other.id {
            return Err(Conflict::IdTaken {
                here: here(),
                other: other.name.clone(),
                id: other.id,
                holder: holder.to_owned(),
            });
        }
        if let Some(pin) = pins(&peer.ca).intersection(&pins_of_other).next() {
            return Err(Conflict::CaTaken {
                here: here(),
                other: other.name.clone(),
                pin: pin.to_string(),
                holder: holder.to_owned(),
            });
        }
        let mut theirs = prefixes(&other.pod_cidrs, &other.service_cidrs);
        let clash = theirs.find_map(|(field, prefix)| {
            let mut ours = prefixes(&peer.pod_cidrs, &peer.service_cidrs);
            let (_, held) = ours.find(|(_, held)| overlaps(*held, prefix))?;
            Some((field, prefix, held))
        });
        if let Some((field, prefix, held)) = clash {
            return Err(Conflict::PrefixTaken {
                here: here(),
                field,
                other: other.name.clone(),
                theirs: prefix,
                holder: holder.to_owned(),
                ours: held,
            });
        }
    }
    Ok(())
}

/// What the two of them have to agree on, whoever else there is.
fn meet(ours: &Offer, now: u64, other: &Offer, time: u64) -> Result<(), Conflict> {
    let (here, name) = (|| ours.name.clone(), || other.name.clone());
    if ours.clusterset != other.clusterset {
        return Err(Conflict::Clusterset {
            here: here(),
            other: name(),
            ours: ours.clusterset.clone(),
            theirs: other.clusterset.clone(),
        });
    }
    if ours.vni != other.vni {
        return Err(Conflict::NetworkId {
            here: here(),
            other: name(),
            ours: ours.vni.into(),
            theirs: other.vni.into(),
        });
    }
    let (us, them) = (ours.protocols, other.protocols);
    if us.newest < them.oldest || them.newest < us.oldest {
        return Err(Conflict::Protocol {
            here: here(),
            other: name(),
            ours: us,
            theirs: them,
        });
    }
    if now.abs_diff(time) > MAX_CLOCKS_APART {
        return Err(Conflict::Clocks {
            here: here(),
            other: name(),
            ours: now,
            theirs: time,
        });
    }
    if ours.name == other.name {
        return Err(name_taken(ours, &ours.name, ours.id, other));
    }
    for (field, prefix) in prefixes(&other.pod_cidrs, &other.service_cidrs) {
        if let Some(range) = martian(&prefix) {
            let other = name();
            return Err(Conflict::PrefixProtected {
                field,
                other,
                prefix,
                range,
            });
        }
    }
    Ok(())
}

fn name_taken(here: &Offer, name: &str, holder: ClusterId, other: &Offer) -> Conflict {
    Conflict::NameTaken {
        here: here.name.clone(),
        name: name.to_owned(),
        ours: holder,
        theirs: other.id,
    }
}

fn prefixes<'a>(
    pods: &'a [IpNet],
    services: &'a [IpNet],
) -> impl Iterator<Item = (&'static str, IpNet)> + 'a {
    let pods = pods.iter().map(|prefix| ("podCidrs", *prefix));
    pods.chain(services.iter().map(|prefix| ("serviceCidrs", *prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::Grant;
    use crate::join::offer::tests::offer;

    const NOW: u64 = 1_800_000_000;

    fn known(offer: &Offer) -> BTreeMap<String, Arc<ClusterPeer>> {
        let peer = Arc::new(offer.peer(&Grant::default()));
        BTreeMap::from([(offer.name.clone(), peer)])
    }

    #[test]
    fn what_cannot_meet_is_refused_with_both_values() {
        let (east, south) = (
            offer("east", 1, "10.1.0.0/16"),
            offer("south", 3, "10.3.0.0/16"),
        );
        let west = offer("west", 2, "10.2.0.0/16");
        let known = known(&south);
        assert_eq!(check(&east, NOW, &known, &west, NOW), Ok(()));
        assert_eq!(check(&east, NOW, &known, &west, NOW - 300), Ok(()));
        let refused = |change: &dyn Fn(&mut Offer), time| {
            let mut west = west.clone();
            change(&mut west);
            let conflict = check(&east, NOW, &known, &west, time).unwrap_err();
            format!("{}: {conflict}", conflict.name())
        };
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let south_pin = south.fingerprint();
        for (told, expected) in [
            (
                refused(&|w| w.clusterset = "other.example".to_owned(), NOW),
                "clusterset_other: clusterset.name: other.example of west: is set.example in east; give both the same".to_owned(),
            ),
            (
                refused(&|w| w.vni = hawser_tunnel::vni::Vni::new(7).unwrap(), NOW),
                "network_id_other: clusterset.vni: 7 of west: is 1 in east; give both the same".to_owned(),
            ),
            (
                refused(&|w| w.protocols = Protocols { oldest: 2, newest: 3 }, NOW),
                "protocol_other: protocol: 2 to 3 of west: is 1 to 1 in east; upgrade the older one".to_owned(),
            ),
            (
                refused(&|_| {}, NOW + 301),
                "clocks_apart: clock: 2027-01-15T08:05:01Z of west: is 2027-01-15T08:00:00Z in east; set both to within 300 s".to_owned(),
            ),
            (
                refused(&|_| {}, u64::MAX),
                format!("clocks_apart: clock: {} s after 1970 of west: is 2027-01-15T08:00:00Z in east; set both to within 300 s", u64::MAX),
            ),
            (
                refused(&|w| w.name = "east".to_owned(), NOW),
                "name_taken: cluster.name: east (id 2): is also the name of cluster 1, as east knows it; rename one".to_owned(),
            ),
            (
                refused(&|w| w.name = "south".to_owned(), NOW),
                "name_taken: cluster.name: south (id 2): is also the name of cluster 3, as east knows it; rename one".to_owned(),
            ),
            (
                refused(&|w| w.id = ClusterId::new(3).unwrap(), NOW),
                "id_taken: cluster.id: 3 of west: is also the id of south, as east knows it; give each its own".to_owned(),
            ),
            (
                refused(&|w| w.id = ClusterId::new(1).unwrap(), NOW),
                "id_taken: cluster.id: 1 of west: is also the id of east, as east knows it; give each its own".to_owned(),
            ),
            (
                refused(&|w| w.pod_cidrs.push(net("10.3.8.0/24")), NOW),
                "prefix_taken: podCidrs: 10.3.8.0/24 of west: overlaps 10.3.0.0/16 of south, as east knows it; give each its own".to_owned(),
            ),
            (
                refused(&|w| w.service_cidrs.push(net("10.0.0.0/8")), NOW),
                "prefix_taken: serviceCidrs: 10.0.0.0/8 of west: overlaps 10.1.0.0/16 of east, as east knows it; give each its own".to_owned(),
            ),
            (
                refused(&|w| w.pod_cidrs.push(net("169.254.169.254/32")), NOW),
                "prefix_protected: podCidrs: 169.254.169.254/32 of west: touches 169.254.0.0/16, which no cluster can have; choose another prefix".to_owned(),
            ),
            (
                refused(&|w| w.ca = south.ca.clone(), NOW),
                format!("ca_taken: ca: SHA256:{south_pin} of west: is also a CA of south, as east knows it; every cluster has its own"),
            ),
        ] {
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn the_same_cluster_may_come_again_and_no_other_under_its_name() {
        let (east, west) = (
            offer("east", 1, "10.1.0.0/16"),
            offer("west", 2, "10.2.0.0/16"),
        );
        let mut grown = west.clone();
        grown.pod_cidrs.push("10.20.0.0/16".parse().unwrap());
        let joined = known(&west);
        assert_eq!(check(&east, NOW, &joined, &grown, NOW), Ok(()));
        // With its next CA beside the one that is known.
        let next = offer("west", 2, "10.2.0.0/16");
        grown.ca.push_str(&next.ca);
        assert_eq!(check(&east, NOW, &joined, &grown, NOW), Ok(()));
        let other = check(&east, NOW, &joined, &next, NOW).unwrap_err();
        assert_eq!(other.name(), "name_taken");
    }
}
