//! A member that joined, as the manifest that says the same.

use crate::hub::manifest::document::{Ground, split};
use crate::hub::manifest::{ClusterPeer, Object, QuotaLimits};
use std::fmt::Write as _;

/// What a file says, as it is read from the source too: the member's name, and what it is.
///
/// # Errors
/// One line: it is no manifest of exactly one `ClusterPeer`, or breaks a rule.
pub fn read(text: &str, ground: &Ground) -> Result<(String, ClusterPeer), String> {
    let documents = split(text);
    let [document] = documents.as_slice() else {
        return Err("must hold one ClusterPeer; correct it".to_owned());
    };
    let read = document.parse(ground).map_err(|wrong| wrong.to_string())?;
    match read {
        Some((key, Object::ClusterPeer(peer))) => Ok((key.name, peer)),
        Some(_) | None => Err("must hold a ClusterPeer; correct it".to_owned()),
    }
}

/// Writes a member. [`read`] reads the same.
pub fn text(name: &str, peer: &ClusterPeer) -> String {
    let ClusterPeer {
        id,
        pod_cidrs,
        service_cidrs,
        namespaces,
        hubs,
        ca,
        quotas,
        may_revoke,
    } = peer;
    // A text of JSON is one of YAML.
    let list = |items: &mut dyn Iterator<Item = String>| {
        let items: Vec<String> = items.map(|item| quoted(&item)).collect();
        format!("[{}]", items.join(", "))
    };
    let mut text = format!(
        "# Made by joining. A ClusterPeer of the same name in the hub's source takes its place.\n\
         apiVersion: hawser.io/v1alpha1\nkind: ClusterPeer\nmetadata:\n  name: {}\nspec:\n  clusterId: {id}\n  \
         podCidrs: {}\n",
        quoted(name),
        list(&mut pod_cidrs.iter().map(ToString::to_string)),
    );
    let mut line = |field: &str, value: &str| {
        writeln!(text, "  {field}: {value}").expect("a text takes all that is written to it");
    };
    if !service_cidrs.is_empty() {
        let prefixes = list(&mut service_cidrs.iter().map(ToString::to_string));
        line("serviceCidrs", &prefixes);
    }
    if let Some(names) = namespaces {
        line("namespaces", &list(&mut names.iter().cloned()));
    }
    line("hubs", &list(&mut hubs.iter().cloned()));
    if *quotas != QuotaLimits::default() {
        line("quotas", &quota_map(quotas));
    }
    if *may_revoke {
        line("mayRevoke", "true");
    }
    text.push_str("  ca: |\n");
    for of_ca in ca.lines() {
        text.push_str("    ");
        text.push_str(of_ca.trim());
        text.push('\n');
    }
    text
}

fn quota_map(quotas: &QuotaLimits) -> String {
    let QuotaLimits {
        records,
        bytes,
        changes_per_second,
        burst,
    } = quotas;
    let all = [
        ("records", records.map(u64::from)),
        ("bytes", *bytes),
        ("changesPerSecond", changes_per_second.map(u64::from)),
        ("burst", burst.map(u64::from)),
    ];
    let said = all.iter();
    let said = said.filter_map(|(name, value)| Some(format!("{name}: {}", (*value)?)));
    format!("{{ {} }}", said.collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::Grant;
    use crate::join::offer::tests::offer;
    use hawser_tunnel::node::ClusterId;

    fn ground() -> Ground {
        Ground {
            cluster: ClusterId::new(1).unwrap(),
            name: "east".to_owned(),
            pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
            service_cidrs: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut full = offer("west", 2, "10.2.0.0/16");
        full.service_cidrs.push("10.92.0.0/16".parse().unwrap());
        full.pod_cidrs.push("fd01:2::/32".parse().unwrap());
        full.hubs.push("[2001:db8::1]:6082".to_owned());
        let more = offer("west", 2, "10.2.0.0/16");
        full.ca.push_str(&more.ca);
        let quotas = QuotaLimits {
            records: Some(1000),
            bytes: Some(1 << 40),
            changes_per_second: Some(20),
            burst: Some(30),
        };
        for namespaces in [
            None,
            Some(Vec::new()),
            Some(vec!["no".to_owned(), "1".to_owned()]),
        ] {
            for quotas in [QuotaLimits::default(), quotas] {
                let may_revoke = quotas != QuotaLimits::default();
                let grant = Grant::new(namespaces.clone(), quotas, may_revoke);
                let peer = full.peer(&grant.unwrap());
                let text = text("west", &peer);
                let (name, read) = read(&text, &ground()).unwrap();
                assert_eq!((name.as_str(), read), ("west", peer), "{text}");
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_in_a_line() {
        let peer = offer("west", 1, "10.2.0.0/16").peer(&Grant::default());
        let told = read(&text("west", &peer), &ground()).unwrap_err();
        assert!(
            told.contains("spec.clusterId: 1: is this cluster itself"),
            "{told}"
        );
        for wrong in [
            "",
            "apiVersion: v1\nkind: ConfigMap\n",
            "a: [",
            "--- 1\n--- 2\n",
        ] {
            let told = read(wrong, &ground()).unwrap_err();
            assert!(!told.contains('\n'), "{told}");
        }
    }
}
