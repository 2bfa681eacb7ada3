//! `hawser rekey`: new handshakes, now.

use super::{Outcome, print};
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::node::NodeId;
use std::path::Path;

/// Asks for new handshakes with one peer, or with all.
pub(super) fn run(socket: &Path, peer: Option<NodeId>) -> Outcome {
    let mut client = ControlClient::connect(socket, Role::Operator)?;
    let response = client.request(&Request::Rekey { peer })?;
    if let Response::Refused { detail, .. } = response {
        return Err(detail.into());
    }
    let Response::Rekeying { lanes } = response else {
        return Err("hawser-tunnel answered something else than about handshakes".into());
    };
    print(&format!("handshakes started: {lanes}\n"))
}
