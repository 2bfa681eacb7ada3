//! Names that a cluster neither exports nor imports: what is called so means its own cluster wherever it is said.

use crate::config::{Fault, Rule};
use crate::record::check_label;
use std::collections::BTreeSet;

/// What is protected unless `hub.yaml` says otherwise. Somebody else's `kube-dns` or `kubernetes` under these names
/// would answer in the place of one's own.
pub const DEFAULT: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "default/kubernetes",
];

/// What is protected about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Its namespace.
    Namespace,
    /// It alone.
    Service,
}

impl Breach {
    /// Its name in metrics, logs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace_protected",
            Self::Service => "service_protected",
        }
    }
}

/// Namespaces and single services whose names are nobody's to export or import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    namespaces: BTreeSet<String>,
    services: BTreeSet<(String, String)>,
}

impl Default for Protected {
    fn default() -> Self {
        let mut protected = Self::nothing();
        for entry in DEFAULT {
            protected.add(entry);
        }
        protected
    }
}

impl Protected {
    /// Nothing is.
    pub fn nothing() -> Self {
        Self {
            namespaces: BTreeSet::new(),
            services: BTreeSet::new(),
        }
    }

    /// Reads a list of `NAMESPACE` and `NAMESPACE/SERVICE`.
    ///
    /// # Errors
    /// The entry that is neither.
    pub(crate) fn parse(field: &str, entries: &[String]) -> Result<Self, Fault> {
        let mut protected = Self::nothing();
        for (at, entry) in entries.iter().enumerate() {
            let fits = match entry.split_once('/') {
                Some((namespace, name)) => {
                    check_label(namespace).is_ok() && check_label(name).is_ok()
                }
                None => check_label(entry).is_ok(),
            };
            if !fits {
                return Err(Fault::new(
                    format!("{field}[{at}]"),
                    entry,
                    Rule::ProtectedName,
                ));
            }
            protected.add(entry);
        }
        Ok(protected)
    }

    fn add(&mut self, entry: &str) {
        match entry.split_once('/') {
            Some((namespace, name)) => {
                let service = (namespace.to_owned(), name.to_owned());
                self.services.insert(service);
            }
            None => {
                self.namespaces.insert(entry.to_owned());
            }
        }
    }

    /// Whether a service may have this name.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn judge(&self, namespace: &str, service: &str) -> Result<(), Breach> {
        if self.namespaces.contains(namespace) {
            return Err(Breach::Namespace);
        }
        let same = |(of, name): &(String, String)| of == namespace && name == service;
        if self.services.iter().any(same) {
            return Err(Breach::Service);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_every_cluster_are_protected_and_no_others() {
        let protected = Protected::default();
        for (namespace, service, expected) in [
            ("kube-system", "kube-dns", Err("namespace_protected")),
            ("kube-public", "web", Err("namespace_protected")),
            ("kube-node-lease", "web", Err("namespace_protected")),
            ("default", "kubernetes", Err("service_protected")),
            ("default", "web", Ok(())),
            ("shop", "kubernetes", Ok(())),
            ("kube-systems", "kube-dns", Ok(())),
        ] {
            let judged = protected.judge(namespace, service).map_err(Breach::name);
            assert_eq!(judged, expected, "{namespace}/{service}");
        }
    }

    #[test]
    fn a_list_takes_the_place_of_the_default_and_its_faults_are_named() {
        let parse = |entries: &[&str]| {
            let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
            Protected::parse("protectedNamespaces", &entries)
        };
        let own = parse(&["vault", "shop/till"]).unwrap();
        assert_eq!(own.judge("kube-system", "kube-dns"), Ok(()));
        assert_eq!(own.judge("vault", "any"), Err(Breach::Namespace));
        assert_eq!(own.judge("shop", "till"), Err(Breach::Service));
        assert_eq!(own.judge("shop", "web"), Ok(()));
        assert_eq!(parse(&[]).unwrap(), Protected::nothing());
        for wrong in ["", "Vault", "a/b/c", "/web", "shop/", "a.b"] {
            let told = parse(&["vault", wrong]).unwrap_err().to_string();
            assert!(told.starts_with("protectedNamespaces[1]: "), "{told}");
        }
    }
}
