//! What two kernels' TCP agree on works through the tunnel as on a cable: options, and congestion marks.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::is_soak;
use hawser_tests::integrity::{Flow, PODS, learn_path_mtu, one_by_one, run_flows};
use hawser_tests::io::Netns;
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// A sysctl that switches an option, and what `ss` shows of a connection that has it.
const OPTIONS: [(&str, &str); 4] = [
    ("net.ipv4.tcp_timestamps", " ts "),
    ("net.ipv4.tcp_sack", " sack "),
    ("net.ipv4.tcp_window_scaling", " wscale:"),
    ("net.ipv4.tcp_ecn", " ecn "),
];

/// Marks what leaves the pod as having met congestion, where its TCP can tell (RFC 3168).
const CONGESTION: &str = "add table inet congestion
add chain inet congestion out { type filter hook postrouting priority mangle; policy accept; }
add rule inet congestion out ip ecn ect0 ip ecn set ce
add rule inet congestion out ip6 ecn ect0 ip6 ecn set ce";

/// What `ss` says of a new connection.
fn agreed(lab: &Lab, family: Family) -> Result<String> {
    let [from, to] = PODS.map(|name| lab.pod(name));
    let at = SocketAddr::new(to.address(family).context("no such address")?, 0);
    let listener = to.netns().run(|| TcpListener::bind(at))??;
    let at = listener.local_addr()?;
    let client = from
        .netns()
        .run(|| TcpStream::connect_timeout(&at, PATIENCE))??;
    let port = at.port().to_string();
    let said = from
        .netns()
        .output("ss", &["-tinoHO", "dport", "=", &port])?;
    drop(client);
    Ok(said)
}

#[test]
fn flows_are_right_with_each_option_on_and_off() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let mut chance = Chance::from_environment();
    // All on, all off, and each alone on and off; in a soak every combination.
    let all = 0..1_u32 << OPTIONS.len();
    let some = |set: &u32| is_soak() || matches!(set.count_ones(), 0 | 1 | 3 | 4);
    for set in all.filter(some) {
        for (bit, (key, _)) in OPTIONS.iter().enumerate() {
            let on = set >> bit & 1;
            for name in PODS {
                lab.pod(name).netns().sysctl_set(key, &on.to_string())?;
            }
        }
        for family in Family::BOTH {
            let said = agreed(&lab, family)?;
            for (bit, (key, shown)) in OPTIONS.iter().enumerate() {
                let on = set >> bit & 1 == 1;
                ensure!(
                    said.contains(shown) == on,
                    "{key} is {on} at both pods, and over {family} they agreed on: {said}"
                );
            }
        }
        let seed = chance.below(u64::MAX);
        let flows = Flow::many(&lab, 8, 2 << 20, &mut chance);
        let report = run_flows(&lab, &flows, seed, PATIENCE);
        let report = report.with_context(|| format!("options {set:04b}"))?;
        say(format_args!(
            "options {set:04b}: {} bytes in {} ms",
            report.bytes,
            report.took.as_millis()
        ));
    }
    Ok(())
}

/// A counter of the kernel's: `IpExt InCEPkts`.
fn counter(netns: &Netns, group: &str, name: &str) -> Result<u64> {
    let file = if group == "Ip6" {
        "/proc/net/snmp6"
    } else {
        "/proc/net/netstat"
    };
    let text = netns.output("cat", &[file])?;
    if group == "Ip6" {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        return Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?);
    }
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let names = lines.next().with_context(|| format!("no {group}"))?;
    let values = lines.next().with_context(|| format!("no {group}"))?;
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let found = both.find(|(known, _)| *known == name);
    Ok(found
        .with_context(|| format!("no {group} {name}"))?
        .1
        .parse()?)
}

#[test]
fn a_congestion_mark_on_a_pods_packet_reaches_the_other_pod_and_its_echo_comes_back() -> Result<()>
{
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let [from, to] = PODS.map(|name| lab.pod(name).netns());
    for name in PODS {
        lab.pod(name).netns().sysctl_set("net.ipv4.tcp_ecn", "1")?;
    }
    let mut chance = Chance::from_environment();
    for marked in [false, true] {
        if marked {
            from.output("nft", &[CONGESTION])?;
        }
        for family in Family::BOTH {
            // Packets marked as able and as having met congestion, and data that the echo told of.
            let counters = || -> Result<[u64; 3]> {
                let (group, able, met) = match family {
                    Family::V4 => ("IpExt", "InECT0Pkts", "InCEPkts"),
                    Family::V6 => ("Ip6", "Ip6InECT0Pkts", "Ip6InCEPkts"),
                };
                Ok([
                    counter(to, group, able)?,
                    counter(to, group, met)?,
                    counter(from, "TcpExt", "TCPDeliveredCE")?,
                ])
            };
            let before = counters()?;
            let seed = chance.below(u64::MAX);
            let flow = Flow {
                number: 0,
                from: PODS[0].to_owned(),
                to: PODS[1].to_owned(),
                family,
                there: 2 << 20,
                back: 1,
            };
            run_flows(&lab, &[flow], seed, PATIENCE)?;
            let after = counters()?;
            let [able, met, echoed] = [0, 1, 2].map(|at| after[at] - before[at]);
            say(format_args!(
                "{family}, marked {marked}: {able} came as able, {met} as having met congestion, {echoed} echoed"
            ));
            ensure!(
                (able > 0, met > 0, echoed > 0) == (!marked, marked, marked),
                "{family}, marked {marked}: {able} {met} {echoed}"
            );
        }
    }
    Ok(())
}
