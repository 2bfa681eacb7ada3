//! `hawser revoke`: has the hub cut off a member or a node. `hawser readmit`: lets it in again.

use super::hub_socket::HubSocket;
use super::{Outcome, print};
use crate::hub::admin::Request;
use crate::revocation::Kind;
use clap::Args;
use serde::Deserialize;

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    hub: HubSocket,
    /// Which of both, where a cluster and a node have that name, or nobody has it yet.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The name of a member, or of a node of this cluster.
    name: String,
}

/// Who was cut off, or let in again.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cut {
    name: String,
    kind: Kind,
    epoch: u64,
    is_published: bool,
}

pub(super) fn revoke(args: &RevokeArgs) -> Outcome {
    let request = Request::Revoke {
        name: args.name.clone(),
        kind: args.kind,
    };
    let cut: Cut = serde_json::from_value(args.hub.ask(&request, "revoked")?)?;
    print(&revoked(&cut))
}

pub(super) fn readmit(args: &RevokeArgs) -> Outcome {
    let request = Request::Readmit {
        name: args.name.clone(),
        kind: args.kind,
    };
    let cut: Cut = serde_json::from_value(args.hub.ask(&request, "readmitted")?)?;
    print(&readmitted(&cut))
}

fn revoked(cut: &Cut) -> String {
    let name = &cut.name;
    match (cut.kind, cut.is_published) {
        (Kind::Node, _) => format!(
            "node {name} is revoked: no hub serves it, no node anywhere has it as a peer, its prefixes stay blocked.\n\
             `hawser readmit {name}` undoes it; what the node knew, it still knows: give it new keys first.\n"
        ),
        (Kind::Cluster, true) => format!(
            "cluster {name} is revoked, epoch {}: no hub or node of this cluster speaks with it, its prefixes stay blocked.\n\
             Members whose grant lets this cluster revoke (mayRevoke) cut it off, too. `hawser readmit {name}` undoes it.\n",
            cut.epoch
        ),
        (Kind::Cluster, false) => format!(
            "cluster {name} is revoked: no hub or node of this cluster speaks with it, its prefixes stay blocked.\n\
             This hub has no key of a CA to sign with (its file has a tls section), so members are not told: revoke it there, too.\n"
        ),
    }
}

fn readmitted(cut: &Cut) -> String {
    let Cut { name, kind, .. } = cut;
    match kind {
        Kind::Node => format!("node {name} is let in again, as the hub's source has it\n"),
        Kind::Cluster => format!(
            "cluster {name} is let in again: it is a member where a ClusterPeer says so, or once it joins\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_how_far_it_reaches() {
        let cut = |kind, is_published| Cut {
            name: "west".to_owned(),
            kind,
            epoch: 7,
            is_published,
        };
        for (told, said) in [
            (
                revoked(&cut(Kind::Cluster, true)),
                "revoked, epoch 7: no hub",
            ),
            (revoked(&cut(Kind::Cluster, false)), "members are not told"),
            (
                revoked(&cut(Kind::Node, true)),
                "no node anywhere has it as a peer",
            ),
            (
                readmitted(&cut(Kind::Node, true)),
                "node west is let in again",
            ),
            (
                readmitted(&cut(Kind::Cluster, true)),
                "cluster west is let in again",
            ),
        ] {
            assert!(told.contains(said) && told.ends_with('\n'), "{told}");
        }
    }
}
