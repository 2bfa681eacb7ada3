//! A node that leaves to its hub who it is.

use crate::data_plane::DataPlane;
use crate::ground::{Ground, SOON, complaint, show, until, within};
use crate::hub::{Authority, FIRST, Hub, SECOND, node, records};
use hawser_mesh::agent_socket::{Request, Response, StatusReply, WatchLine};
use hawser_mesh::kept::Kept;
use hawser_mesh::record::{Key, Revision, Version};
use hawser_mesh::wire::encode_record;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const FILE: &str = "cluster: { name: east }
node: { name: east-1 }
tunnel: { socket: SOCKET }
underlay: { devices: [eth0] }
hub: { addresses: [HUBS], ca: ca.crt, certificate: node.crt, key: node.key, stateDirectory: STATE }
";

fn state_directory(ground: &Ground) -> PathBuf {
    ground.folder.path().join("state")
}

fn configure(ground: &Ground, hubs: &[&str]) {
    let hubs: Vec<String> = hubs.iter().map(|hub| format!("'{hub}'")).collect();
    let text = FILE.replace("HUBS", &hubs.join(", "));
    ground.configure(&text.replace("STATE", &show(&state_directory(ground))));
}

fn ready() -> (Ground, Authority) {
    let ground = Ground::new();
    ground.add_tap();
    let authority = Authority::new(ground.folder.path());
    (ground, authority)
}

/// Asks the agent's socket; the lines that follow can be read.
fn ask(ground: &Ground, request: &Request) -> Option<(Response, BufReader<UnixStream>)> {
    let mut stream = UnixStream::connect(ground.folder.path().join("agent.sock")).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut line = serde_json::to_vec(request).ok()?;
    line.push(b'\n');
    stream.write_all(&line).ok()?;
    let mut stream = BufReader::new(stream);
    Some((read(&mut stream), stream))
}

