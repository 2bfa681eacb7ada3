//! Tries one way after the other.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::site::{PATIENCE, Site};
use super::{Barrier, Way};
use crate::lab::{Family, wait_until};
use crate::sniffer::{Report, Sniffer};
use crate::traffic::{LoadSpec, SequenceLoad};

/// Packets a second, of all pairs together: a packet of the node's pod every 4 ms.
const RATE: u32 = 1_000;
/// Packets that are offered while nothing is done yet and no barrier stands: the calm before.
const CALM: u64 = 100;
/// Packets that are offered while an act stands.
const HOLD: u64 = 400;
/// Packets that each pair must get through afterwards.
const FLOWING: u64 = 5;
/// How long a way without a barrier may take until it leaks on a busy machine.
const BITE: Duration = Duration::from_secs(10);

/// Traffic is back within this time after an undoing: well before the agent's full check, every 30 s, so that what is
/// repaired by chance only is found.
const BACK: Duration = Duration::from_secs(15);

/// What became of one way.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The way.
    pub name: &'static str,
    /// What was taken away to show its teeth.
    pub barrier: Barrier,
    /// Clear frames without the barrier.
    pub leaked: u64,
    /// Clear and foreign frames with Hawser as shipped.
    pub held: u64,
    /// How long after the undoing all pairs talked again.
    pub back: Duration,
}

/// A lab whose pods talk all the time.
#[derive(Debug)]
pub struct Hunt {
    load: SequenceLoad,
    sniffer: Sniffer,
    site: Site,
}

impl Hunt {
    /// Builds the lab and waits until all pods talk.
    ///
    /// # Errors
    /// When the lab does not come up.
    pub fn start() -> Result<Self> {
        let site = Site::start()?;
        let sniffer = site.sniffer()?;
        let load = SequenceLoad::start(site.lab(), LoadSpec::all_pairs(site.lab(), RATE))?;
        let hunt = Self {
            load,
            sniffer,
            site,
        };
        hunt.flows("the start")?;
        Ok(hunt)
    }

    /// What to set `HAWSER_SEED` to, to have the same delays again.
    pub fn seed(&mut self) -> u64 {
        self.site.chance().seed()
    }

    /// Shows that a way has teeth, and that Hawser holds.
    ///
    /// # Errors
    /// When it is toothless, when something was in clear with Hawser as shipped, or when traffic did not come back.
    pub fn run(&mut self, way: &Way) -> Result<Outcome> {
        let leaked = self.bite(way).context("without its barrier")?;
        self.hold(way, leaked).context("with Hawser as shipped")
    }

    /// Shows that an act gets past every barrier; returns the clear frames.
    ///
    /// # Errors
    /// When nothing was in clear: the limit is none any more.
    pub fn pass(&mut self, way: &Way) -> Result<u64> {
        self.sniffer.renew()?;
        (way.provoke)(&mut self.site).context("provoke")?;
        wait_until("it is in clear, as documented", BITE, || {
            Ok(leaks_in(&self.sniffer.report()?, way.families))
        })?;
        (way.undo)(&mut self.site).context("undo")?;
        self.site.settle()?;
        self.flows(way.name)?;
        Ok(self.sniffer.report()?.plaintext)
    }

    fn bite(&mut self, way: &Way) -> Result<u64> {
        self.site.disarm(way.barrier)?;
        self.sniffer.renew()?;
        self.offered(CALM)?;
        self.sniffer.report()?.check().context("before the act")?;
        (way.provoke)(&mut self.site).context("provoke")?;
        let bitten = wait_until("it leaks", BITE, || {
            Ok(leaks_in(&self.sniffer.report()?, way.families))
        });
        (way.undo)(&mut self.site).context("undo")?;
        self.site.arm()?;
        self.flows("the barrier was put back")?;
        let report = self.sniffer.report()?;
        if let Err(error) = bitten {
            bail!(
                "toothless: {error:#}: {} clear frames: {:?}",
                report.plaintext,
                report.leaks.first()
            );
        }
        ensure!(report.lost == 0, "sniffer lost {} frames", report.lost);
        Ok(report.plaintext)
    }

    fn hold(&mut self, way: &Way, leaked: u64) -> Result<Outcome> {
        self.sniffer.renew()?;
        self.site.dawdle();
        (way.provoke)(&mut self.site).context("provoke")?;
        self.offered(HOLD)?;
        self.site.dawdle();
        self.clean("while it stood")?;
        (way.undo)(&mut self.site).context("undo")?;
        let undone = Instant::now();
        self.site.settle()?;
        self.flows("it was undone")?;
        let back = undone.elapsed();
        ensure!(
            back < BACK,
            "traffic came back only after {back:?}: nobody noticed before the agent's full check"
        );
        let report = self.clean("while it was repaired")?;
        Ok(Outcome {
            name: way.name,
            barrier: way.barrier,
            leaked,
            held: report.plaintext + report.foreign,
            back,
        })
    }

    fn clean(&self, when: &str) -> Result<Report> {
        let report = self.sniffer.report()?;
        report.check().with_context(|| when.to_owned())?;
        Ok(report)
    }

    /// Waits until `count` more packets were offered, whether or not they arrive.
    fn offered(&self, count: u64) -> Result<()> {
        let before = self.load.sent();
        wait_until("more packets offered", PATIENCE, || {
            Ok(self.load.sent() >= before + count)
        })
    }

    /// Waits until packets of every pair arrive.
    fn flows(&self, after: &str) -> Result<()> {
        let before = self.load.received_by_pair();
        wait_until(&format!("every pair talks after {after}"), PATIENCE, || {
            let now = self.load.received_by_pair();
            let pairs = before.iter().zip(&now).zip(self.load.pairs());
            for ((before, now), pair) in pairs {
                ensure!(*now >= before + FLOWING, "{pair:?} does not");
            }
            Ok(true)
        })
    }
}

/// Whether clear frames of each family were seen.
fn leaks_in(report: &Report, families: &[Family]) -> bool {
    let seen = &report.plaintext_by_family;
    families.iter().all(|family| seen.contains_key(family))
}

/// The outcomes as a table.
#[must_use]
pub fn table(title: &str, outcomes: &[Outcome]) -> String {
    let mut text = format!("{title:<48} barrier    clear without    with Hawser    back after\n");
    for outcome in outcomes {
        text.push_str(&format!(
            "  {:<46} {:<10} {:>13} {:>14} {:>10} ms\n",
            outcome.name,
            format!("{:?}", outcome.barrier).to_lowercase(),
            outcome.leaked,
            outcome.held,
            outcome.back.as_millis()
        ));
    }
    text
}
