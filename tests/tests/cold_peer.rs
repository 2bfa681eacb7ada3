//! A peer without a session costs one handshake, once: what waits for it is sent, and what finds no room is counted.

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::{BATCH, send_datagrams};
use hawser_tests::lab::{Lab, Node, Topology};
use hawser_tests::say;
use hawser_tests::wire::Direction;
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::lane::MAX_WAITING;
use hawser_tunnel::reject::Reject;
use hawser_tunnel::state::State;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 7011;
/// Bytes of a packet's payload: its number.
const SIZE: usize = 8;
/// Beyond what the wire takes: processes that wake up on a busy machine.
const MARGIN: Duration = Duration::from_millis(150);

/// Two nodes whose sessions the test ends when it likes. Their agents are stopped: the test says who is a peer.
struct Strangers {
    lab: Lab,
    controls: [ControlClient; 2],
    /// What the agents had told them.
    known: [State; 2],
    from: UdpSocket,
    to: UdpSocket,
}

const NODES: [&str; 2] = ["east-1", "west-1"];

fn state(control: &mut ControlClient) -> Result<State> {
    let response = control.request(&Request::State)?;
    let Response::State(Some(state)) = response else {
        bail!("asked for the state, got {response:?}");
    };
    Ok(*state)
}

fn replace(control: &mut ControlClient, state: &State) -> Result<()> {
    let state = Box::new(state.clone());
    let response = control.request(&Request::Replace { state })?;
    ensure!(
        matches!(response, Response::Applied { .. }),
        "replaced the state, got {response:?}"
    );
    Ok(())
}

impl Strangers {
    /// Nodes with a wire between them on which each packet is `delay` under way.
    fn new(delay: Duration) -> Result<Self> {
        let topology = Topology::parse(
            "clusters: [{name: east, id: 1, nodes: 1, pods: 1}, {name: west, id: 2, nodes: 1, pods: 1}]",
        )?;
        let mut lab = Lab::running(topology.wired(1))?;
        for node in lab.nodes_mut() {
            node.stop_agent()?;
        }
        let delay = format!("delay {}ms", delay.as_millis());
        lab.wire("east-1")?.impair(Direction::Both, &delay)?;
        let connect = |name| ControlClient::connect(&lab.node(name).tunnel_socket(), Role::Agent);
        let [mut east, mut west] = [connect(NODES[0])?, connect(NODES[1])?];
        let known = [state(&mut east)?, state(&mut west)?];
        let bind = |pod: &str, port| -> Result<UdpSocket> {
            let pod = lab.pod(pod);
            let address = SocketAddr::new(pod.v4(), port);
            let socket = pod.netns().run(|| UdpSocket::bind(address))??;
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
            Ok(socket)
        };
        let (from, to) = (bind("east-1-a", 0)?, bind("west-1-a", PORT)?);
        from.connect((lab.pod("west-1-a").v4(), PORT))?;
        Ok(Self {
            controls: [east, west],
            known,
            from,
            to,
            lab,
        })
    }

    fn east(&self) -> &Node {
        self.lab.node(NODES[0])
    }

    /// Ends every session, then makes both know each other again. Only east-1 knows where the other is, so the one
    /// handshake that there is begins with it.
    fn part(&mut self) -> Result<()> {
        for (control, known) in self.controls.iter_mut().zip(&self.known) {
            let mut alone = known.clone();
            alone.peers.clear();
            replace(control, &alone)?;
        }
        let [east, west] = &mut self.controls;
        let mut passive = self.known[1].clone();
        for lane in passive.peers.values_mut().flat_map(|peer| &mut peer.lanes) {
            lane.endpoint = None;
        }
        replace(west, &passive)?;
        replace(east, &self.known[0])
    }

    /// Sends packets with numbers from `first` on, and says whether there was no session yet behind the last.
    fn send(&self, first: u64, count: usize) -> Result<bool> {
        let numbers: Vec<u8> = (first..).take(count).flat_map(u64::to_be_bytes).collect();
        for batch in numbers.chunks(BATCH * SIZE) {
            let taken = send_datagrams(&self.from, batch, SIZE)?;
            ensure!(taken * SIZE == batch.len(), "the pod's kernel took {taken}");
        }
        Ok(self.east().handshakes()? == 0)
    }

    /// The number of the next packet that arrives within `time`.
    fn receive(&self, time: Duration) -> Result<Option<u64>> {
        self.to.set_read_timeout(Some(time))?;
        let mut bytes = [0; SIZE];
        match self.to.recv(&mut bytes) {
            Ok(SIZE) => Ok(Some(u64::from_be_bytes(bytes))),
            Ok(other) => bail!("{other} bytes arrived"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[test]
fn the_first_packet_to_a_cold_peer_takes_one_handshake() -> Result<()> {
    let delay = Duration::from_millis(20);
    let mut nodes = Strangers::new(delay)?;
    let (mut times, mut warm) = (Vec::new(), 0);
    let count = rounds(20, 500);
    for number in 0..u64::from(count) {
        nodes.part()?;
        let sent = Instant::now();
        let cold = nodes.send(number, 1)?;
        let arrived = nodes.receive(PATIENCE)?;
        let took = sent.elapsed();
        ensure!(
            arrived == Some(number),
            "packet {number} was lost, {arrived:?} came: {:?}",
            nodes.east().counters()?.drops
        );
        if cold {
            times.push(took);
        } else {
            warm += 1;
        }
    }
    times.sort();
    let (median, longest) = (times.get(times.len() / 2), times.last());
    let (median, longest) = median.zip(longest).context("never cold")?;
    say(format_args!(
        "{count} first packets, {warm} of them too late to wait: {} ms, {} ms at most, over {} ms each way",
        median.as_millis(),
        longest.as_millis(),
        delay.as_millis()
    ));
    ensure!(times.len() * 2 > warm, "only {} were cold", times.len());
    // There and back for the keys, and there with the packet; WireGuard's own pace would be five seconds.
    let least = 3 * delay;
    ensure!(
        *median <= least + delay,
        "{median:?} is more than a handshake"
    );
    ensure!(*longest <= least + MARGIN, "{longest:?} is too long");
    Ok(())
}

#[test]
fn what_finds_no_room_behind_a_cold_peer_is_counted_and_the_rest_arrives() -> Result<()> {
    // Long enough for the whole burst.
    let mut nodes = Strangers::new(Duration::from_millis(150))?;
    for (round, beyond) in (1..).zip([0, 1, 300]) {
        let full = || nodes.lab.node(NODES[0]).dropped(Reject::QueueFull);
        let before = full()?;
        nodes.part()?;
        let first = round << 32;
        let cold = nodes.send(first, MAX_WAITING + beyond)?;
        ensure!(cold, "the burst took longer than the handshake");
        let mut arrived = Vec::new();
        while let Some(number) = nodes.receive(Duration::from_secs(2))? {
            arrived.push(number - first);
        }
        let counted = nodes.lab.node(NODES[0]).dropped(Reject::QueueFull)? - before;
        say(format_args!(
            "a burst of {}: {} arrived, {counted} counted as queue_full",
            MAX_WAITING + beyond,
            arrived.len()
        ));
        let beyond = u64::try_from(beyond)?;
        ensure!(counted == beyond, "{counted} counted, {beyond} too many");
        // The newest stay: what is older its sender has given up sooner.
        let wanted: Vec<u64> = (beyond..).take(MAX_WAITING).collect();
        ensure!(arrived == wanted, "{arrived:?} arrived");
    }
    Ok(())
}
