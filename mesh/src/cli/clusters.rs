//! `hawser clusters`: the other clusters, as a hub knows them. `hawser leave`: forgets one that joined.

use super::hub_socket::HubSocket;
use super::status::{age, bare, trimmed};
use super::{Outcome, Output, print};
use crate::hub::admin::Request;
use crate::hub::manifest::QuotaLimits;
use crate::join::table::{namespaces, quotas};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Subcommand)]
pub(super) enum ClustersCommand {
    /// Lists all.
    List(ListArgs),
    /// Shows one.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    hub: HubSocket,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    hub: HubSocket,
    /// The cluster's name.
    name: String,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct LeaveArgs {
    #[command(flatten)]
    hub: HubSocket,
    /// The cluster's name.
    #[arg(value_name = "CLUSTER")]
    name: String,
}

/// A cluster, as a hub tells it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    name: String,
    id: u16,
    state: String,
    why: Option<String>,
    heard_seconds: Option<u64>,
    from: String,
    pod_cidrs: Vec<String>,
    service_cidrs: Vec<String>,
    namespaces: Option<Vec<String>>,
    quotas: QuotaLimits,
    may_revoke: bool,
    hubs: Vec<String>,
    ca: Vec<String>,
    records: u64,
    refused: u64,
    refusals: BTreeMap<String, u64>,
}

pub(super) fn run(command: &ClustersCommand) -> Outcome {
    match command {
        ClustersCommand::List(args) => {
            let all = ask(&args.hub)?;
            match args.output {
                Output::Json => print(&(serde_json::to_string_pretty(&all)? + "\n")),
                Output::Table => print(&list(&all)),
            }
        }
        ClustersCommand::Show(args) => {
            let all = ask(&args.hub)?;
            let one = all.iter().find(|cluster| cluster.name == args.name);
            let one = one.ok_or_else(|| {
                let known: Vec<&str> = all.iter().map(|cluster| cluster.name.as_str()).collect();
                let name = args.name.escape_default();
                format!(
                    "NAME: {name}: is no cluster here; known are: {}",
                    or_none(&known)
                )
            })?;
            match args.output {
                Output::Json => print(&(serde_json::to_string_pretty(one)? + "\n")),
                Output::Table => print(&show(one)?),
            }
        }
    }
}

pub(super) fn leave(args: &LeaveArgs) -> Outcome {
    let name = args.name.clone();
    args.hub.ask(&Request::Leave { name }, "left")?;
    Ok(())
}

fn ask(hub: &HubSocket) -> Result<Vec<Cluster>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(serde_json::from_value(
        hub.ask(&Request::Clusters {}, "clusters")?,
    )?)
}

fn list(all: &[Cluster]) -> String {
    if all.is_empty() {
        return "no other cluster is known\n".to_owned();
    }
    let mut table = bare();
    table.set_header([
        "NAME",
        "ID",
        "STATE",
        "HEARD",
        "POD CIDRS",
        "NAMESPACES",
        "QUOTAS",
        "FROM",
        "RECORDS",
        "REFUSED",
    ]);
    for cluster in all {
        table.add_row([
            cluster.name.clone(),
            cluster.id.to_string(),
            cluster.state.clone(),
            heard(cluster),
            cluster.pod_cidrs.join(","),
            namespaces(cluster.namespaces.as_deref()),
            quotas(&cluster.quotas),
            cluster.from.clone(),
            cluster.records.to_string(),
            cluster.refused.to_string(),
        ]);
    }
    trimmed(&table.to_string())
}

fn show(cluster: &Cluster) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let mut line = |title: &str, value: &str| writeln!(text, "{title:14}{value}");
    line("name", &cluster.name)?;
    line("id", &cluster.id.to_string())?;
    line("state", &cluster.state)?;
    if let Some(why) = &cluster.why {
        line("why", why)?;
    }
    line("heard", &heard(cluster))?;
    line("from", &cluster.from)?;
    line("pod CIDRs", &or_none(&cluster.pod_cidrs))?;
    line("service CIDRs", &or_none(&cluster.service_cidrs))?;
    line("namespaces", &namespaces(cluster.namespaces.as_deref()))?;
    line("quotas", &quotas(&cluster.quotas))?;
    line("may revoke", if cluster.may_revoke { "yes" } else { "no" })?;
    line("hubs", &or_none(&cluster.hubs))?;
    for pin in &cluster.ca {
        line("CA", pin)?;
    }
    let (records, refused) = (cluster.records, cluster.refused);
    line("records", &format!("{records} taken, {refused} refused"))?;
    if !cluster.refusals.is_empty() {
        let mut table = bare();
        table.set_header(["REFUSED BECAUSE", "TIMES"]);
        for (reason, times) in &cluster.refusals {
            table.add_row([reason.clone(), times.to_string()]);
        }
        write!(text, "\n{}", trimmed(&table.to_string()))?;
    }
    Ok(text)
}

fn heard(cluster: &Cluster) -> String {
    cluster.heard_seconds.map_or_else(
        || "never".to_owned(),
        |seconds| format!("{} ago", age(seconds.saturating_mul(1000))),
    )
}

fn or_none<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    if items.is_empty() {
        return "none".to_owned();
    }
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn west() -> Cluster {
        Cluster {
            name: "west".to_owned(),
            id: 2,
            state: "connected".to_owned(),
            why: None,
            heard_seconds: Some(75),
            from: "joined".to_owned(),
            pod_cidrs: vec!["10.2.0.0/16".to_owned()],
            service_cidrs: Vec::new(),
            namespaces: Some(vec!["bank".to_owned(), "shop".to_owned()]),
            quotas: QuotaLimits {
                records: Some(1000),
                ..QuotaLimits::default()
            },
            may_revoke: false,
            hubs: vec!["192.0.2.2:6082".to_owned()],
            ca: vec!["SHA256:02".to_owned()],
            records: 7,
            refused: 1,
            refusals: BTreeMap::from([("namespace_not_granted".to_owned(), 3)]),
        }
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let mut south = west();
        south.name = "south".to_owned();
        south.heard_seconds = None;
        south.namespaces = None;
        south.quotas = QuotaLimits::default();
        let expected = "\x20NAME   ID  STATE      HEARD      POD CIDRS    NAMESPACES      QUOTAS                       FROM    RECORDS  REFUSED
 west   2   connected  1m15s ago  10.2.0.0/16  bank, shop      records=1000                 joined  7        1
 south  2   connected  never      10.2.0.0/16  all namespaces  as the hub has them for all  joined  7        1
";
        assert_eq!(list(&[west(), south]), expected);
        assert_eq!(list(&[]), "no other cluster is known\n");
    }

    #[test]
    fn one_is_shown_with_all_that_there_is() {
        let expected = "\
name          west
id            2
state         connected
heard         1m15s ago
from          joined
pod CIDRs     10.2.0.0/16
service CIDRs none
namespaces    bank, shop
quotas        records=1000
may revoke    no
hubs          192.0.2.2:6082
CA            SHA256:02
records       7 taken, 1 refused

 REFUSED BECAUSE        TIMES
 namespace_not_granted  3
";
        assert_eq!(show(&west()).unwrap(), expected);
    }
}
