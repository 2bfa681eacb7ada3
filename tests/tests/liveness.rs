//! Peers that are watched die in every way, and their watcher knows within 1.5 s; those that do not die are never dead.

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::send_signal;
use hawser_tests::lab::{Family, Lab, Node, Topology, Wired, wait_until};
use hawser_tests::say;
use hawser_tests::stock;
use hawser_tests::traffic::{Iperf, IperfRun};
use hawser_tests::wire::Direction;
use hawser_tunnel::control::{Request, Response};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::liveness::State;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::status::PeerLiveness;
use nix::sys::signal::Signal;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// From the moment of a death until it is known.
const DEAD: Duration = Duration::from_millis(1_500);
/// From the moment of its end until the peer is used again.
const ALIVE: Duration = Duration::from_secs(1);
/// The same where the peer's processes have to start.
const ALIVE_FROM_START: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
const WATCHER: &str = "east-1";
const PEER: &str = "west-1";

/// Has a node watch a peer, or not.
fn watch(node: &Node, peer: &str, watched: bool) -> Result<()> {
    node.edit_config(|config| {
        let peers = config.peers.iter_mut();
        for entry in peers.filter(|entry| entry.name == peer) {
            entry.watched = Some(watched);
        }
    })
}

/// What one node thinks of another.
struct Look {
    control: ControlClient,
    peer: NodeId,
}

impl Look {
    fn new(node: &Node, peer: &Node) -> Result<Self> {
        let id = format!("{}/{}", peer.cluster_id(), peer.index());
        Ok(Self {
            control: node.control()?,
            peer: id.parse()?,
        })
    }

    /// `None`: it is not watched.
    fn look(&mut self) -> Result<Option<PeerLiveness>> {
        let response = self.control.request(&Request::Liveness)?;
        let Response::Liveness(status) = response else {
            bail!("asked for liveness, got {response:?}");
        };
        Ok(status.peers.get(&self.peer).copied())
    }

    /// Waits until the peer is thought to be `state`; returns how long after `since` that was.
    fn until(&mut self, state: State, since: Instant) -> Result<Duration> {
        loop {
            let now = self.look()?;
            let took = since.elapsed();
            if now.is_some_and(|peer| peer.state == state) {
                return Ok(took);
            }
            ensure!(took < PATIENCE, "not {state} after {took:?}: {now:?}");
            thread::sleep(LOOK);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Death {
    /// Keeper and data plane are killed.
    Process,
    /// The wire loses everything, or one way.
    Link(Direction),
    /// Nothing runs on the host any more.
    Host,
}

impl Death {
    const ALL: [Self; 5] = [
        Self::Process,
        Self::Link(Direction::Both),
        Self::Link(Direction::Out),
        Self::Link(Direction::In),
        Self::Host,
    ];

    /// Kills the peer.
    fn strike(self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::Process => {
                let node = lab.node_mut(PEER);
                let data_plane = node.data_plane_pid().context("no data plane")?;
                node.kill_keeper()?;
                // It may have gone with its keeper.
                send_signal(data_plane, Signal::SIGKILL).ok();
                Ok(())
            }
            Self::Link(direction) => lab.wire(PEER)?.impair(direction, "loss 100%"),
            Self::Host => signal(lab.node(PEER), Signal::SIGSTOP),
        }
    }

    /// Lets it live again.
    fn heal(self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::Process => lab.node_mut(PEER).launch_keeper(),
            Self::Link(_) => lab.wire(PEER)?.clean(),
            Self::Host => signal(lab.node(PEER), Signal::SIGCONT),
        }
    }

    const fn back(self) -> Duration {
        match self {
            Self::Process => ALIVE_FROM_START,
            Self::Link(_) | Self::Host => ALIVE,
        }
    }
}

fn signal(node: &Node, signal: Signal) -> Result<()> {
    let keeper = node.keeper_pid().context("no keeper")?;
    let data_plane = node.data_plane_pid().context("no data plane")?;
    send_signal(keeper, signal)?;
    send_signal(data_plane, signal)
}

/// Median and maximum in milliseconds.
fn figures(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0, Duration::as_millis);
    format!(
        "p50 {} ms, max {} ms",
        ms(times.len() / 2),
        ms(times.len() - 1)
    )
}

/// What a node told of the lives of others, the last of it.
fn told(node: &Node) -> String {
    let log = node.keeper_log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("peer is"))
        .collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// How often a peer that is alive now died since it is watched: never, but where its session ran out while its link was
/// cut, in earlier rounds, and the next handshake had to wait for WireGuard's five seconds. Then it came back by that
/// handshake, this very moment.
fn deaths_for_want_of_a_session(look: &mut Look, watcher: &Node) -> Result<u64> {
    let deaths = look.look()?.context("it is watched")?.deaths;
    let status = watcher.status()?;
    let age = stock::lane(&status, PEER)?["handshakeAgeMs"].as_u64();
    let is_fresh = age.is_some_and(|age| age < 1_000);
    ensure!(
        deaths == 0 || (deaths == 1 && is_fresh),
        "dead without a reason; session of {age:?} ms; told:\n{}",
        told(watcher)
    );
    Ok(deaths)
}

