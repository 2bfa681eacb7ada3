//! docs/benchmarks.md: the figures, how they were made, and every raw number.

use std::fmt::Write as _;

use anyhow::Result;

use super::Report;
use super::figure::COLUMNS;
use super::meter::Usage;
use super::round::{Echo, Flow, QUIET, REPEATS, Round, STREAMS};
use super::spread::number;

/// The whole page.
pub(super) fn markdown(report: &Report) -> Result<String> {
    let mut page = String::new();
    let name = report.name;
    writeln!(page, "# Benchmarks\n")?;
    writeln!(
        page,
        "Written by `make bench BENCH=\"{name} --write\"`; `make bench` measures without writing. Nothing on this page \
         is edited by hand.\n"
    )?;
    method(&mut page, report)?;
    writeln!(page, "\n## Figures\n")?;
    row(&mut page, &COLUMNS)?;
    row(&mut page, &["---"; COLUMNS.len()])?;
    for figure in &report.figures {
        row(&mut page, &figure.cells())?;
    }
    let short = report.short();
    let verdict = if short.is_empty() {
        "Every bound is met.".to_owned()
    } else {
        format!("**Short: {}.**", short.join(", "))
    };
    writeln!(
        page,
        "\n{verdict} A lower bound is judged by the median of the rounds, an upper bound by the worst round.\n"
    )?;
    writeln!(page, "Noise: {}.\n", report.noise())?;
    machine(&mut page, report)?;
    raw(&mut page, &report.rounds)?;
    Ok(page)
}

fn method(page: &mut String, report: &Report) -> Result<()> {
    let plan = report.plan;
    writeln!(page, "## What is measured\n")?;
    writeln!(
        page,
        "Two clusters of two nodes in network namespaces of one machine, underlay MTU 1500, IPv4. **Raw** is node to \
         node in the clear: the underlay addresses of `east-1` and `west-1`, over veth links, bridges and the router \
         between the sites. **Hawser** is pod to pod between the same two nodes, over the same links, encrypted. Both \
         ends of the tunnel, sender, receiver and the network between them share this machine's cores, so Hawser's \
         rates are those of two nodes on one machine; ratios and CPU-seconds travel to other machines, rates do not.\n"
    )?;
    writeln!(
        page,
        "- {} rounds, interleaved: each round measures every variant once, one after the other. Ratios are made \
         within a round.\n\
         - Throughput: iperf3 over TCP for {} s, 1 stream, and {STREAMS} parallel streams through Hawser; 10^9 bits \
         per second at the receiver.\n\
         - Round trip: mean of {} pings, one each {} ms, nothing else being sent.\n\
         - Tunnel processor time: user and system time of all keepers and data planes by 10^9 received bytes, both \
         ends together. Machine processor time: all busy time of the machine, iperf3 and TCP included.\n\
         - Peak memory: the largest `VmHWM` of any data plane, from its start to the end of the round.\n\
         - Noise: cores used by foreign processes, and steal, during each measurement. A round in which one \
         measurement had more than {QUIET:.2} core of it is measured again, at most {REPEATS} times; of a round that \
         stays loud the quietest attempt counts. Kernel threads are not counted as foreign.",
        plan.rounds, plan.seconds, plan.pings, plan.ping_interval
    )?;
    Ok(())
}

fn machine(page: &mut String, report: &Report) -> Result<()> {
    let machine = &report.machine;
    writeln!(page, "## Machine\n")?;
    writeln!(
        page,
        "- Processor: {}, {} cores\n- Memory: {:.1} GiB\n- Kernel: {}\n- System: {}",
        machine.processor, machine.cores, machine.memory, machine.kernel, machine.system
    )?;
    writeln!(page, "- Versions: {}", machine.versions.join("; "))?;
    Ok(())
}

