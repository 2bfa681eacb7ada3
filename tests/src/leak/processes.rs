//! Processes of ours that die, are stopped, or start in an odd order.

use std::thread;
use std::time::Duration;

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
                site.node_mut().start_keeper()?;
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
