//! The tunnel against the bare network under it: the same two nodes, the same router between them.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::meter::{Meter, peak_memory};
use super::round::{Echo, Flow, Plan, QUIET, Round, STREAMS, until_quiet};
use super::spread::number;
use super::transfer::Transfer;
use crate::io::Netns;
use crate::lab::{Family, Lab, Topology};
use crate::traffic::Ping;

mod figures;

pub(super) use figures::figures;

/// Builds the lab, measures all rounds and removes the lab.
pub(super) fn measure(plan: &Plan, out: &mut impl Write) -> Result<Vec<Round>> {
    let mut screen = Screen {
        out,
        start: Instant::now(),
    };
    screen.say("building two clusters of two nodes, starting Hawser, waiting for handshakes")?;
    let lab = Lab::running(Topology::two_by_two())?;
    let rounds = Bench::new(&lab, *plan)?.rounds(&mut screen)?;
    screen.say("removing the lab")?;
    lab.remove()?;
    Ok(rounds)
}

/// Shows where the bench is.
struct Screen<'a, W: Write> {
    out: &'a mut W,
    start: Instant,
}

impl<W: Write> Screen<'_, W> {
    fn say(&mut self, text: &str) -> Result<()> {
        writeln!(
            self.out,
            "[{:5.1} s] {text}",
            self.start.elapsed().as_secs_f64()
        )
        .and_then(|()| self.out.flush())
        .context("failed to print")
    }
}

/// Two nodes of different clusters in the clear, or their first pods through Hawser.
#[derive(Clone, Copy)]
enum Path {
    Raw,
    Hawser,
}

struct Bench<'a> {
    lab: &'a Lab,
    plan: Plan,
    meter: Meter,
    data_planes: Vec<i32>,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab, plan: Plan) -> Result<Self> {
        let (mut data_planes, mut tunnels) = (Vec::new(), Vec::new());
        for node in lab.nodes() {
            let name = node.name();
            let keeper = node.keeper_pid();
            tunnels.push(keeper.with_context(|| format!("{name} has no keeper"))?);
            let data_plane = node.data_plane_pid();
            data_planes.push(data_plane.with_context(|| format!("{name} has no data plane"))?);
        }
        tunnels.extend(&data_planes);
        Ok(Self {
            lab,
            plan,
            meter: Meter::new(tunnels),
            data_planes,
        })
    }

    fn rounds<W: Write>(&self, screen: &mut Screen<'_, W>) -> Result<Vec<Round>> {
        let mut rounds = Vec::new();
        for number in 1..=self.plan.rounds {
            let attempts = until_quiet(|attempt| self.round(number, attempt, screen))?;
            rounds.extend(attempts);
        }
        Ok(rounds)
    }

    fn round<W: Write>(
        &self,
        number: u32,
        attempt: u32,
        screen: &mut Screen<'_, W>,
    ) -> Result<Round> {
        let again = if attempt > 1 { ", again" } else { "" };
        screen.say(&format!("round {number} of {}{again}", self.plan.rounds))?;
        let round = Round {
            number,
            attempt,
            kept: false,
            raw_echo: self.echo(Path::Raw, screen)?,
            echo: self.echo(Path::Hawser, screen)?,
            raw: self.flow(Path::Raw, 1, screen)?,
            one: self.flow(Path::Hawser, 1, screen)?,
            many: self.flow(Path::Hawser, STREAMS, screen)?,
            peak_memory: self.peak_memory()?,
        };
        if round.noise() > QUIET {
            screen.say(&format!(
                "  others used {:.2} core, more than {QUIET:.2}: this round is loud",
                round.noise()
            ))?;
        }
        Ok(round)
    }

    fn echo<W: Write>(&self, path: Path, screen: &mut Screen<'_, W>) -> Result<Echo> {
        let (from, _, address) = self.ends(path);
        let ping = Ping::new(address)
            .count(self.plan.pings)
            .interval(Duration::from_millis(self.plan.ping_interval));
        let (report, usage) = self.meter.measure(|| ping.run(from))?;
        let average = report.average;
        let average = average.with_context(|| format!("no reply from {address}"))?;
        let echo = Echo {
            milliseconds: average.as_secs_f64() * 1e3,
            lost: report.sent.saturating_sub(report.received),
            usage,
        };
        let (name, time) = (path.name(), number(echo.milliseconds));
        screen.say(&format!("  {name:<6} ping: {time} ms, {} lost", echo.lost))?;
        Ok(echo)
    }

    fn flow<W: Write>(&self, path: Path, streams: u32, screen: &mut Screen<'_, W>) -> Result<Flow> {
        let (from, to, address) = self.ends(path);
        let transfer = Transfer {
            from,
            to,
            address,
            streams,
            seconds: self.plan.seconds,
        };
        let (arrived, usage) = self.meter.measure(|| transfer.run())?;
        let flow = Flow::new(arrived, usage);
        screen.say(&format!(
            "  {:<6} TCP, streams: {streams}: {} Gbit/s, {} retransmits",
            path.name(),
            number(flow.gigabits),
            flow.retransmits
        ))?;
        Ok(flow)
    }

    /// Who sends to whom, and to which address.
    fn ends(&self, path: Path) -> (&Netns, &Netns, IpAddr) {
        let (from, to) = (self.lab.node("east-1"), self.lab.node("west-1"));
        match path {
            Path::Raw => (from.netns(), to.netns(), to.underlay(Family::V4)),
            Path::Hawser => {
                let (from, to) = (from.pod("a"), to.pod("a"));
                (from.netns(), to.netns(), to.v4())
            }
        }
    }

    /// The largest peak of all data planes, in MiB.
    fn peak_memory(&self) -> Result<f64> {
        let mut peaks = self.data_planes.iter().map(|pid| peak_memory(*pid));
        peaks.try_fold(0.0, |most, peak| Ok(f64::max(most, peak?)))
    }
}

impl Path {
    const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hawser => "Hawser",
        }
    }
}
