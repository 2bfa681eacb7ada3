//! Label selectors, and which identities the egress rules of network policies select.

use crate::record::IdentityRecord;
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// The label that Kubernetes gives every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

type Labels = BTreeMap<String, String>;

/// Whether the selector matches. One that we do not understand matches: what is asked for in vain costs little, what is
/// missing opens or closes a door.
pub(crate) fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut equal = equal.map(|(key, value)| labels.get(key) == Some(value));
    let required = selector.match_expressions.iter().flatten();
    let mut required = required.map(|requirement| {
        let value = labels.get(&requirement.key);
        let listed = || {
            let listed = requirement.values.iter().flatten();
            value.is_some_and(|value| listed.into_iter().any(|it| it == value))
        };
        match requirement.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => true,
        }
    });
    equal.all(|holds| holds) && required.all(|holds| holds)
}

/// A network policy, as far as it is about egress.
#[derive(Clone, Debug)]
pub(crate) struct EgressPolicy {
    namespace: String,
    pods: LabelSelector,
    /// The selectors of all its rules' peers.
    to: Vec<(Option<LabelSelector>, Option<LabelSelector>)>,
}

impl EgressPolicy {
    /// Reads a policy's `spec`; `None`: it selects nothing by labels, or is malformed.
    pub(crate) fn read(namespace: &str, spec: &str) -> Option<Self> {
        let spec: NetworkPolicySpec = serde_json::from_str(spec).ok()?;
        let types = spec.policy_types.unwrap_or_default();
        let egress = types.is_empty() || types.iter().any(|it| it == "Egress");
        let rules = spec.egress.filter(|_| egress).unwrap_or_default();
        let peers = rules
            .into_iter()
            .flat_map(|rule| rule.to.unwrap_or_default());
        let selects = |peer: &NetworkPolicyPeer| {
            peer.pod_selector.is_some() || peer.namespace_selector.is_some()
        };
        let to: Vec<_> = peers
            .filter(selects)
            .map(|peer| (peer.pod_selector, peer.namespace_selector))
            .collect();
        (!to.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            pods: spec.pod_selector.unwrap_or_default(),
            to,
        })
    }

    /// Whether it is about pods of this identity.
    pub(crate) fn is_of(&self, identity: &IdentityRecord) -> bool {
        self.namespace == identity.namespace && matches(&self.pods, &identity.labels)
    }

    /// Whether it lets them talk to pods of this identity. `namespaces` are the labels of namespaces, which mean the same
    /// in every cluster.
    pub(crate) fn selects(
        &self,
        identity: &IdentityRecord,
        namespaces: &BTreeMap<String, Labels>,
    ) -> bool {
        self.to.iter().any(|(pods, namespace)| {
            let in_namespace = match namespace {
                None => identity.namespace == self.namespace,
                Some(selector) => {
                    let known = namespaces.get(&identity.namespace);
                    let mut labels = known.cloned().unwrap_or_default();
                    labels.insert(NAMESPACE_NAME.to_owned(), identity.namespace.clone());
                    matches(selector, &labels)
                }
            };
            in_namespace
                && pods
                    .as_ref()
                    .is_none_or(|pods| matches(pods, &identity.labels))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawser_tunnel::identity::Identity;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        owned.collect()
    }

    fn identity(namespace: &str, pairs: &[(&str, &str)]) -> IdentityRecord {
        IdentityRecord {
            number: Identity::new(1001).unwrap(),
            namespace: namespace.to_owned(),
            labels: labels(pairs),
        }
    }

    #[test]
    fn selectors_mean_what_kubernetes_says() {
        let pod = labels(&[("app", "web"), ("tier", "front")]);
        for (selector, wanted) in [
            (json!({}), true),
            (json!({ "matchLabels": { "app": "web" } }), true),
            (
                json!({ "matchLabels": { "app": "web", "tier": "back" } }),
                false,
            ),
            (
                json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["db", "web"] }] }),
                true,
            ),
            (
                json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["web"] }] }),
                false,
            ),
            (
                json!({ "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["a"] }] }),
                true,
            ),
            (
                json!({ "matchExpressions": [{ "key": "tier", "operator": "Exists" }] }),
                true,
            ),
            (
                json!({ "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] }),
                false,
            ),
            (
                json!({ "matchExpressions": [{ "key": "zone", "operator": "Exists" }] }),
                false,
            ),
        ] {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&parsed, &pod), wanted, "{selector}");
        }
    }

    #[test]
    fn a_policy_selects_by_pod_namespace_or_both() {
        let read = |to: serde_json::Value| {
            let spec = json!({ "podSelector": { "matchLabels": { "app": "web" } },
                "policyTypes": ["Egress"], "egress": [{ "to": to }] });
            EgressPolicy::read("shop", &spec.to_string())
        };
        let namespaces = BTreeMap::from([("bank".to_owned(), labels(&[("team", "money")]))]);
        let db = [("app", "db")];
        let pods = json!({ "matchLabels": { "app": "db" } });
        let team = json!({ "matchLabels": { "team": "money" } });
        let named = json!({ "matchLabels": { NAMESPACE_NAME: "bank" } });
        for (to, in_shop, in_bank) in [
            (json!([{ "podSelector": pods }]), true, false),
            (json!([{ "namespaceSelector": team }]), false, true),
            (
                json!([{ "namespaceSelector": named, "podSelector": pods }]),
                false,
                true,
            ),
            (
                json!([{ "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": "x" } } }]),
                false,
                false,
            ),
            (json!([{ "namespaceSelector": {} }]), true, true),
        ] {
            let policy = read(to.clone()).unwrap();
            assert_eq!(
                policy.selects(&identity("shop", &db), &namespaces),
                in_shop,
                "{to}"
            );
            assert_eq!(
                policy.selects(&identity("bank", &db), &namespaces),
                in_bank,
                "{to}"
            );
            assert!(policy.is_of(&identity("shop", &[("app", "web")])));
            assert!(!policy.is_of(&identity("bank", &[("app", "web")])));
        }
        assert!(read(json!([{ "ipBlock": { "cidr": "10.0.0.0/8" } }])).is_none());
        assert!(EgressPolicy::read("shop", "{").is_none());
        let ingress = json!({ "podSelector": {}, "policyTypes": ["Ingress"], "egress": [{ "to": [{ "podSelector": {} }] }] });
        assert!(EgressPolicy::read("shop", &ingress.to_string()).is_none());
    }
}
