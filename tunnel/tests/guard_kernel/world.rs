//! A node, the host at the other end of its underlay and a local pod, each in a network namespace.
//!
//! A namespace is a thread that has left the others' network: it vanishes with the thread, whatever happens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use hawser_tunnel::guard::Guard;
use hawser_tunnel::io::nft::Nft;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
use nix::unistd::{Uid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of its own.
pub(crate) struct Netns {
    tid: String,
    jobs: mpsc::Sender<Job>,
}

impl Netns {
    pub(crate) fn new() -> Self {
        assert!(
            Uid::effective().is_root(),
            "run as root: this test makes network namespaces"
        );
        let (jobs, work) = mpsc::channel::<Job>();
        let (told, tid) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            told.send(gettid().to_string()).unwrap();
            work.iter().for_each(|job| job());
        });
        let tid = tid.recv().unwrap();
        let netns = Self { tid, jobs };
        netns.sh("ip link set lo up");
        netns
    }

    /// Runs `job` inside and returns its result; a panic inside is a panic here.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = move || drop(done.send(job()));
        self.jobs.send(Box::new(job)).unwrap();
        result.recv().expect("the namespace's thread panicked")
    }

    /// Runs a shell script inside, which must succeed; returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let (ok, text) = self.attempt(script);
        assert!(ok, "{script}\n{text}");
        text
    }

    /// Runs a shell script inside; returns whether it succeeded and what it printed.
    pub(crate) fn attempt(&self, script: &str) -> (bool, String) {
        let script = script.to_owned();
        self.run(move || {
            let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (
                output.status.success(),
                String::from_utf8_lossy(&text).into_owned(),
            )
        })
    }

    /// Joins this namespace's `device` and the other's `peer` by a veth pair.
    pub(crate) fn link(&self, device: &str, other: &Self, peer: &str) {
        let tid = &other.tid;
        self.sh(&format!(
            "ip link add {device} type veth peer name {peer} netns {tid}"
        ));
        self.sh(&format!("ip link set {device} addrgenmode none up"));
        other.sh(&format!("ip link set {peer} addrgenmode none up"));
    }

    /// Sends a frame as it is out of `device`.
    pub(crate) fn inject(&self, device: &str, frame: Vec<u8>) {
        let device = device.to_owned();
        self.run(move || {
            let fd = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            let mut links = getifaddrs()
                .unwrap()
                .filter(|found| found.interface_name == device);
            let link = links
                .find_map(|found| found.address?.as_link_addr().copied())
                .expect("no such device");
            // A drop at egress is told as ENOBUFS.
            let _ = sendto(
                std::os::fd::AsRawFd::as_raw_fd(&fd),
                &frame,
                &link,
                MsgFlags::empty(),
            );
        });
    }

    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        self.run(|| Nft::default().guard_drops().unwrap())
    }
}

/// Two namespaces joined by the underlay, and a pod on the first.
pub(crate) struct World {
    pub(crate) node: Netns,
    pub(crate) wire: Netns,
    pub(crate) pod: Netns,
}

impl World {
    /// Node 192.0.2.1 / 2001:db8::1, the other end .2, the pod 10.1.1.10 / fd01:1:1::10.
    pub(crate) fn new() -> Self {
        let world = Self {
            node: Netns::new(),
            wire: Netns::new(),
            pod: Netns::new(),
        };
        world.underlay();
        world.node.link("pod0", &world.pod, "eth0");
        world.node.sh(
            "ip tuntap add hawser0 mode tap; ip link set hawser0 up
             ip addr add 10.1.1.1/32 dev hawser0; ip addr add fd01:1:1::1/128 dev hawser0 nodad
             ip addr add 169.254.1.1/32 dev pod0; ip addr add fe80::1/64 dev pod0 nodad
             ip route add 10.1.1.10 dev pod0 src 10.1.1.1; ip route add fd01:1:1::10 dev pod0 src fd01:1:1::1
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        );
        world.pod.sh(
            "ip addr add 10.1.1.10/32 dev eth0; ip addr add fd01:1:1::10/128 dev eth0 nodad
             ip addr add fe80::10/64 dev eth0 nodad
             ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1
             ip -6 route add default via fe80::1 dev eth0",
        );
        world
    }

    /// Makes the underlay link, anew if it is gone.
    pub(crate) fn underlay(&self) {
        self.node.link("eth0", &self.wire, "p0");
        self.node
            .sh("ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad");
        self.wire.sh(
            "ip addr add 192.0.2.2/24 dev p0; ip addr add 2001:db8::2/64 dev p0 nodad
             ip route add 10.0.0.0/8 via 192.0.2.1; ip route add fd01::/16 via 2001:db8::1",
        );
    }

    pub(crate) fn guard(&self) -> Guard {
        let parse = |text: &[&str]| text.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Guard {
            device: "hawser0".to_owned(),
            underlay: ["eth0".to_owned()].into(),
            mesh: parse(&["10.1.0.0/16", "10.2.0.0/16", "fd01:1::/32", "fd01:2::/32"]),
            local: parse(&["10.1.1.0/24", "fd01:1:1::/64"]),
        }
    }
}

/// An Ethernet frame to everybody with these VLAN tags and a UDP datagram inside.
pub(crate) fn frame(tags: &[u16], source: &str, destination: &str) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(100_u16.to_be_bytes());
    }
    let udp = [&[0x03, 0xe8, 0x07, 0xd0, 0, 16, 0, 0][..], b"in clear"].concat();
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend([source.octets(), destination.octets()].concat());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 17, 64]);
            frame.extend([source.octets(), destination.octets()].concat());
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
    [frame, udp].concat()
}
