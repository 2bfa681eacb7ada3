//! The control socket of a running data plane: whole states and changes, acknowledged, versioned and
//! idempotent; refusals by name that change nothing; root alone.

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tests::lab::{Lab, Node, Topology};
use hawser_tunnel::control::{CaptureRequest, PROTOCOL, Refusal, Request, Response, Role};
use hawser_tunnel::identity::Identity;
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::io::message;
use hawser_tunnel::state::{Change, Revision, State};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A lab whose agent on east-1 was stopped, and a connection in its place.
fn in_the_agents_place() -> Result<(Lab, ControlClient)> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    lab.node_mut("east-1").stop_agent()?;
    let client = ControlClient::connect(&lab.node("east-1").tunnel_socket(), Role::Agent)?;
    Ok((lab, client))
}

fn revision(client: &mut ControlClient) -> Result<Revision> {
    let response = client.request(&Request::Revision)?;
    let Response::Revision(Some(revision)) = response else {
        bail!("asked for the revision, got {response:?}");
    };
    Ok(revision)
}

fn state(client: &mut ControlClient) -> Result<State> {
    let response = client.request(&Request::State)?;
    let Response::State(Some(state)) = response else {
        bail!("asked for the state, got {response:?}");
    };
    Ok(*state)
}

fn refusal(response: &Response) -> Result<(Refusal, &str)> {
    let Response::Refused { reason, detail } = response else {
        bail!("not refused: {response:?}");
    };
    Ok((*reason, detail))
}

#[test]
fn states_are_acknowledged_versioned_and_idempotent() -> Result<()> {
    let (lab, mut client) = in_the_agents_place()?;
    let start = revision(&mut client)?;
    let old = state(&mut client)?;
    ensure!(old.digest() == start.digest, "the digest is the state's");
    // The same state again changes nothing.
    for _ in 0..3 {
        let response = client.request(&Request::Replace {
            state: Box::new(old.clone()),
        })?;
        ensure!(
            response
                == Response::Applied {
                    revision: start,
                    changed: false
                },
            "{response:?}"
        );
    }
    // A change, acknowledged with the next number.
    let mut new = old.clone();
    new.endpoints
        .insert("10.1.1.77".parse()?, Identity::new(1001)?);
    let change = |from: u64| Request::Change {
        from,
        changes: old.changes_to(&new),
        digest: new.digest(),
    };
    let response = client.request(&change(start.number))?;
    let next = Revision {
        number: start.number + 1,
        digest: new.digest(),
    };
    ensure!(
        response
            == Response::Applied {
                revision: next,
                changed: true
            },
        "{response:?}"
    );
    // The same change again starts from a revision that is not in force any more.
    let response = client.request(&change(start.number))?;
    ensure!(
        refusal(&response)?.0 == Refusal::RevisionGap,
        "{response:?}"
    );
    // It is kept: a data plane that dies comes back with it, and its number.
    lab.node("east-1").kill_data_plane()?;
    drop(client);
    lab.node("east-1").wait_ready(3, PATIENCE)?;
    let mut client = ControlClient::connect(&lab.node("east-1").tunnel_socket(), Role::Agent)?;
    ensure!(
        revision(&mut client)? == next && state(&mut client)? == new,
        "the state was not kept"
    );
    Ok(())
}