fn raw(page: &mut String, rounds: &[Round]) -> Result<()> {
    writeln!(page, "\n## Raw numbers\n")?;
    writeln!(
        page,
        "Every measurement, in the order in which it was made. Only rounds marked as kept are in the figures.\n"
    )?;
    writeln!(page, "### Transfers\n")?;
    let columns = [
        "round",
        "kept",
        "variant",
        "Gbit/s",
        "GB",
        "retransmits",
        "seconds",
        "tunnel CPU-s",
        "machine CPU-s",
        "foreign",
        "steal",
    ];
    row(page, &columns)?;
    row(page, &["---"; 11])?;
    for round in rounds {
        let many = format!("Hawser, {STREAMS} streams");
        let variants = [
            ("raw, 1 stream", &round.raw),
            ("Hawser, 1 stream", &round.one),
            (&many, &round.many),
        ];
        for (name, flow) in variants {
            let Flow {
                gigabits,
                gigabytes,
                retransmits,
                usage,
            } = flow;
            let Usage {
                seconds,
                tunnels,
                machine,
                foreign,
                steal,
            } = usage;
            let numbers = [
                format!("{gigabits:.3}"),
                format!("{gigabytes:.3}"),
                retransmits.to_string(),
                format!("{seconds:.2}"),
                format!("{tunnels:.2}"),
                format!("{machine:.2}"),
                format!("{foreign:.3}"),
                format!("{steal:.3}"),
            ];
            line(page, round, name, &numbers)?;
        }
    }
    writeln!(page, "\n### Pings and memory\n")?;
    row(
        page,
        &[
            "round",
            "kept",
            "variant",
            "ms",
            "lost",
            "foreign",
            "steal",
            "peak memory MiB",
        ],
    )?;
    row(page, &["---"; 8])?;
    for round in rounds {
        for (name, echo, memory) in [
            ("raw", round.raw_echo, "-".to_owned()),
            ("Hawser", round.echo, number(round.peak_memory)),
        ] {
            let Echo {
                milliseconds,
                lost,
                usage,
            } = echo;
            let Usage { foreign, steal, .. } = usage;
            let numbers = [
                format!("{milliseconds:.3}"),
                lost.to_string(),
                format!("{foreign:.3}"),
                format!("{steal:.3}"),
                memory,
            ];
            line(page, round, name, &numbers)?;
        }
    }
    Ok(())
}

/// A row of a round: which, whether it counts, of what, and its numbers.
fn line(page: &mut String, round: &Round, name: &str, numbers: &[String]) -> Result<()> {
    let again = match round.attempt {
        1 => String::new(),
        attempt => format!(", attempt {attempt}"),
    };
    let kept = if round.kept { "yes" } else { "no" };
    let mut cells = vec![
        format!("{}{again}", round.number),
        kept.to_owned(),
        name.to_owned(),
    ];
    cells.extend_from_slice(numbers);
    row(page, &cells)
}

fn row(page: &mut String, cells: &[impl AsRef<str>]) -> Result<()> {
    for cell in cells {
        write!(page, "| {} ", cell.as_ref())?;
    }
    writeln!(page, "|")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::datapath::figures;
    use super::super::machine::Machine;
    use super::super::round::{Plan, tests::round};
    use super::*;

    #[test]
    fn the_page_has_every_round_and_names_what_is_short() {
        let mut rounds = vec![round(1, 0.5, 3.0), round(1, 0.0, 3.0), round(2, 0.0, 6.0)];
        rounds[1].attempt = 2;
        rounds[1].kept = true;
        rounds[2].kept = true;
        rounds[2].peak_memory = 9.0;
        let report = Report {
            name: "datapath",
            plan: Plan::new(false),
            machine: Machine {
                processor: "Some Processor".to_owned(),
                cores: 2,
                memory: 4.0,
                kernel: "6.1".to_owned(),
                system: "Some Linux 1".to_owned(),
                versions: vec!["hawser 0.1.0".to_owned()],
            },
            figures: figures(&rounds).unwrap(),
            rounds,
        };
        let page = markdown(&report).unwrap();
        for wanted in [
            "| Hawser TCP, 1 stream, to raw | 0.150 | [0.100..0.200] | ratio | >= 0.02 | ok |",
            "| 1 | no | Hawser, 1 stream | 3.000 | 2.000 | 7 | 4.00 | 3.00 | 8.00 | 0.500 | 0.000 |",
            "| 1, attempt 2 | yes | raw, 1 stream |",
            "**Short: data plane peak memory.**",
            "rounds given up and measured again: 1",
            "Processor: Some Processor, 2 cores",
        ] {
            assert!(page.contains(wanted), "{wanted}\nis not in\n{page}");
        }
        // Every row of a table has as many cells as the row above it.
        let mut above = None;
        for line in page.lines() {
            let cells = line.starts_with('|').then(|| line.matches('|').count());
            if let (Some(above), Some(cells)) = (above, cells) {
                assert_eq!(above, cells, "{line}");
            }
            above = cells;
        }
    }
}
