//! Keys that are not needed any more are nowhere in the memory of the data plane: the test shakes hands with a node, so
//! it knows the session's keys, and looks for them in the process.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::is_soak;
use hawser_tests::io::writable_memory;
use hawser_tests::lab::{Lab, Topology, wait_until};
use hawser_tests::say;
use hawser_tunnel::control::{Request, Response};
use hawser_tunnel::io::key_file;
use hawser_tunnel::key::{PrivateKey, PublicKey};
use hawser_tunnel::lane::LaneNumber;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

mod noise;

use noise::{Initiator, Keys, Secret};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long one packet of the pod may be under way.
const TURN: Duration = Duration::from_millis(500);
/// Our key, and the one that both share. No run of equal bytes: that could be anything.
const OWN: Secret = *b"the erased keys' test's own key.";
const PRESHARED: Secret = *b"the erased keys' pre-shared key.";
/// More handshakes than an engine keeps sessions of.
const HANDSHAKES: usize = 8;
/// Whatever a thread was about with a peer when it was removed is done by then.
const ERASED: Duration = Duration::from_secs(3);
/// WireGuard's REJECT_AFTER_TIME, and the tick after it.
const TOO_OLD: Duration = Duration::from_secs(183);

/// A node, and a peer that this test plays.
struct Known {
    lab: Lab,
    socket: UdpSocket,
    node: PublicKey,
    shaken: u32,
}

impl Known {
    fn meet() -> Result<Self> {
        let topology = Topology::parse(
            "clusters: [{name: east, id: 1, nodes: 1, pods: 1}, {name: west, id: 2, nodes: 1, pods: 1}]",
        )?;
        let mut lab = Lab::new(topology.direct())?;
        lab.configure()?;
        let west = lab.node("west-1");
        let at = west.endpoint();
        let socket = west.netns().run(|| UdpSocket::bind(at))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let east = lab.node("east-1");
        socket.connect(east.endpoint())?;
        let file = east.dir().join("preshared");
        fs::write(&file, base64(&PRESHARED)?)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        east.edit_config(|config| {
            let lane = &mut config.peers[0].lanes[0];
            lane.public_key = PrivateKey::from_random(OWN).public().to_string();
            lane.preshared_key_file = Some(file);
        })?;
        let node = east.public_key()?.parse()?;
        let east = lab.node_mut("east-1");
        east.start_keeper()?;
        east.start_agent()?;
        let known = Self {
            lab,
            socket,
            node,
            shaken: 0,
        };
        wait_until("the node knows us", PATIENCE, || Ok(known.peers()? == 1))
            .with_context(|| known.lab.node("east-1").agent_log())?;
        let east = known.lab.node("east-1");
        wait_until("routes", PATIENCE, || east.route_pods().map(|()| true))?;
        Ok(known)
    }

    fn peers(&self) -> Result<usize> {
        let response = self
            .lab
            .node("east-1")
            .control()?
            .request(&Request::Status)?;
        let Response::Status(status) = response else {
            anyhow::bail!("asked for the status, got {response:?}");
        };
        Ok(status.peers.len())
    }

    /// Shakes hands, proves it, and waits until the node sends on the new session.
    fn shake(&mut self) -> Result<Keys> {
        self.shaken += 1;
        let mut random = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let index = 0x0077_0000 | self.shaken;
        let (began, message) = Initiator::begin(OWN, *self.node.as_bytes(), random, index)?;
        self.socket.send(&message)?;
        let answer = self.receive(2, PATIENCE)?;
        let keys = began.finish(&answer, &PRESHARED)?;
        self.socket.send(&keys.keepalive()?)?;
        // A packet of the pod, so that every thread has had the session in its hands.
        let (pod, other) = (self.lab.pod("east-1-a"), self.lab.pod("west-1-a"));
        let sender = pod.netns().run(|| UdpSocket::bind((pod.v4(), 0)))??;
        wait_until("a message of the new session", PATIENCE, || {
            sender.send_to(b"to nobody", (other.v4(), 9))?;
            let message = self.receive(4, TURN)?;
            Ok(message[4..8] == index.to_le_bytes())
        })?;
        Ok(keys)
    }