#[test]
fn what_is_refused_changes_nothing() -> Result<()> {
    let (lab, mut client) = in_the_agents_place()?;
    let start = revision(&mut client)?;
    let good = state(&mut client)?;
    let mut stray = good.clone();
    stray
        .endpoints
        .insert("10.9.9.9".parse()?, Identity::new(1001)?);
    let response = client.request(&Request::Replace {
        state: Box::new(stray),
    })?;
    ensure!(
        refusal(&response)?
            == (
                Refusal::InvalidState,
                "endpoint 10.9.9.9: lies outside this node's prefixes"
            ),
        "{response:?}"
    );
    let remove = Change::RemoveEndpoint {
        address: "10.1.1.200".parse()?,
    };
    let request = Request::Change {
        from: start.number,
        changes: vec![remove],
        digest: good.digest(),
    };
    let response = client.request(&request)?;
    ensure!(
        refusal(&response)?
            == (
                Refusal::InvalidState,
                "change removes endpoint 10.1.1.200, which is not there"
            ),
        "{response:?}"
    );
    let request = Request::Change {
        from: start.number,
        changes: vec![],
        digest: state(&mut client)?.digest(),
    };
    ensure!(
        client.request(&request)?
            == Response::Applied {
                revision: start,
                changed: false
            },
        "no change is no revision"
    );
    let mut other = good.clone();
    other.endpoints.clear();
    let request = Request::Change {
        from: start.number,
        changes: vec![],
        digest: other.digest(),
    };
    ensure!(
        refusal(&client.request(&request)?)?.0 == Refusal::DigestMismatch,
        "the digest binds"
    );
    // A newer agent takes over; the older one and people are refused.
    let socket = lab.node("east-1").tunnel_socket();
    let mut newer = ControlClient::connect(&socket, Role::Agent)?;
    let mut person = ControlClient::connect(&socket, Role::Operator)?;
    for client in [&mut client, &mut person] {
        let response = client.request(&Request::Replace {
            state: Box::new(good.clone()),
        })?;
        ensure!(
            refusal(&response)?.0 == Refusal::NotTheAgent,
            "{response:?}"
        );
    }
    ensure!(revision(&mut newer)? == start, "something was applied");
    Ok(())
}

/// All or nothing: a state that cannot be kept on disk leaves the old one's guard as it was.
#[test]
fn a_state_that_cannot_be_kept_changes_neither_table_nor_guard() -> Result<()> {
    let (lab, mut client) = in_the_agents_place()?;
    let node = lab.node("east-1");
    let guard = || {
        node.netns()
            .output("nft", &["-s", "list", "table", "inet", "hawser_guard"])
    };
    let (start, before) = (revision(&mut client)?, guard()?);
    let mut other = state(&mut client)?;
    other.guard.mesh.insert("172.31.0.0/16".parse()?);
    let replace = Request::Replace {
        state: Box::new(other),
    };
    // Where the new file would be written stands a directory.
    let blocked = node.state_dir().join("state.json.new");
    std::fs::create_dir(&blocked)?;
    let response = client.request(&replace)?;
    ensure!(
        refusal(&response)?.0 == Refusal::NotPersisted,
        "{response:?}"
    );
    ensure!(revision(&mut client)? == start, "the revision moved");
    ensure!(guard()? == before, "the guard was left changed");
    std::fs::remove_dir(&blocked)?;
    let response = client.request(&replace)?;
    ensure!(
        matches!(response, Response::Applied { changed: true, .. }),
        "{response:?}"
    );
    ensure!(
        guard()?.contains("172.31.0.0/16"),
        "the guard does not hold the new prefix"
    );
    Ok(())
}

