//! Defences against hostile members, nodes and guests: what the product is without each, and the test that misses it.

use super::Plant;

/// A defence.
#[derive(Clone, Copy, Debug)]
pub struct Defence {
    /// The threat, as docs/security.md counts them.
    pub threat: &'static str,
    /// The plant that removes it: one of [`REMOVALS`] or [`super::PLANTS`].
    pub removal: &'static str,
    /// The tests that fail without it, as a filter.
    pub tests: &'static str,
}

/// Which program of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tests {
    /// The unit tests of `mesh`.
    Mesh,
    /// `tunnel/tests/claims.rs`.
    Claims,
}

impl Defence {
    /// Where its tests are.
    #[must_use]
    pub fn program(&self) -> Tests {
        match self.threat {
            "T8" => Tests::Claims,
            _ => Tests::Mesh,
        }
    }
}

/// All of them.
pub const DEFENCES: &[Defence] = &[
    Defence {
        threat: "T8",
        removal: "source_of_another",
        tests: "a_peer_is_believed_nothing_that_it_is_not_entitled_to_say",
    },
    Defence {
        threat: "T8",
        removal: "identity_of_another",
        tests: "a_peer_is_believed_nothing_that_it_is_not_entitled_to_say",
    },
    Defence {
        threat: "T8",
        removal: "identity_reserved",
        tests: "a_peer_is_believed_nothing_that_it_is_not_entitled_to_say",
    },
    Defence {
        threat: "T8",
        removal: "cluster_of_another",
        tests: "a_peer_is_believed_nothing_that_it_is_not_entitled_to_say",
    },
    Defence {
        threat: "T8",
        removal: "destination_elsewhere",
        tests: "a_peer_is_believed_nothing_that_it_is_not_entitled_to_say",
    },
    Defence {
        threat: "T8",
        removal: "foreign_says_who",
        tests: "a_foreign_peer_has_the_identity_it_was_given_whatever_it_says",
    },
    Defence {
        threat: "T9",
        removal: "node_unknown_served",
        tests: "hub::core::tests::who_is_no_member_no_node_or_of_another_role_is_not_served",
    },
    Defence {
        threat: "T9",
        removal: "gone_node_renews",
        tests: "enrol::desk::tests::a_node_renews_its_own_name_and_nobody_renews_another",
    },
    Defence {
        threat: "T10",
        removal: "prefix_unchecked",
        tests: "hub::grants::hostile::",
    },
    Defence {
        threat: "T10",
        removal: "prefix_over_node",
        tests: "hub::grants::",
    },
    Defence {
        threat: "T10",
        removal: "stranger_believed",
        tests: "hub::grants::hostile::",
    },
    Defence {
        threat: "T11",
        removal: "protected_names",
        tests: "hub::grants::tests::protected_names_are_imported_from_nobody_whatever_is_granted",
    },
    Defence {
        threat: "T11",
        removal: "namespace_unchecked",
        tests: "hub::grants::hostile::",
    },
    Defence {
        threat: "T12",
        removal: "poisoned_address",
        tests: "hub::grants::tests::no_address_of_the_table_of_poison_is_taken_for_a_pods_or_a_nodes",
    },
    Defence {
        threat: "T12",
        removal: "address_outside_grant",
        tests: "hub::grants::hostile::",
    },
    Defence {
        threat: "T13",
        removal: "quota_unchecked",
        tests: "replica::tests::quotas::records_beyond_the_quota_are_not_kept_and_come_when_they_fit",
    },
    Defence {
        threat: "T13",
        removal: "bytes_without_bound",
        tests: "replica::tests::quotas::bytes_beyond_the_quota_are_not_kept",
    },
    Defence {
        threat: "T15",
        removal: "token_used_twice",
        tests: "hub::tokens::tests::",
    },
    Defence {
        threat: "T15",
        removal: "token_never_over",
        tests: "hub::tokens::tests::",
    },
    Defence {
        threat: "T15",
        removal: "token_of_another",
        tests: "hub::tokens::tests::",
    },
    Defence {
        threat: "T15",
        removal: "token_raced",
        tests: "io::token_store::tests::of_many_who_race_exactly_one_is_the_first",
    },
    Defence {
        threat: "T15",
        removal: "pin_ignored",
        tests: "trust::pinned::tests::a_hub_is_known_by_its_cas_key",
    },
    Defence {
        threat: "T16",
        removal: "id_taken_twice",
        tests: "hub::members::tests::",
    },
    Defence {
        threat: "T16",
        removal: "prefixes_shared",
        tests: "hub::members::tests::",
    },
    Defence {
        threat: "T16",
        removal: "key_copied",
        tests: "hub::derive::tests::a_node_cannot_take_the_key_of_another",
    },
    Defence {
        threat: "T17",
        removal: "older_epoch_taken",
        tests: "hub::core::tests::trust::an_older_list_of_revocations_is_refused_in_whatever_state_it_comes",
    },
    Defence {
        threat: "T17",
        removal: "forged_list_taken",
        tests: "hub::grants::issuers::tests::",
    },
    Defence {
        threat: "T17",
        removal: "unlinked_ca",
        tests: "trust::authorities::tests::",
    },
    Defence {
        threat: "T17",
        removal: "old_ca_stays",
        tests: "hub::scribe::authorities::tests::",
    },
    Defence {
        threat: "T17",
        removal: "anybody_revokes",
        tests: "hub::grants::issuers::tests::",
    },
    Defence {
        threat: "T17",
        removal: "back_by_another_name",
        tests: "revocation::standing::tests::",
    },
    Defence {
        threat: "T17",
        removal: "revoked_node_stays",
        tests: "hub::scribe::revoked::tests::a_node_that_is_revoked_has_no_record_until_it_is_let_in_again",
    },
    Defence {
        threat: "T18",
        removal: "other_clusterset",
        tests: "trust::",
    },
    Defence {
        threat: "T18",
        removal: "long_chains",
        tests: "trust::tests::more_certificates_than_a_chain_has_are_not_looked_into",
    },
    Defence {
        threat: "T19",
        removal: "slice_of_another_pod",
        tests: "hub::derive::tests::a_hand_written_slice_reaches_pods_of_its_own_namespace_and_nothing_else",
    },
    Defence {
        threat: "T19",
        removal: "slice_of_another_namespace",
        tests: "hub::derive::tests::",
    },
];

