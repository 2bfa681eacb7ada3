//! What one cluster does and the other follows, and what goes on when nobody is there to tell.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::figures::{Alone, Figures};
use super::progress::Progress;
use super::{READY, first_pod};
use crate::lab::{Lab, NAMESPACE, manifest_of, wait_until};
use crate::traffic::{LoadSpec, Ping, SequenceLoad};

/// How often a pod goes and comes.
const ROUNDS: usize = 5;
/// How long an answer is waited for, where there may be none.
const ANSWER: Duration = Duration::from_millis(30);
/// Packets a second between all pods, while nobody is in control.
const RATE: u32 = 2_000;
/// So many of them.
const PACKETS: u64 = 5_000;

/// A pod's manifest goes, and comes back with a label that nobody has seen: another identity. The far side answers it as
/// soon as it has heard of that.
pub(super) fn pods<W: Write>(
    lab: &Lab,
    progress: &mut Progress<'_, W>,
    figures: &mut Figures,
) -> Result<()> {
    progress.step("a pod of east goes and comes back with another identity; west follows")?;
    let manifests = lab.manifests("east")?;
    let pod = lab.pod("east-2-b");
    let far = first_pod(lab, "west-1")?.v4();
    let answered = || {
        Ok(Ping::new(far)
            .deadline(ANSWER)
            .run(pod.netns())?
            .is_complete())
    };
    for round in 0..ROUNDS {
        manifests.remove_pod(NAMESPACE, pod.name())?;
        wait_until("the pod that went is not carried any more", READY, || {
            Ok(!answered()?)
        })?;
        let mut manifest = manifest_of(pod);
        manifest.app = format!("{}-{round}", manifest.app);
        manifests.pod(&manifest)?;
        let start = Instant::now();
        wait_until("the far side answers the pod", READY, answered)?;
        figures
            .followed
            .push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// No hub and no agent lives. Packets go on, also over new handshakes.
pub(super) fn alone<W: Write>(
    lab: &Lab,
    progress: &mut Progress<'_, W>,
    figures: &mut Figures,
) -> Result<()> {
    progress.step(
        "counting packets between all pods while no hub and no agent lives, over new handshakes",
    )?;
    let living = lab.hubs().iter().filter(|hub| hub.pid().is_some()).count();
    ensure!(living == 0, "{living} hubs were still alive after SIGKILL");
    let load = SequenceLoad::start(lab, LoadSpec::all_pairs(lab, RATE))?;
    let wait = Duration::from_secs(30);
    let until = |count| wait_until("packets arrive", wait, || Ok(load.received() >= count));
    until(PACKETS / 2)?;
    for node in lab.nodes() {
        node.rekey()?;
    }
    until(PACKETS)?;
    let report = load.stop()?;
    if let Err(error) = report.check() {
        figures
            .problems
            .push(format!("without hubs and agents: {error:#}"));
    }
    figures.alone = Some(Alone {
        sent: report.sent,
        lost: report.lost,
    });
    Ok(())
}

/// Prints both.
pub(super) fn print<W: Write>(progress: &mut Progress<'_, W>, figures: &Figures) -> Result<()> {
    let mut times = figures.followed.clone();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).context("no pod came")?;
    progress.text(&format!(
        "\nFrom a pod's manifest in east to its first answer from west, with an identity that was new: {median:.0} ms \
         (median of {})",
        times.len()
    ))?;
    if let Some(Alone { sent, lost }) = figures.alone {
        progress.text(&format!(
            "Every hub and every agent dead, every session new: {sent} packets sent, {lost} lost"
        ))?;
    }
    Ok(())
}