#[test]
fn bytes_that_are_no_requests_are_refused_and_hurt_nobody() -> Result<()> {
    let (lab, mut client) = in_the_agents_place()?;
    let node = lab.node("east-1");
    let pid = node.data_plane_pid().context("a data plane")?;
    let connect = || -> Result<UnixStream> {
        let socket = UnixStream::connect(node.tunnel_socket())?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    };
    let answer =
        |socket: &UnixStream| -> Result<Response> { message::read(socket)?.context("hung up") };
    let hello = Request::Hello {
        protocol: PROTOCOL,
        role: Role::Operator,
    };
    let socket = connect()?;
    message::write(&socket, &Request::Status)?;
    ensure!(
        refusal(&answer(&socket)?)?.0 == Refusal::Protocol,
        "hello must come first"
    );
    let socket = connect()?;
    message::write(
        &socket,
        &Request::Hello {
            protocol: PROTOCOL + 1,
            role: Role::Operator,
        },
    )?;
    ensure!(
        refusal(&answer(&socket)?)?
            == (Refusal::Protocol, "protocol 2: this hawser-tunnel speaks 1"),
        "another version"
    );
    for nonsense in [
        "{}",
        "[]",
        "null",
        "\"status\" x",
        "{\"replace\":{}}",
        "{\"change\":{\"from\":-1}}",
        "\u{0}",
        "{\"status\":1}",
    ] {
        let socket = connect()?;
        message::write(&socket, &hello)?;
        answer(&socket)?;
        let length = u32::try_from(nonsense.len())?.to_be_bytes();
        (&socket).write_all(&[&length, nonsense.as_bytes()].concat())?;
        ensure!(
            refusal(&answer(&socket)?)?.0 == Refusal::Malformed,
            "{nonsense}"
        );
        // The connection goes on.
        message::write(&socket, &Request::Revision)?;
        ensure!(
            matches!(answer(&socket)?, Response::Revision(Some(_))),
            "after {nonsense}"
        );
    }
    // A length without an end, half a message, and many who say nothing.
    let socket = connect()?;
    (&socket).write_all(&[0xff; 8])?;
    // It hangs up, with what it did not read still there.
    let hung_up = match (&socket).read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    ensure!(hung_up, "4 GiB were waited for");
    (&connect()?).write_all(&[0, 0, 1, 0, b'{'])?;
    let silent: Vec<_> = (0..64).map(|_| connect()).collect::<Result<_>>()?;
    ensure!(
        revision(&mut client)?.number > 0,
        "an open connection was hurt by {} silent ones",
        silent.len()
    );
    drop(silent);
    ensure!(
        node.data_plane_pid() == Some(pid),
        "the data plane was hurt"
    );
    Ok(())
}

#[test]
fn only_root_may_look_inside() -> Result<()> {
    let (lab, _client) = in_the_agents_place()?;
    let node = lab.node("east-1");
    let mut command: Command = node.hawser(&[
        "status",
        "--socket",
        &node.tunnel_socket().display().to_string(),
    ])?;
    ensure!(command.output()?.status.success(), "root may");
    // The same, without leaving the socket's mode to decide alone.
    let socket = node.tunnel_socket();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let directory = socket.parent().context("a directory")?;
    std::fs::set_permissions(
        directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let mut command = Command::new(hawser_tests::lab::binary("hawser")?);
    command
        .arg("status")
        .arg("--socket")
        .arg(&socket)
        .uid(65_534)
        .gid(65_534);
    let output = command.output()?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1) && text.lines().count() == 1,
        "nobody may: {text}"
    );
    Ok(())
}

/// What goes over the wire is found again inside, by its WireGuard counter, with the pod's own bytes.
#[test]
fn a_capture_shows_what_is_inside_for_one_peer() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two())?;
    let node: &Node = lab.node("east-1");
    let client = ControlClient::connect(&node.tunnel_socket(), Role::Operator)?;
    let request = CaptureRequest {
        geneve: true,
        plain: true,
        peer: Some("2/1".parse()?),
        snap_length: 256,
    };
    let mut socket = client.capture(request)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let ping = hawser_tests::traffic::Ping::new(lab.pod("west-1-a").v4()).count(3);
    ensure!(ping.run(lab.pod("east-1-a").netns())?.is_complete(), "ping");
    let elsewhere = hawser_tests::traffic::Ping::new(lab.pod("west-2-a").v4()).count(3);
    ensure!(
        elsewhere.run(lab.pod("east-1-a").netns())?.is_complete(),
        "ping"
    );
    let mut bytes = vec![0; 1 << 20];
    let mut length = 0;
    // Three requests and three replies, at two stages each, of one peer alone.
    let comments = |bytes: &[u8]| {
        bytes
            .windows(9)
            .filter(|window| window == b"wireguard")
            .count()
    };
    while comments(&bytes[..length]) < 12 {
        length += socket.read(&mut bytes[length..])?;
    }
    let text = String::from_utf8_lossy(&bytes[..length]);
    ensure!(
        text.matches("peer=2/1").count() == 12 && !text.contains("peer=2/2"),
        "other peers were shown"
    );
    Ok(())
}
