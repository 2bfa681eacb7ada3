//! `hawser rekey`: new handshakes, or other pre-shared keys, now.

use super::agent_socket::ask;
use super::{Outcome, print};
use crate::agent_socket;
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

/// Asks the agent for other pre-shared keys with all peers.
pub(super) fn renew_keys(socket: &Path) -> Outcome {
    let peers = renew(socket, &agent_socket::Request::RenewKeys {})?;
    print(&format!(
        "pre-shared keys are derived anew with up to {peers} peers\n"
    ))
}

/// Asks the agent for other keys of all kinds.
pub(super) fn rotate(socket: &Path) -> Outcome {
    let peers = renew(socket, &agent_socket::Request::Rotate {})?;
    print(&format!(
        "this node's keys change, and with them the pre-shared keys with up to {peers} peers; \
         `hawser status` says who still uses the old ones\n"
    ))
}

fn renew(
    socket: &Path,
    request: &agent_socket::Request,
) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let answer = ask(socket, request);
    let answer = answer.map_err(|error| {
        let agent = socket.with_file_name("agent.sock");
        format!(
            "{}: no agent with a hub answers there ({error}); start it, or name its data plane's socket",
            agent.display()
        )
    })?;
    match answer {
        agent_socket::Response::Renewing { peers } => Ok(peers),
        agent_socket::Response::Refused { detail, .. } => Err(detail.into()),
        agent_socket::Response::Status(_)
        | agent_socket::Response::Watching
        | agent_socket::Response::TooSlow => {
            Err("the agent answered something else than about keys".into())
        }
    }
}