    /// The next message of a kind within `time`. The node may begin handshakes of its own, which nobody answers.
    fn receive(&self, kind: u8, time: Duration) -> Result<Vec<u8>> {
        let mut buffer = [0; 2048];
        let end = Instant::now() + time;
        while Instant::now() < end {
            match self.socket.recv(&mut buffer) {
                Ok(length) if buffer[0] == kind => return Ok(buffer[..length].to_vec()),
                Ok(_) => {}
                // Nothing yet, or nobody listened at the node when something was sent before.
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::ConnectionRefused]
                        .contains(&error.kind()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("no message of type {kind} within {time:?}")
    }

    /// Where in the data plane's writable memory each secret is.
    fn find(&self, secrets: &[Secret]) -> Result<Vec<Vec<String>>> {
        let pid = self.lab.node("east-1").data_plane_pid();
        find(pid.context("no data plane")?, secrets)
    }

    /// How often the keys of a session are there.
    fn copies(&self, keys: &Keys) -> Result<[usize; 3]> {
        let found = self.find(&[keys.sending, keys.receiving, keys.chain])?;
        Ok([0, 1, 2].map(|at| found[at].len()))
    }
}

fn base64(bytes: &[u8]) -> Result<String> {
    // The product's own text form, of a key that is not secret.
    let secret = PrivateKey::from_random(bytes.try_into()?);
    Ok(secret.to_base64().to_string())
}

/// Searches everything that a process may write to: heap, stacks of all threads, data. Returns for
/// each secret in which mappings it is.
fn find(pid: i32, secrets: &[Secret]) -> Result<Vec<Vec<String>>> {
    let mut found = vec![Vec::new(); secrets.len()];
    let searched = writable_memory(pid, |range, name, bytes| {
        for (secret, found) in secrets.iter().zip(&mut found) {
            let windows = bytes.windows(secret.len());
            let hits = windows.filter(|window| window == secret);
            found.extend(hits.map(|_| format!("{range} {name}")));
        }
    })?;
    ensure!(searched > 1 << 20, "only {searched} bytes were searched");
    Ok(found)
}

/// The search finds what is there: both keys of a session in use.
fn check_in_use(copies: [usize; 3]) -> Result<()> {
    let [sending, receiving, _] = copies;
    ensure!(
        sending > 0 && receiving > 0,
        "keys in use were not found, so nothing can be said of others: {copies:?}"
    );
    Ok(())
}

#[test]
fn keys_of_sessions_that_others_replaced_are_not_in_memory() -> Result<()> {
    let mut known = Known::meet()?;
    let mut sessions = Vec::new();
    for _ in 0..HANDSHAKES {
        let keys = known.shake()?;
        let copies = known.copies(&keys)?;
        say(format_args!(
            "in use: sending, receiving and chaining key are {copies:?} times in memory"
        ));
        check_in_use(copies)?;
        ensure!(copies[2] == 0, "the chaining key outlived the handshake");
        sessions.push(keys);
    }
    let (first, last) = (sessions[0], sessions[HANDSHAKES - 1]);
    let old = known.copies(&first)?;
    say(format_args!(
        "after {HANDSHAKES} handshakes, of the first: {old:?}"
    ));
    ensure!(old == [0; 3], "keys of a session that is over: {old:?}");
    check_in_use(known.copies(&last)?)
}

#[test]
fn keys_of_a_peer_that_was_removed_are_not_in_memory() -> Result<()> {
    let mut known = Known::meet()?;
    let sessions = [known.shake()?, known.shake()?];
    check_in_use(known.copies(&sessions[1])?)?;
    ensure!(
        !known.find(&[PRESHARED])?[0].is_empty(),
        "the pre-shared key in use was not found"
    );
    let east = known.lab.node("east-1");
    east.edit_config(|config| config.peers.clear())?;
    wait_until("the node has forgotten us", PATIENCE, || {
        Ok(known.peers()? == 0)
    })?;
    let left = || -> Result<_> { Ok([known.copies(&sessions[0])?, known.copies(&sessions[1])?]) };
    let erased = wait_until("their keys are erased", ERASED, || {
        Ok(left()? == [[0; 3]; 2])
    });
    let (left, preshared) = (left()?, known.find(&[PRESHARED])?[0].len());
    say(format_args!(
        "after its peer was removed: {left:?} of two sessions, pre-shared key {preshared}"
    ));
    let places = known.find(&[sessions[1].sending, sessions[1].receiving])?;
    erased.with_context(|| {
        format!("session keys of a peer that was removed: {left:?}, in {places:?}")
    })?;
    ensure!(preshared == 0, "{preshared} copies of its pre-shared key");
    Ok(())
}

/// The node's newest key as it is on disk, and as it is when it is used.
fn own_key(known: &Known) -> Result<[Secret; 2]> {
    let key = key_file::load_or_make(&known.lab.node("east-1").state_dir(), LaneNumber::FIRST)?;
    // A type for keys that are no secret: in this test none is.
    let key: PublicKey = key.to_base64().parse()?;
    let mut used = *key.as_bytes();
    used[0] &= 0xf8;
    used[31] = used[31] & 0x7f | 0x40;
    Ok([*key.as_bytes(), used])
}

#[test]
fn a_key_of_the_nodes_own_that_another_took_the_place_of_is_not_in_memory() -> Result<()> {
    let mut known = Known::meet()?;
    known.shake()?;
    let old = own_key(&known)?;
    known.lab.node("east-1").new_keys()?;
    let new = own_key(&known)?;
    ensure!(old != new, "no other key on disk");
    // By the old key, which the node still has.
    known.shake()?;
    for (key, name) in [(old, "old"), (new, "new")] {
        let found = !known.find(&key)?[0].is_empty();
        ensure!(found, "the {name} key in use was not found");
    }
    let response = known
        .lab
        .node("east-1")
        .control()?
        .request(&Request::ForgetKeys)?;
    ensure!(
        response == Response::KeysForgotten { late: 1 },
        "{response:?}"
    );
    let left = || -> Result<usize> { Ok(known.find(&old)?.iter().map(Vec::len).sum()) };
    let erased = wait_until("the old key is erased", ERASED, || Ok(left()? == 0));
    erased.with_context(|| format!("the old key is in {:?}", known.find(&old)))?;
    ensure!(!known.find(&new)?[0].is_empty(), "the new one is gone too");
    ensure!(own_key(&known)? == new, "another key on disk");
    Ok(())
}

/// In full in a soak only: it takes three minutes. That the engine forgets such a session is shown in tunnel/src/engine.
#[test]
fn keys_of_a_session_that_is_too_old_are_not_in_memory() -> Result<()> {
    let mut known = Known::meet()?;
    let keys = known.shake()?;
    let made = Instant::now();
    check_in_use(known.copies(&keys)?)?;
    if !is_soak() {
        return Ok(());
    }
    wait_until("the session to be too old", TOO_OLD + PATIENCE, || {
        Ok(made.elapsed() >= TOO_OLD)
    })?;
    let copies = known.copies(&keys)?;
    say(format_args!(
        "after {} s: {copies:?}",
        made.elapsed().as_secs()
    ));
    ensure!(copies == [0; 3], "{copies:?}");
    Ok(())
}