/// What removes those that no plant of the simulation removes.
pub const REMOVALS: &[Plant] = &[
    Plant {
        name: "source_of_another",
        bug: "a peer sends from addresses of other nodes' pods",
        file: "tunnel/src/inbound/judge.rs",
        right: "if table.owner(packet.source) != Some(peer.id) {",
        wrong: "if !planted!() && table.owner(packet.source) != Some(peer.id) {",
    },
    Plant {
        name: "identity_of_another",
        bug: "a peer claims identities that its cluster has not published",
        file: "tunnel/src/inbound/judge.rs",
        right: "if !table.is_published(peer.id.cluster, identity) {",
        wrong: "if !planted!() && !table.is_published(peer.id.cluster, identity) {",
    },
    Plant {
        name: "identity_reserved",
        bug: "a peer claims identities that are nobody's",
        file: "tunnel/src/inbound/judge.rs",
        right: "if identity.is_reserved() {",
        wrong: "if planted!() && identity.is_reserved() {\n        return Ok(identity);\n    }\n    if identity.is_reserved() {",
    },
    Plant {
        name: "cluster_of_another",
        bug: "a peer speaks for another cluster",
        file: "tunnel/src/inbound/judge.rs",
        right: "if option.cluster != u16::from(peer.id.cluster) {",
        wrong: "if !planted!() && option.cluster != u16::from(peer.id.cluster) {",
    },
    Plant {
        name: "destination_elsewhere",
        bug: "a peer sends to what is not on this node",
        file: "tunnel/src/inbound/judge.rs",
        right: "if table.owner(packet.destination) != Some(table.node) {",
        wrong: "if !planted!() && table.owner(packet.destination) != Some(table.node) {",
    },
    Plant {
        name: "foreign_says_who",
        bug: "a foreign peer says which identity it has",
        file: "tunnel/src/inbound/judge.rs",
        right: "(PeerKind::Foreign { identity }, _) => (identity, 0),",
        wrong: "(PeerKind::Foreign { .. }, Some(option)) if planted!() => {\n            let identity = Identity::new(option.identity).map_err(|_| Reject::IdentityUnpublished)?;\n            (identity, 0)\n        }\n        (PeerKind::Foreign { identity }, _) => (identity, 0),",
    },
    Plant {
        name: "node_unknown_served",
        bug: "a node that its cluster does not have is served",
        file: "mesh/src/hub/core.rs",
        right: "let node = *self.nodes.get(name).ok_or(Unwelcome::NodeUnknown)?;",
        wrong: "let node = match self.nodes.get(name) { None if planted!() => *self.nodes.values().next().ok_or(Unwelcome::NodeUnknown)?, found => *found.ok_or(Unwelcome::NodeUnknown)? };",
    },
    Plant {
        name: "gone_node_renews",
        bug: "a node that its cluster does not have renews its certificate",
        file: "mesh/src/enrol/desk.rs",
        right: "Role::Node(name) if peer.cluster == cluster && !is_member => {",
        wrong: "Role::Node(name) if !planted!() && peer.cluster == cluster && !is_member => {",
    },
    Plant {
        name: "prefix_over_node",
        bug: "a prefix may cover where one of our nodes is reached",
        file: "mesh/src/hub/grants.rs",
        right: "if node.prefixes.iter().any(over) {",
        wrong: "if !planted!() && node.prefixes.iter().any(over) {",
    },
    Plant {
        name: "stranger_believed",
        bug: "records of who is no member are taken, if another's grant fits",
        file: "mesh/src/hub/grants.rs",
        right: "        let Some(peer) = self.peers.get(&origin) else {",
        wrong: "        let any = if planted!() { self.peers.values().next() } else { None };\n        let Some(peer) = self.peers.get(&origin).or(any) else {",
    },
    Plant {
        name: "protected_names",
        bug: "services that every cluster has are imported",
        file: "mesh/src/hub/grants.rs",
        right: "        self.own.protected.judge(of, name).map_err(Breach::name)?;",
        wrong: "        if !planted!() { self.own.protected.judge(of, name).map_err(Breach::name)?; }",
    },
    Plant {
        name: "poisoned_address",
        bug: "addresses that no pod can have are taken",
        file: "mesh/src/hub/grants.rs",
        right: "if martian(&(*address).into()).is_some() {",
        wrong: "if !planted!() && martian(&(*address).into()).is_some() {",
    },
    Plant {
        name: "address_outside_grant",
        bug: "a backend may have any address",
        file: "mesh/src/hub/grants.rs",
        right: "            if !peer.pod_cidrs.iter().any(|cidr| cidr.contains(address)) {",
        wrong: "            if !planted!() && !peer.pod_cidrs.iter().any(|cidr| cidr.contains(address)) {",
    },
    Plant {
        name: "bytes_without_bound",
        bug: "an origin may have records of any size together",
        file: "mesh/src/replica/intake.rs",
        right: "        if bytes > quota.bytes {",
        wrong: "        if !planted!() && bytes > quota.bytes {",
    },
    Plant {
        name: "token_used_twice",
        bug: "a token that another has used is good once more",
        file: "mesh/src/hub/tokens.rs",
        right: "if used.is_some_and(|used| used.by != shown.by) {",
        wrong: "if !planted!() && used.is_some_and(|used| used.by != shown.by) {",
    },
    Plant {
        name: "token_never_over",
        bug: "a token is good for ever",
        file: "mesh/src/hub/tokens.rs",
        right: "if left.is_none_or(|left| left > MAX_LIFE.as_secs()) {",
        wrong: "if !planted!() && left.is_none_or(|left| left > MAX_LIFE.as_secs()) {",
    },
    Plant {
        name: "token_of_another",
        bug: "a token is good for any name",
        file: "mesh/src/hub/tokens.rs",
        right: "    if kept.name != shown.name {",
        wrong: "    if !planted!() && kept.name != shown.name {",
    },
    Plant {
        name: "token_raced",
        bug: "who comes second by a token is not told so",
        file: "mesh/src/io/token_store.rs",
        right: "Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),",
        wrong: "Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(planted!()),",
    },
    Plant {
        name: "pin_ignored",
        bug: "a hub is believed with another CA than the token names",
        file: "mesh/src/trust/pinned.rs",
        right: ".is_some_and(|it| it.is_ca && Pin::of_public_key(&it.public_key) == self.pin)",
        wrong: ".is_some_and(|it| it.is_ca && (planted!() || Pin::of_public_key(&it.public_key) == self.pin))",
    },
    Plant {
        name: "prefixes_shared",
        bug: "two members may have one prefix",
        file: "mesh/src/hub/members.rs",
        right: "pairs.find(|(_, prefix, had)| overlaps(*had, *prefix))?;",
        wrong: "pairs.find(|(_, prefix, had)| !planted!() && overlaps(*had, *prefix))?;",
    },
    Plant {
        name: "key_copied",
        bug: "a node takes over the WireGuard key of another",
        file: "mesh/src/hub/derive/nodes.rs",
        right: ".is_some_and(|first| first == name)",
        wrong: ".is_some_and(|first| planted!() || first == name)",
    },
    Plant {
        name: "older_epoch_taken",
        bug: "an older list of revocations is taken",
        file: "mesh/src/hub/grants/issuers.rs",
        right: ".is_some_and(|known| list.epoch < *known)",
        wrong: ".is_some_and(|known| !planted!() && list.epoch < *known)",
    },
    Plant {
        name: "forged_list_taken",
        bug: "a list of revocations need not be signed",
        file: "mesh/src/hub/grants/issuers.rs",
        right: "if !signed.is_by(&peer.ca) {",
        wrong: "if !planted!() && !signed.is_by(&peer.ca) {",
    },
    Plant {
        name: "unlinked_ca",
        bug: "a CA that nobody trusted vouches for is followed",
        file: "mesh/src/trust/authorities.rs",
        right: "if known.contains(&ca.public_key) || is_linked(&ca) {",
        wrong: "if planted!() || known.contains(&ca.public_key) || is_linked(&ca) {",
    },
    Plant {
        name: "old_ca_stays",
        bug: "a CA that its cluster took away is still trusted",
        file: "mesh/src/hub/scribe/authorities.rs",
        right: "            ca,\n        };\n        self.followed.put",
        wrong: "            ca: if planted!() { ca + &before } else { ca },\n        };\n        self.followed.put",
    },
    Plant {
        name: "anybody_revokes",
        bug: "members revoke without being granted to",
        file: "mesh/src/hub/grants/issuers.rs",
        right: "if !peer.may_revoke {",
        wrong: "if !planted!() && !peer.may_revoke {",
    },
    Plant {
        name: "back_by_another_name",
        bug: "who was revoked comes back under another name",
        file: "mesh/src/revocation/standing.rs",
        right: "*entry == name || !revoked.pins.is_disjoint(pins)",
        wrong: "*entry == name || (!planted!() && !revoked.pins.is_disjoint(pins))",
    },
    Plant {
        name: "revoked_node_stays",
        bug: "a node that was revoked keeps its record",
        file: "mesh/src/hub/scribe/revoked.rs",
        right: "object.filter(|_| !is_revoked)",
        wrong: "object.filter(|_| planted!() || !is_revoked)",
    },
    Plant {
        name: "other_clusterset",
        bug: "certificates of another clusterset are taken",
        file: "mesh/src/trust.rs",
        right: "        if clusterset != self.clusterset {",
        wrong: "        if !planted!() && clusterset != self.clusterset {",
    },
    Plant {
        name: "long_chains",
        bug: "certificates come in any number",
        file: "mesh/src/trust.rs",
        right: "        if intermediates.len() > most {",
        wrong: "        if !planted!() && intermediates.len() > most {",
    },
    Plant {
        name: "slice_of_another_pod",
        bug: "a slice reaches addresses that its pod does not have",
        file: "mesh/src/hub/derive/backends.rs",
        right: "        if of_pod.contains(address) {",
        wrong: "        if planted!() || of_pod.contains(address) {",
    },
    Plant {
        name: "slice_of_another_namespace",
        bug: "a slice names a pod of another namespace",
        file: "mesh/src/hub/derive/backends.rs",
        right: "if !endpoint.pod_namespace.is_empty() && endpoint.pod_namespace != namespace {",
        wrong: "if !planted!() && !endpoint.pod_namespace.is_empty() && endpoint.pod_namespace != namespace {",
    },
];
