//! What keeps packets off the wire, taken away and put back.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::Site;
use super::site::PATIENCE;
use crate::io::send_signal;
use crate::lab::{Family, wait_until};

/// What stands between a way and the wire, and is taken away to show that the way has teeth. Nobody repairs then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The guard's tables and the unreachable routes; the mesh routes stay.
    Guard,
    /// The mesh routes and the unreachable ones; the guard stays.
    Routes,
    /// Hawser: its processes are killed and not started, guard and unreachable routes are gone.
    Hawser,
}

impl Site {
    /// Takes a barrier away, and whoever would put it back.
    pub(super) fn disarm(&mut self, barrier: Barrier) -> Result<()> {
        self.armed = false;
        match barrier {
            Barrier::Guard | Barrier::Routes => self.signal(Signal::SIGSTOP)?,
            Barrier::Hawser => {
                self.node_mut().kill_agent()?;
                self.node_mut().kill_keeper()?;
            }
        }
        let unreachable =
            self.each_family(|flag, _| format!("ip {flag} route flush type unreachable proto 72"));
        self.script(&unreachable)?;
        match barrier {
            Barrier::Guard | Barrier::Hawser => self
                .script("nft delete table netdev hawser_guard; nft delete table inet hawser_guard"),
            Barrier::Routes => {
                self.script(&self.each_prefix(|flag, prefix, _| {
                    format!("ip {flag} route del {prefix} proto 72")
                }))
            }
        }
    }

    /// Makes Hawser what it was: everything runs.
    pub(super) fn arm(&mut self) -> Result<()> {
        self.armed = true;
        self.signal(Signal::SIGCONT)?;
        self.settle()
    }

    /// Starts what does not run, and waits until the node is as Hawser wants it.
    pub(super) fn settle(&mut self) -> Result<()> {
        let node = self.node_mut();
        if node.keeper_pid().is_none() {
            node.stop_keeper()?;
            node.start_keeper()?;
        }
        if node.agent_pid().is_none() {
            node.stop_agent()?;
            node.start_agent()?;
        }
        let peers = self.lab.nodes().len() - 1;
        self.node().wait_ready(peers, PATIENCE)?;
        wait_until("guard and routes stand again", PATIENCE, || {
            self.stands().map(|()| true)
        })?;
        self.node().route_pods()
    }

    /// Fails unless the guard's tables, the mesh routes and the unreachable routes are there.
    fn stands(&self) -> Result<()> {
        let netns = self.netns();
        for family in ["netdev", "inet"] {
            netns.output("nft", &["list", "table", family, "hawser_guard"])?;
        }
        for family in Family::BOTH {
            let routes = netns.output("ip", &[family.flag(), "route", "show", "proto", "72"])?;
            let own = |word: &str| routes.lines().filter(|line| line.contains(word)).count();
            let mesh = self
                .prefixes()
                .iter()
                .filter(|prefix| Family::of(prefix.addr()) == family)
                .count();
            if own("dev hawser0") != mesh || own("unreachable") < self.lab.topology().clusters.len()
            {
                bail!("{family} routes: {routes}");
            }
        }
        Ok(())
    }

    /// Sends a signal to keeper and agent; the data plane goes on.
    fn signal(&self, signal: Signal) -> Result<()> {
        let node = self.node();
        for pid in [node.keeper_pid(), node.agent_pid()].into_iter().flatten() {
            send_signal(pid, signal)?;
        }
        Ok(())
    }
}
