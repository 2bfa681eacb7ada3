//! Offers and grants on the wire (docs/wire.md, "Joining"). Whatever comes in is checked here once.

use super::offer::{Grant, Offer, OfferFault, Protocols};
use crate::config::prefix;
use crate::hub::manifest::QuotaLimits;
use crate::record::{check_label, check_name};
use crate::token::MAX_HUBS;
use crate::trust::Trust;
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use hawser_tunnel::vni::Vni;
use ipnet::IpNet;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::str::FromStr as _;

/// The most prefixes of a kind that a cluster offers.
pub const MAX_PREFIXES: usize = 256;
/// The most namespaces that a grant names.
pub const MAX_NAMESPACES: usize = 256;

/// An offer. Fields are added, never renumbered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WireOffer {
    /// The clusterset's name.
    #[prost(string, tag = "1")]
    pub(crate) clusterset: String,
    /// Its network.
    #[prost(uint32, tag = "2")]
    pub(crate) vni: u32,
    /// The cluster's name.
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    /// Its ID.
    #[prost(uint32, tag = "4")]
    pub(crate) id: u32,
    /// As text.
    #[prost(string, repeated, tag = "5")]
    pub(crate) pod_cidrs: Vec<String>,
    /// As text.
    #[prost(string, repeated, tag = "6")]
    pub(crate) service_cidrs: Vec<String>,
    /// `HOST:PORT` each.
    #[prost(string, repeated, tag = "7")]
    pub(crate) hubs: Vec<String>,
    /// In PEM.
    #[prost(string, tag = "8")]
    pub(crate) ca: String,
    /// The oldest protocol that it speaks.
    #[prost(uint32, tag = "9")]
    pub(crate) oldest: u32,
    /// The newest.
    #[prost(uint32, tag = "10")]
    pub(crate) newest: u32,
}

/// A grant.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WireGrant {
    /// Only the named namespaces; else all.
    #[prost(bool, tag = "1")]
    pub(crate) only: bool,
    /// Their names.
    #[prost(string, repeated, tag = "2")]
    pub(crate) namespaces: Vec<String>,
    /// A quota.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) records: Option<u32>,
    /// A quota.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) bytes: Option<u64>,
    /// A quota.
    #[prost(uint32, optional, tag = "5")]
    pub(crate) changes_per_second: Option<u32>,
    /// A quota.
    #[prost(uint32, optional, tag = "6")]
    pub(crate) burst: Option<u32>,
    /// Whether clusters that it revokes are cut off there, too.
    #[prost(bool, tag = "7")]
    pub(crate) may_revoke: bool,
}

/// What the inviting side answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WireTerms {
    /// What it says of itself.
    #[prost(message, optional, tag = "1")]
    pub(crate) offer: Option<WireOffer>,
    /// What the joining cluster may announce there.
    #[prost(message, optional, tag = "2")]
    pub(crate) grant: Option<WireGrant>,
    /// Its clock: seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(crate) time: u64,
}

/// What the inviting side offers, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What it says of itself.
    pub offer: Offer,
    /// What the joining cluster may announce there.
    pub grant: Grant,
    /// Its clock: seconds since 1970.
    pub time: u64,
}

impl Terms {
    /// Stands for all of it but the time: whoever agreed to this, agreed to no other.
    pub fn digest(&self) -> [u8; 32] {
        let wire = WireTerms {
            time: 0,
            ..WireTerms::from(self)
        };
        Sha256::digest(wire.encode_to_vec()).into()
    }
}

impl From<&Offer> for WireOffer {
    fn from(offer: &Offer) -> Self {
        let text = |prefixes: &[IpNet]| prefixes.iter().map(ToString::to_string).collect();
        Self {
            clusterset: offer.clusterset.clone(),
            vni: offer.vni.into(),
            name: offer.name.clone(),
            id: u16::from(offer.id).into(),
            pod_cidrs: text(&offer.pod_cidrs),
            service_cidrs: text(&offer.service_cidrs),
            hubs: offer.hubs.clone(),
            ca: offer.ca.clone(),
            oldest: offer.protocols.oldest,
            newest: offer.protocols.newest,
        }
    }
}

