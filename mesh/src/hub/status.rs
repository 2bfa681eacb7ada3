//! What a hub says of itself: all of it, and of each member what an operator wants to know.

use super::connections::Connections;
use super::core::Core;
use super::joining::{Listed, Rolled};
use crate::join::table::fingerprints;
use crate::trust::Role;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// Everything, as a line.
pub(super) fn status(
    core: &Core,
    digest: bool,
    role: &str,
    ca: Option<Rolled>,
    source: &(usize, Vec<String>),
    connections: &Connections,
    handshakes: &BTreeMap<&'static str, u64>,
) -> String {
    let origin = |id| {
        let store = core.store(id)?;
        Some(json!({
            "cluster": u16::from(id),
            "name": core.name_of(id),
            "version": store.version().to_string(),
            "complete": store.is_complete(),
            "records": store.len(),
            "refused": store.refused(),
            "overQuota": store.is_over_quota(),
            "digest": digest.then(|| store.public_digest().to_string()),
        }))
    };
    let sessions = core.sessions().iter().map(|(id, session)| {
        let (kind, name) = match &session.peer.role {
            Role::Node(name) => ("node", name),
            Role::Hub(name) => ("hub", name),
        };
        json!({
            "session": id,
            "cluster": session.peer.cluster,
            "role": kind,
            "name": name,
            "address": connections.address_of(*id).map(|address| address.to_string()),
            "feedsUs": session.feeds_us,
        })
    });
    let stats = core.stats();
    let refused = core.refused_by_others().iter();
    let refused = refused
        .map(|(by, key, reason)| json!({ "by": by, "key": key.to_string(), "reason": reason }));
    json!({
        "role": role,
        "cluster": core.own().name,
        "ca": ca,
        "version": core.version().to_string(),
        "origins": core.origins().filter_map(origin).collect::<Vec<_>>(),
        "refusals": stats.refusals,
        "refusedByOthers": refused.collect::<Vec<_>>(),
        "refusalsByOthers": core.refused_by_others().counts(),
        "rejects": stats.rejects,
        "unwelcome": connections.refused(),
        "handshakes": handshakes,
        "bytesIn": stats.bytes_in,
        "bytesOut": stats.bytes_out,
        "sessions": sessions.collect::<Vec<_>>(),
        "source": { "objects": source.0, "complaints": source.1 },
    })
    .to_string()
}

/// How it stands with each other cluster, by name.
pub(super) fn standings(
    core: &Core,
    connections: &Connections,
    now: Instant,
) -> BTreeMap<String, Standing> {
    let of_member = |id| {
        let name = core.name_of(id)?;
        let sessions = core.sessions().values();
        let mut sessions = sessions.filter(|session| session.peer.cluster == name);
        let store = core.store(id);
        let heard = connections.heard_of(name);
        let refusals = core.stats().refusals_of.get(&id);
        let standing = Standing {
            is_connected: sessions.any(|session| session.feeds_us),
            heard_s: heard.map(|heard| now.saturating_duration_since(heard).as_secs()),
            records: store.map_or(0, |store| store.len()),
            refused: store.map_or(0, |store| store.refused()),
            refusals: refusals.cloned().unwrap_or_default(),
        };
        Some((name.to_owned(), standing))
    };
    core.members().filter_map(of_member).collect()
}

/// How it stands with another cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    is_connected: bool,
    heard_s: Option<u64>,
    records: usize,
    refused: usize,
    refusals: BTreeMap<&'static str, u64>,
}

/// Members and what is none, each with how it stands.
pub(super) fn clusters(listed: &[Listed], standings: &BTreeMap<String, Standing>) -> Value {
    let entry = |listed: &Listed| {
        let standing = standings.get(&listed.name).cloned().unwrap_or_default();
        let peer = &listed.peer;
        let text = |prefixes: &[ipnet::IpNet]| {
            let texts = prefixes.iter().map(ToString::to_string);
            texts.collect::<Vec<_>>()
        };
        let state = match (&listed.refused, standing.is_connected) {
            (Some(_), _) if listed.is_revoked => "revoked",
            (Some(_), _) => "refused",
            (None, true) => "connected",
            (None, false) => "away",
        };
        json!({
            "name": listed.name,
            "id": u16::from(peer.id),
            "state": state,
            "why": listed.refused,
            "heardSeconds": standing.heard_s,
            "from": if listed.declared { "manifest" } else { "joined" },
            "podCidrs": text(&peer.pod_cidrs),
            "serviceCidrs": text(&peer.service_cidrs),
            "namespaces": peer.namespaces,
            "quotas": peer.quotas,
            "mayRevoke": peer.may_revoke,
            "hubs": peer.hubs,
            "ca": fingerprints(&peer.ca),
            "records": standing.records,
            "refused": standing.refused,
            "refusals": standing.refusals,
        })
    };
    json!({ "clusters": listed.iter().map(entry).collect::<Vec<_>>() })
}
