//! What the page says of how the data path is measured.

use super::measurement::{
    APART, BOTH, CONNECTIONS, IDLE_PINGS, IDLE_RTT, MEMORY, TCP_1, TCP_4, TRIALS, UDP_64, UDP_512,
    UDP_1300,
};
use super::variant::{
    BORINGTUN, GOTATUN, HAWSER, NEWEST, NULL_CIPHER, RAW, SIXTEEN_LANES, TWO_LANES, WIREGUARD_GO,
};
use super::{condition, datagrams};

/// The text in front of the figures.
pub(super) fn text() -> String {
    let [
        base,
        offloads,
        jumbo,
        ipv6,
        loss,
        prefixes,
        bbr,
        gso,
        gro,
        join,
        tso,
        sums,
        lanes,
    ] = condition::NAMES;
    format!(
        "Two nodes of two clusters, a pod on each, in network namespaces of one machine. One veth joins the nodes: no \
         bridge and no router is between them. All variants run side by side on these nodes and carry packets between \
         the same two pods, each by addresses and routes of its own; the others are idle meanwhile. Both ends of the \
         tunnel, sender and receiver share this machine's cores, so rates are those of two nodes on one machine: ratios \
         travel to other machines, rates do not. Before and after each measurement the counters of the tunnels' \
         devices show that the bytes went through the variant's own tunnel and no other.\n\
         \n\
         | variant | is |\n| --- | --- |\n\
         | {RAW} | in clear, straight over the veth, MTU 1500 |\n\
         | {BORINGTUN}, {GOTATUN} | other userspace WireGuard in Rust, as their crates are published, MTU 1420 |\n\
         | {WIREGUARD_GO} | as Debian packages it, MTU 1420 |\n\
         | {NEWEST} | the newest Go module, MTU 1420 |\n\
         | {HAWSER} | Geneve over WireGuard with everything on: peers' table, source checks, identity, guard, counters; \
         MTU 1392 |\n\
         | {NULL_CIPHER} | Hawser, built for the bench with a cipher that does nothing, on a pair of nodes of its own |\n\
         | {TWO_LANES}, {SIXTEEN_LANES} | Hawser with so many lanes, all of them open |\n\
         \n\
         | condition | is |\n| --- | --- |\n\
         | {base} | underlay MTU 1500, IPv4, offloads of the veth on, one prefix for each cluster and family |\n\
         | {offloads} | TSO, GSO, GRO and UDP segmentation off on the veth |\n\
         | {jumbo} | underlay MTU 9000; WireGuard's 8920, Hawser's pods 8880 |\n\
         | {ipv6} | nodes reach each other by IPv6 |\n\
         | {loss} | 1 % of the packets lost in each direction, on top of {offloads}, or whole super-frames would be lost |\n\
         | {prefixes} | {} prefixes for each cluster, as many allowed IPs and routes for wireguard-go |\n\
         | {gso}, {gro}, {join}, {tso} | Hawser does without an offload of its kernel, as `--without` of \
         `hawser-tunnel` has it: what each fallback costs; wireguard-go has all |\n\
         | {sums} | Hawser fills in the checksums that pods leave (`tunnel.checksums: filled`) |\n\
         | {lanes} | Hawser alone, on a pair of nodes for each variant |\n\
         | {bbr} | the pods send by BBR, which paces; everywhere else by CUBIC, Linux's default |\n\
         \n\
         | measurement | is |\n| --- | --- |\n\
         | {IDLE_RTT} | {IDLE_PINGS} pings, {} ms apart, nothing else being sent |\n\
         | {TCP_1}, {TCP_4} | iperf3, 1 and 4 streams, as the receiver counts; beside 1 stream, pings as often (the \
         loaded round trip, without the first fifth) |\n\
         | {BOTH} | iperf3, a stream each way at once, sum |\n\
         | {UDP_64}, {UDP_512}, {UDP_1300} | highest rate of UDP with that payload of which at most 0.1 % is lost; a \
         datagram that is not there {} ms after the last was sent is lost. A search of at most {TRIALS} trials with a sender \
         that keeps its pace in bursts of at most {} packets, without segmentation offload |\n\
         | {CONNECTIONS} | new TCP connections: connect, a byte each way, close; 16 clients |\n\
         | {MEMORY} | largest `VmHWM` of the variant's processes, from their start to the end of the round |\n\
         \n\
         - Tunnel CPU: user and system time of the variant's own processes, both ends together, by 10^9 received \
         bytes. Machine CPU: all busy time of the machine, iperf3 and TCP included.",
        condition::PREFIXES,
        APART.as_millis(),
        datagrams::IN_TIME.as_millis(),
        datagrams::BURST,
    )
}