impl From<&Grant> for WireGrant {
    fn from(grant: &Grant) -> Self {
        Self {
            only: grant.namespaces.is_some(),
            namespaces: grant.namespaces.iter().flatten().cloned().collect(),
            records: grant.quotas.records,
            bytes: grant.quotas.bytes,
            changes_per_second: grant.quotas.changes_per_second,
            burst: grant.quotas.burst,
            may_revoke: grant.may_revoke,
        }
    }
}

impl From<&Terms> for WireTerms {
    fn from(terms: &Terms) -> Self {
        Self {
            offer: Some((&terms.offer).into()),
            grant: Some((&terms.grant).into()),
            time: terms.time,
        }
    }
}

impl TryFrom<WireOffer> for Offer {
    type Error = OfferFault;

    fn try_from(wire: WireOffer) -> Result<Self, OfferFault> {
        let fault = OfferFault::field;
        check_name(&wire.clusterset)
            .map_err(|rule| fault("clusterset.name", &wire.clusterset, &rule.to_string()))?;
        let vni = Vni::new(wire.vni);
        let vni =
            vni.map_err(|rule| fault("clusterset.vni", &wire.vni.to_string(), &rule.to_string()))?;
        check_label(&wire.name)
            .map_err(|rule| fault("cluster.name", &wire.name, &rule.to_string()))?;
        let id = u16::try_from(wire.id).ok();
        let id = id.and_then(|id| ClusterId::new(id).ok());
        let id =
            id.ok_or_else(|| fault("cluster.id", &wire.id.to_string(), "must be 1 to 2047"))?;
        let pod_cidrs = prefixes("podCidrs", &wire.pod_cidrs)?;
        if pod_cidrs.is_empty() {
            return Err(fault("podCidrs", "[]", "must name at least one"));
        }
        let service_cidrs = prefixes("serviceCidrs", &wire.service_cidrs)?;
        if !(1..=MAX_HUBS).contains(&wire.hubs.len()) {
            let rule = "must name 1 to 8 hubs; set hubs in hub.yaml, or --hubs";
            return Err(fault("hubs", &wire.hubs.len().to_string(), rule));
        }
        for hub in &wire.hubs {
            crate::dial::Target::from_str(hub)
                .map_err(|rule| fault("hubs", hub, &rule.to_string()))?;
        }
        // What becomes a file has no signs that mean something there.
        let plain = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
        if let Some(strange) = wire.ca.chars().find(|c| !plain(*c)) {
            return Err(fault("ca", &strange.to_string(), "is no sign of PEM"));
        }
        Trust::new("any")
            .set(&wire.name, &wire.ca)
            .map_err(|rule| OfferFault(format!("ca: {rule}")))?;
        Ok(Self {
            clusterset: wire.clusterset,
            vni,
            name: wire.name,
            id,
            pod_cidrs,
            service_cidrs,
            hubs: wire.hubs,
            ca: wire.ca,
            protocols: Protocols {
                oldest: wire.oldest,
                newest: wire.newest,
            },
        })
    }
}

impl TryFrom<WireGrant> for Grant {
    type Error = OfferFault;

    fn try_from(wire: WireGrant) -> Result<Self, OfferFault> {
        if wire.namespaces.len() > MAX_NAMESPACES {
            return Err(OfferFault::field(
                "namespaces",
                &wire.namespaces.len().to_string(),
                "must be at most 256",
            ));
        }
        let quotas = QuotaLimits {
            records: wire.records,
            bytes: wire.bytes,
            changes_per_second: wire.changes_per_second,
            burst: wire.burst,
        };
        Self::new(
            wire.only.then_some(wire.namespaces),
            quotas,
            wire.may_revoke,
        )
    }
}

impl TryFrom<WireTerms> for Terms {
    type Error = OfferFault;

    fn try_from(wire: WireTerms) -> Result<Self, OfferFault> {
        let missing = |field: &str| OfferFault(format!("{field}: is missing"));
        let offer = wire.offer.ok_or_else(|| missing("offer"))?;
        let grant = wire.grant.ok_or_else(|| missing("grant"))?;
        Ok(Self {
            offer: offer.try_into()?,
            grant: grant.try_into()?,
            time: wire.time,
        })
    }
}

fn prefixes(field: &str, texts: &[String]) -> Result<Vec<IpNet>, OfferFault> {
    if texts.len() > MAX_PREFIXES {
        return Err(OfferFault::field(
            field,
            &texts.len().to_string(),
            "must be at most 256",
        ));
    }
    let mut prefixes = BTreeSet::new();
    for text in texts {
        let prefix = prefix::parse(field, text).map_err(|fault| OfferFault(fault.to_string()))?;
        prefixes.insert(prefix);
    }
    Ok(prefixes.into_iter().collect())
}

