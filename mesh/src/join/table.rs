//! What the operator agrees to, on one screen: both clusters side by side.

use super::{Grant, Offer};
use crate::hub::manifest::QuotaLimits;
use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

/// A cluster, and what it may announce on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: u16,
    /// Of its pods.
    pub pod_cidrs: Vec<String>,
    /// Of its services.
    pub service_cidrs: Vec<String>,
    /// `HOST:PORT` each.
    pub hubs: Vec<String>,
    /// SHA-256 of its CAs' keys.
    pub ca: Vec<String>,
    /// The namespaces that the other side takes from it; nothing: all.
    pub namespaces: Option<Vec<String>>,
    /// How much the other side takes from it, where that differs from that hub's own settings.
    pub quotas: QuotaLimits,
    /// Whether the other side cuts off whom it revokes.
    pub may_revoke: bool,
}

impl Side {
    /// A cluster, and what the other side lets it announce.
    pub fn new(offer: &Offer, grant: &Grant) -> Self {
        let text = |prefixes: &[ipnet::IpNet]| prefixes.iter().map(ToString::to_string).collect();
        let names = grant.namespaces.as_ref();
        Self {
            name: offer.name.clone(),
            id: offer.id.into(),
            pod_cidrs: text(&offer.pod_cidrs),
            service_cidrs: text(&offer.service_cidrs),
            hubs: offer.hubs.clone(),
            ca: fingerprints(&offer.ca),
            namespaces: names.map(|names| names.iter().cloned().collect()),
            quotas: grant.quotas,
            may_revoke: grant.may_revoke,
        }
    }
}

/// The CAs of a PEM text as people compare them.
pub fn fingerprints(ca: &str) -> Vec<String> {
    let pins = crate::token::pins(ca);
    pins.iter().map(|pin| format!("SHA256:{pin}")).collect()
}

/// Both sides, as the operator of `ours` agrees to them.
pub fn screen(clusterset: &str, ours: &Side, theirs: &Side) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    let here = format!("{} (here)", ours.name);
    table.set_header(["CLUSTER", &here, &theirs.name]);
    let mut row = |title: &str, of: &dyn Fn(&Side) -> Vec<String>| {
        let (left, right) = (of(ours), of(theirs));
        let lines = left.len().max(right.len()).max(1);
        for line in 0..lines {
            let cell = |side: &[String]| match (side.get(line), line) {
                (Some(text), _) => text.clone(),
                (None, 0) => "none".to_owned(),
                (None, _) => String::new(),
            };
            let title = if line == 0 { title } else { "" };
            table.add_row([title.to_owned(), cell(&left), cell(&right)]);
        }
    };
    row("ID", &|side| vec![side.id.to_string()]);
    row("POD CIDRS", &|side| side.pod_cidrs.clone());
    row("SERVICE CIDRS", &|side| side.service_cidrs.clone());
    row("HUBS", &|side| side.hubs.clone());
    row("CA", &|side| side.ca.clone());
    row("MAY ANNOUNCE", &|side| {
        vec![namespaces(side.namespaces.as_deref())]
    });
    row("QUOTAS", &|side| vec![quotas(&side.quotas)]);
    row("MAY REVOKE", &|side| {
        vec![if side.may_revoke { "yes" } else { "no" }.to_owned()]
    });
    let table = table.to_string();
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    format!(
        "{} and {} of clusterset {clusterset} take each other in:\n\n{}\n\n\
         MAY ANNOUNCE and QUOTAS: what the other side takes from it. MAY REVOKE: whether the other side cuts off whom it\n\
         revokes.\n",
        ours.name,
        theirs.name,
        table.join("\n")
    )
}

/// Namespaces as people read them.
pub fn namespaces(names: Option<&[String]>) -> String {
    match names {
        None => "all namespaces".to_owned(),
        Some([]) => "no namespace".to_owned(),
        Some(names) => names.join(", "),
    }
}

/// Quotas as people read them, and as `--quota` takes them.
pub fn quotas(quotas: &QuotaLimits) -> String {
    let all = [
        ("records", quotas.records.map(u64::from)),
        ("bytes", quotas.bytes),
        ("changesPerSecond", quotas.changes_per_second.map(u64::from)),
        ("burst", quotas.burst.map(u64::from)),
    ];
    let said = all.iter();
    let said = said.filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
    let said: Vec<String> = said.collect();
    if said.is_empty() {
        return "as the hub has them for all".to_owned();
    }
    said.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::offer::tests::offer;

    #[test]
    fn the_operator_sees_both_clusters_and_both_grants_side_by_side() {
        let mut west = offer("west", 2, "10.2.0.0/16");
        west.pod_cidrs.push("fd01:2::/32".parse().unwrap());
        let east = offer("east", 1, "10.1.0.0/16");
        let quota = QuotaLimits {
            records: Some(1000),
            ..QuotaLimits::default()
        };
        let grant = Grant::new(
            Some(vec!["bank".to_owned(), "shop".to_owned()]),
            quota,
            false,
        )
        .unwrap();
        let mut ours = Side::new(&west, &grant);
        let may_revoke = Grant {
            may_revoke: true,
            ..Grant::default()
        };
        let mut theirs = Side::new(&east, &may_revoke);
        assert_eq!(ours.ca, [format!("SHA256:{}", west.fingerprint())]);
        ours.ca = vec!["SHA256:02".to_owned()];
        theirs.ca = vec!["SHA256:01".to_owned()];
        let expected = "\
west and east of clusterset set.example take each other in:

 CLUSTER        west (here)            east
 ID             2                      1
 POD CIDRS      10.2.0.0/16            10.1.0.0/16
                fd01:2::/32
 SERVICE CIDRS  none                   none
 HUBS           hub.west.example:6082  hub.east.example:6082
 CA             SHA256:02              SHA256:01
 MAY ANNOUNCE   bank, shop             all namespaces
 QUOTAS         records=1000           as the hub has them for all
 MAY REVOKE     no                     yes

MAY ANNOUNCE and QUOTAS: what the other side takes from it. MAY REVOKE: whether the other side cuts off whom it
revokes.
";
        assert_eq!(screen("set.example", &ours, &theirs), expected);
    }
}