#[test]
fn every_kind_of_death_is_known_in_time_and_ends_at_once() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two().wired(1))?;
    for death in Death::ALL {
        let (mut dead, mut alive) = (Vec::new(), Vec::new());
        for round in 1..=rounds(3, 100) {
            // A watch of its own for each: deaths in a row are damped.
            watch(lab.node(WATCHER), PEER, true)?;
            let mut look = Look::new(lab.node(WATCHER), lab.node(PEER))?;
            look.until(State::Alive, Instant::now())?;
            let before = deaths_for_want_of_a_session(&mut look, lab.node(WATCHER))?;
            // Anywhere between two requests.
            thread::sleep(Duration::from_millis(u64::from(round * 37 % 310)));
            let struck = Instant::now();
            death.strike(&mut lab)?;
            let took = look.until(State::Dead, struck)?;
            ensure!(took <= DEAD, "{death:?} {round}: known after {took:?}");
            dead.push(took);
            let healed = Instant::now();
            death.heal(&mut lab)?;
            let took = look.until(State::Alive, healed)?;
            ensure!(
                took <= death.back(),
                "{death:?} {round}: alive after {took:?}"
            );
            alive.push(took);
            let peer = look.look()?.context("it is watched")?;
            ensure!(
                peer.deaths == before + 1,
                "{death:?} {round}: {peer:?}; told:\n{}",
                told(lab.node(WATCHER))
            );
            watch(lab.node(WATCHER), PEER, false)?;
            wait_until("nobody is watched", PATIENCE, || Ok(look.look()?.is_none()))?;
        }
        say(format_args!(
            "{death:?}: dead after {}; alive after {}",
            figures(&mut dead),
            figures(&mut alive)
        ));
    }
    Ok(())
}

#[test]
fn status_and_the_agent_tell_of_a_death() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    let watcher = lab.node(WATCHER);
    let state = || -> Result<Option<String>> {
        let status = watcher.status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let peer = peers.iter().find(|peer| peer["name"] == PEER);
        let state = peer.context("no such peer")?["liveness"]["state"].as_str();
        Ok(state.map(str::to_owned))
    };
    ensure!(state()?.is_none(), "it is not watched");
    watch(watcher, PEER, true)?;
    wait_until("status says alive", PATIENCE, || {
        Ok(state()?.as_deref() == Some("alive"))
    })?;
    lab.wire(PEER)?.cut(Direction::Both)?;
    wait_until("status says dead", PATIENCE, || {
        Ok(state()?.as_deref() == Some("dead"))
    })?;
    let says = |text: &str| {
        wait_until(&format!("the agent says {text:?}"), PATIENCE, || {
            Ok(watcher.agent_log().contains(text))
        })
    };
    says("peer is dead")?;
    lab.wire(PEER)?.clean()?;
    wait_until("status says alive", PATIENCE, || {
        Ok(state()?.as_deref() == Some("alive"))
    })?;
    let log = watcher.keeper_log();
    ensure!(log.contains("peer is dead") && log.contains("peer is alive"));
    Ok(())
}

/// A process that takes all CPU it can get. Dropping it ends it.
struct Hog(Child);

impl Hog {
    fn start() -> Result<Self> {
        let mut command = Command::new("sh");
        let command = command.args(["-c", "while :; do :; done"]);
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.context("failed to start a busy loop")?))
    }

    fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A starved CPU, a full load and a bad link are no death.
#[test]
fn load_starvation_and_loss_are_never_taken_for_death() -> Result<()> {
    let mut topology = Topology::two_by_two();
    (topology.underlay.wired, topology.underlay.seed) = (Wired::Nodes(vec![PEER.to_owned()]), 1);
    let lab = Lab::running(topology)?;
    let pairs = [(WATCHER, PEER), (WATCHER, "west-2"), ("west-2", WATCHER)];
    let mut looks = Vec::new();
    for (node, peer) in pairs {
        watch(lab.node(node), peer, true)?;
        let mut look = Look::new(lab.node(node), lab.node(peer))?;
        look.until(State::Alive, Instant::now())?;
        looks.push((node, peer, look));
    }
    let wire = lab.wire(PEER)?;
    wire.impair(Direction::Both, "loss 5%")?;
    wire.rewind(None)?;
    let seconds = rounds(15, 30 * 60);
    let run = |to: &str| -> Result<IperfRun> {
        let (to, from) = (lab.pod(to), lab.pod("east-1-a"));
        let address = to.address(Family::V4).context("no IPv4 address")?;
        Iperf::new(address, seconds).start(to.netns(), from.netns())
    };
    let mut full = run("west-2-a")?;
    let lossy = run("west-1-a")?;
    let mut hogs = [Hog::start()?, Hog::start()?];
    let mut longest = [0; 3];
    while full.is_running() {
        for ((_, _, look), longest) in looks.iter_mut().zip(&mut longest) {
            let peer = look.look()?.context("it is watched")?;
            *longest = peer.last_reply_ms.unwrap_or(0).max(*longest);
        }
        thread::sleep(LOOK);
    }
    ensure!(hogs.iter_mut().all(Hog::is_running), "a busy loop ended");
    drop(hogs);
    let (full, lossy) = (full.finish()?, lossy.finish()?);
    let lost = wire
        .counts()?
        .kind(Direction::Both, hawser_tests::wire::Kind::Data)
        .lost;
    ensure!(lost > 0, "the wire did nothing");
    for ((node, peer, look), longest) in looks.iter_mut().zip(longest) {
        let liveness = look.look()?.context("it is watched")?;
        say(format_args!(
            "{node} watched {peer} for {seconds} s: {} deaths, longest silence {longest} ms, round trip {} us",
            liveness.deaths,
            liveness.round_trip_us.unwrap_or(0)
        ));
        ensure!(
            liveness.deaths == 0 && liveness.state == State::Alive,
            "{node} takes {peer} for dead: {liveness:?}"
        );
    }
    say(format_args!(
        "full load {:.0} Mbit/s, over the bad link {:.0} Mbit/s, {lost} messages lost",
        full.bits_per_second / 1e6,
        lossy.bits_per_second / 1e6
    ));
    Ok(())
}
