//! Why something that is exported does not reach others, or not whole.

use crate::hub::manifest::{ObjectKey, ObjectKind};
use std::fmt;

/// The rules of exports, each with its fix.
///
/// Who may write an `EndpointSlice` can name any address in it. Others believe the addresses that we announce, so a
/// backend is what a pod of the service's own namespace has, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum Unfit {
    #[error(
        "its namespace is protected; remove the export, or change protectedNamespaces in hub.yaml"
    )]
    NamespaceProtected,
    #[error("is protected; remove the export, or change protectedNamespaces in hub.yaml")]
    ServiceProtected,
    #[error("there is no Service of this name; add it or remove the export")]
    ServiceMissing,
    #[error("ExternalName has no endpoints to export; export a Service with pods")]
    ServiceExternalName,
    #[error("is no pod's address; write that of a pod of this namespace")]
    AddressMartian,
    #[error("lies outside this cluster's podCidrs; write that of a pod of this namespace")]
    AddressOutsideCluster,
    #[error("no pod has it; write that of a pod of this namespace")]
    AddressOfNoPod,
    #[error("is that of a pod of another namespace; export the service there")]
    AddressOfOtherNamespace,
    #[error("is not an address of the pod that targetRef names; correct one of them")]
    AddressOfOtherPod,
    #[error("is a pod of another namespace; export the service there")]
    PodInOtherNamespace,
    #[error("there is no running pod of this name with a network of its own; correct targetRef")]
    PodUnknown,
}

impl Unfit {
    /// Its name in logs and in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::NamespaceProtected => "namespace_protected",
            Self::ServiceProtected => "service_protected",
            Self::ServiceMissing => "service_missing",
            Self::ServiceExternalName => "service_external_name",
            Self::AddressMartian => "address_martian",
            Self::AddressOutsideCluster => "address_outside_cluster",
            Self::AddressOfNoPod => "address_of_no_pod",
            Self::AddressOfOtherNamespace => "address_of_other_namespace",
            Self::AddressOfOtherPod => "address_of_other_pod",
            Self::PodInOtherNamespace => "pod_in_other_namespace",
            Self::PodUnknown => "pod_unknown",
        }
    }

    /// The field that breaks the rule.
    fn field(self) -> &'static str {
        match self {
            Self::NamespaceProtected => "metadata.namespace",
            Self::ServiceProtected | Self::ServiceMissing => "metadata.name",
            Self::ServiceExternalName => "spec.type",
            Self::AddressMartian
            | Self::AddressOutsideCluster
            | Self::AddressOfNoPod
            | Self::AddressOfOtherNamespace
            | Self::AddressOfOtherPod => "endpoints.addresses",
            Self::PodInOtherNamespace | Self::PodUnknown => "endpoints.targetRef",
        }
    }
}

/// What is wrong with an object that would be exported. One line: object, reason, field, value, rule, fix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// The object.
    pub object: ObjectKey,
    /// The value that breaks the rule.
    pub value: String,
    /// The rule.
    pub why: Unfit,
}

impl Complaint {
    pub(super) fn new(
        kind: ObjectKind,
        (namespace, name): (&str, &str),
        value: impl fmt::Display,
        why: Unfit,
    ) -> Self {
        Self {
            object: ObjectKey {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            value: value.to_string(),
            why,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, value, why } = self;
        let (name, field) = (why.name(), why.field());
        write!(f, "{object}: {name}: {field}: {value}: {why}")
    }
}

/// The most complaints that are told one by one: there may be one for each backend, and all have the same few reasons.
const SHOWN: usize = 256;

/// The most of them that one change writes to the log.
pub(in crate::hub) const LOGGED: usize = 16;

/// The first complaints as lines, and how many more there are.
pub(in crate::hub) fn lines<'a>(complaints: impl Iterator<Item = &'a Complaint>) -> Vec<String> {
    let mut more = 0_usize;
    let mut lines = Vec::new();
    for complaint in complaints {
        if lines.len() < SHOWN {
            lines.push(complaint.to_string());
        } else {
            more += 1;
        }
    }
    if more > 0 {
        lines.push(format!("and {more} more of what is exported wrongly"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_a_few_complaints_and_how_many_more_there_are() {
        let all: Vec<_> = (0..1_000)
            .map(|number| {
                let name = format!("s{number:04}");
                let of = ("shop", name.as_str());
                Complaint::new(ObjectKind::ServiceExport, of, &name, Unfit::ServiceMissing)
            })
            .collect();
        assert_eq!(lines(all[..SHOWN].iter()).len(), SHOWN);
        let told = lines(all.iter());
        assert_eq!(told.len(), SHOWN + 1);
        assert_eq!(told[0], all[0].to_string());
        assert_eq!(told[SHOWN], "and 744 more of what is exported wrongly");
    }
}
