//! A node loses power: everything in memory is gone, what is on disk is kept.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Lab, build};
use crate::io::{Netns, send_signal};

impl Lab {
    /// Reboots a node without starting anything on it: its processes and those of its pods are killed, every device,
    /// route, rule and table of it is gone, and it stands there again with its underlay link and its pods as at first.
    /// Its directory (state, key, node.yaml, logs) is as it was. Sniffers of its link saw its end: make new ones.
    ///
    /// # Errors
    /// When something cannot be taken away or made again.
    pub fn reboot(&mut self, name: &str) -> Result<()> {
        let node = self.node_mut(name);
        node.kill_agent()?;
        node.kill_keeper()?;
        // What was in /run is on a file system in memory.
        fs::remove_file(node.tunnel_socket()).ok();
        let of_pods = node.pods().iter().map(|pod| pod.netns().clone());
        let all: Vec<Netns> = [node.netns().clone()].into_iter().chain(of_pods).collect();
        for netns in &all {
            end(netns).with_context(|| format!("failed to end {}", netns.name()))?;
        }

        let names: Vec<String> = all.iter().map(|netns| netns.name().to_owned()).collect();
        let fresh = build::namespaces(&names, &self.record.id)?;
        let node = self.node_mut(name);
        let mut fresh = fresh.into_iter();
        node.netns = fresh.next().context("no namespace was made")?;
        for (pod, netns) in node.pods.iter_mut().zip(fresh) {
            pod.netns = netns;
        }
        // Its hub, if it had one, died with it; whoever starts it again starts it on the new machine.
        let netns = self.node(name).netns().clone();
        for hub in self.hubs.iter_mut().filter(|hub| hub.node() == name) {
            hub.kill()?;
            hub.move_to(&netns);
        }
        self.relink(name)?;
        let node = self.node(name);
        for pod in &node.pods {
            build::pod_link(self.topology(), node.netns(), pod)?;
        }
        Ok(())
    }
}

/// Ends a namespace now, whoever still holds it: its processes, its devices, its name.
fn end(netns: &Netns) -> Result<()> {
    for pid in netns.pids()? {
        send_signal(pid, Signal::SIGKILL)?;
    }
    let devices = netns.output("ip", &["-o", "link", "show"])?;
    for line in devices.lines() {
        let name = line.split(':').nth(1).map(str::trim).unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default();
        if name != "lo" {
            // The other end of a pair may have taken it along.
            netns.output("ip", &["link", "del", name]).ok();
        }
    }
    crate::io::ip_batch(None, &format!("netns del {}\n", netns.name()))
}