fn read<T: serde::de::DeserializeOwned>(stream: &mut BufReader<UnixStream>) -> T {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

pub(crate) fn status(ground: &Ground) -> Option<StatusReply> {
    let (answer, _) = ask(ground, &Request::Status { digest: true })?;
    let Response::Status(status) = answer else {
        panic!("{answer:?}")
    };
    Some(*status)
}

fn is_connected(ground: &Ground) -> bool {
    status(ground).is_some_and(|status| status.hub.connected)
}

fn peers(data_plane: &DataPlane) -> Vec<String> {
    let in_force = data_plane.in_force();
    let peers = in_force.into_iter().flat_map(|(_, state)| state.peers);
    peers.map(|(id, _)| id.to_string()).collect()
}

/// How many local addresses are in force: the router's is there from the start, a pod's once it was asked for.
fn endpoints(data_plane: &DataPlane) -> usize {
    let in_force = data_plane.in_force();
    in_force.map_or(0, |(_, state)| state.endpoints.len())
}

#[test]
fn a_node_takes_all_from_its_hub_and_tells_its_keys() {
    let (ground, authority) = ready();
    let hub = Hub::start(&ground, &authority, FIRST);
    hub.set(1, &records());
    configure(&ground, &[FIRST]);
    let data_plane = DataPlane::start(&ground);
    let agent = ground.start_agent();
    until("the peer is in force", || peers(&data_plane) == ["1/2"]);
    until("its pods are", || endpoints(&data_plane) == 2);
    let (_, state) = data_plane.in_force().unwrap();
    assert_eq!(state.node.to_string(), "1/1");
    until("there is a route", || {
        let routes = ground.ip("route");
        routes.contains("10.1.2.0/24 via 169.254.1.1 dev hawser0 proto 72 src 10.1.1.1")
    });
    until("the hub knows its keys", || !hub.announced().is_empty());
    let lanes = hub.announced();
    assert_eq!(lanes[0].public_key.as_bytes(), &[9; 32]);
    assert_eq!(
        lanes[0].peer_endpoint,
        Some("192.0.2.1:51820".parse().unwrap())
    );

    hub.set(2, &[node(3)]);
    until("another node came", || peers(&data_plane) == ["1/2", "1/3"]);
    hub.write(3, vec![(Key::node(NodeIndex::new(2).unwrap()), None)]);
    until("a node went", || peers(&data_plane) == ["1/3"]);
    until("its route went", || {
        !ground.ip("route").contains("10.1.2.0/24")
    });

    until("the status tells it", || {
        let status = status(&ground).unwrap();
        status.hub.connected
            && status.node.peers == 1
            && status.node.id.is_some_and(|id| id.to_string() == "1/1")
            && status.origins.len() == 1
            && status.origins[0].synced
            && status.origins[0].version == "1.3"
    });
    assert!(agent.stop().success());
}

#[test]
fn a_node_whose_hubs_are_away_starts_from_what_it_kept() {
    let (ground, _authority) = ready();
    let origin = ClusterId::new(1).unwrap();
    let (kept, _) = Kept::open(&state_directory(&ground).join("kept.redb")).unwrap();
    let changes = records().into_iter().map(|record| {
        let value = encode_record(&record);
        (record.key(), Some((Revision(1), value)))
    });
    kept.note(origin, Version::new(1, 1), true, changes);
    drop(kept);
    configure(&ground, &["192.0.2.99:7443"]);
    let data_plane = DataPlane::start(&ground);
    let agent = ground.start_agent();
    agent.says("begins with what was kept");
    until("the peer is in force", || peers(&data_plane) == ["1/2"]);
    until("there is a route", || {
        ground.ip("route").contains("10.1.2.0/24")
    });
    until("there is a guard", || {
        ground
            .run("nft", &["list", "ruleset"])
            .contains("10.1.0.0/16")
    });
    assert!(!is_connected(&ground));
    agent.says("no hub answers; what was heard holds");
}

#[test]
fn a_node_that_was_told_nothing_says_what_it_waits_for_and_changes_nothing() {
    let (ground, _authority) = ready();
    configure(&ground, &["192.0.2.99:7443"]);
    let data_plane = DataPlane::start(&ground);
    ground.ip("route add unreachable 10.9.0.0/16 proto 72");
    let agent = ground.start_agent();
    agent.says("nothing was kept; a hub must tell everything");
    agent.says("waiting for a hub to tell of this node's cluster");
    agent.says("data plane connected");
    agent.says("no hub answers; what was heard holds");
    let status = status(&ground).unwrap();
    assert_eq!(status.node.waiting.as_deref(), Some("waits_for_cluster"));
    assert!(status.origins.is_empty());
    assert!(data_plane.in_force().is_none());
    assert!(
        !data_plane
            .requests()
            .iter()
            .any(|it| it == "replace" || it == "change")
    );
    assert!(ground.ip("route").contains("unreachable 10.9.0.0/16"));
}

#[test]
fn a_hub_that_dies_costs_nothing_and_the_next_one_is_asked() {
    let (ground, authority) = ready();
    let first = Hub::start(&ground, &authority, FIRST);
    first.set(1, &records());
    configure(&ground, &[FIRST, SECOND]);
    let data_plane = DataPlane::start(&ground);
    let agent = ground.start_agent();
    until("the peer is in force", || peers(&data_plane) == ["1/2"]);
    until("its pods are", || endpoints(&data_plane) == 2);
    agent.says("kernel stands");
    until("all is told", || status(&ground).unwrap().origins[0].synced);
    data_plane.requests();
    let monitor = ground.monitor();

    drop(first);
    agent.says("hub lost; what was heard holds");
    let second = Hub::start(&ground, &authority, SECOND);
    second.set(1, &records());
    within(Duration::from_secs(2), "the other one is asked", || {
        is_connected(&ground)
    });
    until("all is as the other one has it", || {
        status(&ground).unwrap().origins[0].synced
    });
    assert_eq!(status(&ground).unwrap().hub.sessions, 2);
    second.set(2, &[node(3)]);
    until("it tells what is new", || {
        peers(&data_plane) == ["1/2", "1/3"]
    });
    let asked = data_plane.requests();
    let told = asked
        .iter()
        .filter(|it| *it == "replace" || *it == "change");
    assert_eq!(told.count(), 1, "only of the new node: {asked:?}");
    let changes = monitor.changes();
    let other = |line: &&String| !line.contains("10.1.3.0/24");
    assert_eq!(
        changes.iter().filter(other).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );

    // After a restart it begins where it was.
    assert!(agent.stop().success());
    drop(second);
    let agent = ground.start_agent();
    agent.says("begins with what was kept");
    until("the state is as it was", || {
        let asked = data_plane.requests();
        asked.iter().any(|it| it == "revision")
    });
    assert_eq!(peers(&data_plane), ["1/2", "1/3"]);
}

#[test]
fn who_watches_hears_of_records_as_they_come() {
    let (ground, authority) = ready();
    let hub = Hub::start(&ground, &authority, FIRST);
    hub.set(1, &records());
    configure(&ground, &[FIRST]);
    let _agent = ground.start_agent();
    until("it is connected", || is_connected(&ground));
    until("all is told", || {
        !status(&ground).unwrap().origins.is_empty()
    });
    let watch = Request::Watch {
        prefixes: vec!["node".to_owned()],
        values: true,
    };
    let (answer, mut lines) = ask(&ground, &watch).unwrap();
    assert_eq!(answer, Response::Watching);
    let identity = records().remove(3);
    hub.write(2, vec![(identity.key(), None)]);
    hub.set(3, &[node(3)]);
    hub.write(4, vec![(node(3).key(), None)]);
    let WatchLine::Apply { key, value, .. } = read(&mut lines) else {
        panic!("no record")
    };
    assert_eq!(key, node(3).key().to_string());
    assert_eq!(value.unwrap().len(), encode_record(&node(3)).len() * 2);
    assert!(
        matches!(read(&mut lines), WatchLine::Delete { key, .. } if key == node(3).key().to_string())
    );

    let unknown = Request::Watch {
        prefixes: vec!["nodes".to_owned()],
        values: false,
    };
    assert!(matches!(
        ask(&ground, &unknown).unwrap().0,
        Response::Refused { .. }
    ));
}

#[test]
fn certificates_that_do_not_fit_are_refused_in_one_line() {
    let (ground, _authority) = ready();
    configure(&ground, &[FIRST]);
    let file = show(&ground.config());
    let text = std::fs::read_to_string(ground.config()).unwrap();
    ground.configure(&text.replace("name: east-1", "name: east-2"));
    let path = show(&ground.folder.path().join("node.crt"));
    assert_eq!(
        complaint(&ground.agent_that_ends()),
        format!(
            "error: {file}: hub.certificate: {path}: is that of cluster/east/node/east-1; must be that of cluster/east/node/east-2: issue it with `hawser ca node`"
        )
    );
    ground.configure(&text.replace("ca: ca.crt", "ca: none.crt"));
    let path = show(&ground.folder.path().join("none.crt"));
    assert_eq!(
        complaint(&ground.agent_that_ends()),
        format!(
            "error: {file}: hub.ca: {path}: cannot be read: No such file or directory; correct the path or the permissions"
        )
    );
}
