//! `hawser new-key`: other WireGuard keys for this node.

use super::{Outcome, print};
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::ControlClient;
use std::path::Path;

/// Begins a change of keys, or with `forget_old` ends one.
pub(super) fn run(socket: &Path, forget_old: bool) -> Outcome {
    let mut client = ControlClient::connect(socket, Role::Operator)?;
    let request = match forget_old {
        true => Request::ForgetKeys,
        false => Request::NewKeys,
    };
    let response = client.request(&request)?;
    if let Response::Refused { detail, .. } = response {
        return Err(detail.into());
    }
    match (forget_old, response) {
        (false, Response::NewKeys { public_keys }) => print(&(public_keys.join("\n") + "\n")),
        (true, Response::KeysForgotten { late }) => {
            print(&format!("peers that may not know the new keys: {late}\n"))
        }
        _ => Err("hawser-tunnel answered something else than about keys".into()),
    }
}
