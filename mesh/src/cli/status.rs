//! `hawser status`: what the data plane says of itself, and the agent of the keys with its peers.

mod keys;

use super::{Outcome, Output, print};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::liveness::State;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::offload::Standing;
use hawser_tunnel::status::{PeerLiveness, PeerStatus, Status};
use keys::PeerKeys;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Asks and prints.
pub(super) fn run(socket: &Path, output: Output) -> Outcome {
    let mut client = ControlClient::connect(socket, Role::Operator)?;
    let Response::Status(status) = client.request(&Request::Status)? else {
        return Err("hawser-tunnel answered something else than its status".into());
    };
    let keys = PeerKeys::ask(socket);
    match output {
        Output::Json => print(&(serde_json::to_string_pretty(&keys.json(&status)?)? + "\n")),
        Output::Table => print(&text(&status, &keys)?),
    }
}

fn text(status: &Status, keys: &PeerKeys) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let node = status
        .node
        .map_or_else(|| "not told yet".to_owned(), |node| node.to_string());
    let revision = status
        .revision
        .map_or_else(|| "none".to_owned(), |revision| revision.number.to_string());
    let agent = if status.agent_connected {
        "connected"
    } else {
        "not connected"
    };
    writeln!(
        text,
        "node      {node}, device {}, port {}",
        status.device, status.port
    )?;
    writeln!(
        text,
        "process   hawser-tunnel {}, up {}, pids {} (keeper) {} (data plane)",
        status.version,
        age(status.uptime_ms),
        status.pids.keeper,
        status.pids.data_plane
    )?;
    writeln!(text, "agent     {agent}, state revision {revision}")?;
    writeln!(text, "key       {}", status.public_keys.join(" "))?;
    if let Some(change) = &status.key_change {
        writeln!(
            text,
            "old key   {}, since {}; peers that have not shown that they know the new one: {}, with a session by the old: {}",
            change.old_public_keys.join(" "),
            age(change.age_ms),
            named(&change.late),
            named(&change.in_use)
        )?;
    }
    let lanes = status.lanes;
    if lanes.all > 1 {
        writeln!(text, "lanes     {}, {} open", lanes.all, lanes.open)?;
    }
    let counters = &status.counters;
    writeln!(
        text,
        "traffic   sent {} packets {}, received {} packets {}",
        counters.tx_packets,
        bytes(counters.tx_bytes),
        counters.rx_packets,
        bytes(counters.rx_bytes)
    )?;
    for (offload, standing) in &status.offloads {
        if *standing != Standing::Used {
            writeln!(text, "without   {offload}: {standing}")?;
        }
    }
    writeln!(text, "\n{}", peers(&status.peers, keys))?;
    let failures: Vec<_> = keys.failures().collect();
    if !failures.is_empty() {
        let mut table = bare();
        table.set_header(["NO NEWER KEYS WITH", "BECAUSE"]);
        for (peer, why) in failures {
            table.add_row([peer.to_string(), why.to_owned()]);
        }
        writeln!(text, "\n{table}")?;
    }
    for (title, rows) in [
        ("DROPPED BECAUSE", &counters.drops),
        ("KEPT OFF BY GUARD", &counters.guard),
    ] {
        if !rows.is_empty() {
            writeln!(text, "\n{}", counts(title, rows))?;
        }
    }
    Ok(trimmed(&text))
}

/// Without blanks at the ends of lines: columns are padded to their width, also the last.
pub(super) fn trimmed(text: &str) -> String {
    let lines = text.lines().map(str::trim_end);
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn peers(peers: &[PeerStatus], keys: &PeerKeys) -> Table {
    let mut table = bare();
    let watched = peers.iter().any(|peer| peer.liveness.is_some());
    let mut header = vec![
        "NAME",
        "ID",
        "ENDPOINT",
        "HANDSHAKE",
        "RX",
        "TX",
        "MTU4",
        "MTU6",
    ];
    // Only where somebody is.
    header.extend(watched.then_some("LIVENESS"));
    let keyed = keys.matter(peers);
    header.extend(keyed.then_some("POST-QUANTUM"));
    table.set_header(header);
    for peer in peers {
        for (at, lane) in peer.lanes.iter().enumerate() {
            let name = if peer.foreign {
                format!("{} (foreign)", peer.name)
            } else {
                peer.name.clone()
            };
            // Further lanes stand below the first.
            let name = if at == 0 {
                name
            } else {
                format!("  lane {at}")
            };
            let mut row = vec![
                name,
                peer.id.to_string(),
                lane.endpoint
                    .map_or_else(|| "unknown".to_owned(), |endpoint| endpoint.to_string()),
                lane.handshake_age_ms.map_or_else(
                    || "none".to_owned(),
                    |age_ms| format!("{} ago", age(age_ms)),
                ),
                bytes(lane.rx_bytes),
                bytes(lane.tx_bytes),
                peer.pod_mtu.ipv4.to_string(),
                peer.pod_mtu.ipv6.to_string(),
            ];
            let of_peer = peer.liveness.filter(|_| at == 0);
            row.extend(watched.then(|| of_peer.map(liveness).unwrap_or_default()));
            let of_peer = || match at {
                0 => keys.shown(peer),
                _ => String::new(),
            };
            row.extend(keyed.then(of_peer));
            table.add_row(row);
        }
    }
    // Figures; what comes before and behind them is text.
    for column in table.column_iter_mut().skip(3).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// How many peers, and a few of them.
fn named(peers: &[NodeId]) -> String {
    const FEW: usize = 3;
    let few: Vec<_> = peers.iter().take(FEW).map(NodeId::to_string).collect();
    let more = if peers.len() > FEW { ", ..." } else { "" };
    match few.as_slice() {
        [] => "0".to_owned(),
        few => format!("{} ({}{more})", peers.len(), few.join(", ")),
    }
}

/// The state, and the figure that matters in it.
fn liveness(peer: PeerLiveness) -> String {
    let figure = match peer.state {
        State::Unknown => None,
        State::Alive => peer.round_trip_us.map(round_trip),
        State::Dead => peer.last_reply_ms.map(age),
        State::Damped => Some(format!("held {}", age(peer.hold_down_ms))),
    };
    figure.map_or_else(
        || peer.state.to_string(),
        |figure| format!("{} {figure}", peer.state),
    )
}

fn round_trip(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us / 100 % 10)
}

fn counts(title: &str, rows: &BTreeMap<String, u64>) -> Table {
    let mut table = bare();
    table.set_header([title, "PACKETS"]);
    for (reason, packets) in rows {
        table.add_row([reason.clone(), packets.to_string()]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table without lines, as `kubectl` prints them.
pub(super) fn bare() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// A time span in its two largest units.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// An amount in the largest binary unit that it fills, cut to one decimal.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let filled = UNITS
        .iter()
        .enumerate()
        .take_while(|(at, _)| count >> (10 * (at + 1)) > 0);
    let Some((at, unit)) = filled.last() else {
        return format!("{count} B");
    };
    let tenths = (u128::from(count) * 10) >> (10 * (at + 1));
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