/// What a guest asks that wants to join.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct WireJoin {
    /// The token's.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) secret: Vec<u8>,
    /// What it says of itself.
    #[prost(message, optional, tag = "2")]
    pub(crate) offer: Option<WireOffer>,
    /// Its clock: seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(crate) time: u64,
    /// [`Terms::digest`] of what its operator agreed to; empty: it only looks.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) agreed: Bytes,
}

impl Drop for WireJoin {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::offer::tests::offer;

    fn refused(change: impl FnOnce(&mut WireOffer)) -> String {
        let mut wire = WireOffer::from(&offer("west", 2, "10.2.0.0/16"));
        change(&mut wire);
        Offer::try_from(wire).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let terms = Terms {
            offer: offer("west", 2, "10.2.0.0/16"),
            grant: Grant {
                namespaces: Some(BTreeSet::new()),
                quotas: QuotaLimits {
                    records: Some(0),
                    ..QuotaLimits::default()
                },
                may_revoke: true,
            },
            time: 7,
        };
        let bytes = WireTerms::from(&terms).encode_to_vec();
        let read = Terms::try_from(WireTerms::decode(&*bytes).unwrap());
        assert_eq!(read, Ok(terms));
    }

    #[test]
    fn each_impossible_field_of_an_offer_is_named() {
        for (told, expected) in [
            (
                refused(|o| o.clusterset = "Set".to_owned()),
                "clusterset.name: Set: must be a DNS name",
            ),
            (refused(|o| o.vni = 1 << 24), "clusterset.vni: 16777216: "),
            (
                refused(|o| o.name = "../west".to_owned()),
                "cluster.name: ../west: must be a DNS label",
            ),
            (
                refused(|o| o.name = "a\n- b".to_owned()),
                "cluster.name: a\\n- b: must be",
            ),
            (refused(|o| o.id = 0), "cluster.id: 0: must be 1 to 2047"),
            (
                refused(|o| o.id = 70_000),
                "cluster.id: 70000: must be 1 to 2047",
            ),
            (
                refused(|o| o.pod_cidrs.clear()),
                "podCidrs: []: must name at least one",
            ),
            (
                refused(|o| o.pod_cidrs[0] = "10.2.0.1/16".to_owned()),
                "podCidrs: 10.2.0.1/16: has host bits set",
            ),
            (
                refused(|o| o.service_cidrs = vec!["x".to_owned()]),
                "serviceCidrs: x: must be a prefix",
            ),
            (
                refused(|o| o.pod_cidrs = vec!["10.2.0.0/16".to_owned(); 257]),
                "podCidrs: 257: must be at most 256",
            ),
            (
                refused(|o| o.hubs.clear()),
                "hubs: 0: must name 1 to 8 hubs",
            ),
            (
                refused(|o| o.hubs = vec!["nowhere".to_owned()]),
                "hubs: nowhere: must be HOST:PORT",
            ),
            (
                refused(|o| o.ca = "none".to_owned()),
                "ca: must hold at least one certificate",
            ),
            (refused(|o| o.ca.push('\r')), "ca: \\r: is no sign of PEM"),
        ] {
            assert!(told.starts_with(expected), "{told}");
        }
        assert!(Terms::try_from(WireTerms::default()).is_err());
    }

    #[test]
    fn whoever_agreed_to_one_thing_agreed_to_no_other() {
        let west = offer("west", 2, "10.2.0.0/16");
        let terms = |namespace: &str, time| Terms {
            offer: west.clone(),
            grant: Grant::new(
                Some(vec![namespace.to_owned()]),
                QuotaLimits::default(),
                time > 2,
            )
            .unwrap(),
            time,
        };
        assert_eq!(terms("shop", 1).digest(), terms("shop", 2).digest());
        assert_ne!(terms("shop", 1).digest(), terms("bank", 1).digest());
        assert_ne!(
            terms("shop", 1).digest(),
            terms("shop", 3).digest(),
            "may revoke"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(wire) = WireTerms::decode(&*bytes) {
                let _ = Terms::try_from(wire);
            }
            if let Ok(wire) = WireOffer::decode(&*bytes) {
                let _ = Offer::try_from(wire);
            }
        }
    }
}
