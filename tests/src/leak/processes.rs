//! Processes of ours that die, are stopped, or start in an odd order.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::order::{boot, pods_up, wipe};
use super::site::{PATIENCE, Site};
use super::{Barrier, Way};
use crate::depth::rounds;
use crate::lab::{Family, wait_until};

/// A reconcile is over after this time.
const RECONCILE: Duration = Duration::from_millis(200);

/// Ways by processes.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "agent killed while it repairs",
        mistake: "out of memory, at any moment of its start, after somebody flushed the routes",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            for _ in 0..rounds(8, 60) {
                site.sweep(&flush(site))?;
                if !site.is_armed() {
                    break;
                }
                site.node_mut().kill_agent()?;
                site.node_mut().start_agent()?;
                thread::sleep(site.chance().delay(RECONCILE));
                site.node_mut().kill_agent()?;
            }
            Ok(())
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "keeper killed while it starts, and the TAP deleted",
        mistake: "a crash loop of the data plane's unit, with a clean-up between the attempts",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            for _ in 0..rounds(8, 60) {
                if site.is_armed() {
                    site.node_mut().kill_keeper()?;
                }
                site.sweep("ip link del hawser0")?;
                if !site.is_armed() {
                    break;
                }
                site.node_mut().launch_keeper()?;
                thread::sleep(site.chance().delay(RECONCILE));
                site.node_mut().kill_keeper()?;
            }
            Ok(())
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "everything of ours killed, TAP and mesh routes removed",
        mistake: "an uninstallation that begins at the wrong end",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            site.node_mut().kill_agent()?;
            site.node_mut().kill_keeper()?;
            let flush = flush(site);
            site.sweep(&format!("{flush}\nip link del hawser0"))
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "node boots, keeper first, and pods before the agent",
        mistake: "an agent that cannot start after a reboot, for whatever reason",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            wipe(site)?;
            boot(site)?;
            if site.is_armed() {
                keeper_lets_in(site)?;
            }
            pods_up(site)
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "node boots, agent first, and pods before the keeper",
        mistake: "a data plane that cannot start after a reboot, for whatever reason",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            wipe(site)?;
            boot(site)?;
            if site.is_armed() {
                site.node_mut().start_agent()?;
                wait_until("the agent has loaded the guard", PATIENCE, || {
                    let tables = site.netns().output("nft", &["list", "tables"])?;
                    Ok(tables.matches("hawser_guard").count() == 2)
                })?;
            }
            pods_up(site)
        },
        undo: |_| Ok(()),
    },
];

fn flush(site: &Site) -> String {
    site.each_family(|flag, _| format!("ip {flag} route flush proto 72"))
}

/// Starts the keeper and waits until it lets clients in, and not a moment longer: then the guard must stand.
fn keeper_lets_in(site: &mut Site) -> Result<()> {
    site.node_mut().launch_keeper()?;
    let (socket, end) = (site.node().tunnel_socket(), Instant::now() + PATIENCE);
    while UnixStream::connect(&socket).is_err() {
        ensure!(Instant::now() < end, "the keeper lets nobody in");
        thread::yield_now();
    }
    let tables = site.netns().output("nft", &["list", "tables"])?;
    ensure!(
        tables.matches("hawser_guard").count() == 2,
        "the keeper let a client in before the guard stood: {tables}"
    );
    Ok(())
}
