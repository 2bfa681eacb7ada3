//! A reboot, as far as a namespace can have one: what the kernel held is gone, what is on disk stays.

use anyhow::Result;

use super::site::Site;

/// Ends everything and takes everything away that a reboot takes away; the pod's link is down.
pub(super) fn wipe(site: &mut Site) -> Result<()> {
    site.node_mut().kill_agent()?;
    site.node_mut().kill_keeper()?;
    let device = site.node().pod("a").host_device();
    site.script(&format!("ip link set {device} down"))?;
    site.unplug()?;
    site.sweep("ip link del hawser0")?;
    site.script("nft flush ruleset")?;
    site.script(&site.each_family(|flag, _| format!("ip {flag} route flush table main")))
}

/// The node's own network, before anything of ours.
pub(super) fn boot(site: &mut Site) -> Result<()> {
    site.plug()
}

/// The pod's link, as its plugin would make it.
pub(super) fn pods_up(site: &Site) -> Result<()> {
    let pod = site.node().pod("a");
    let (device, mac) = (pod.host_device(), pod.mac());
    let lines = pod.addresses().iter().map(|address| {
        let metric = if address.is_ipv4() { 200 } else { 2048 };
        format!(
            "ip neigh replace {address} lladdr {mac} dev {device} nud permanent\n\
             ip route replace {address} dev {device} metric {metric}\n"
        )
    });
    site.script(&format!(
        "ip link set {device} up\n{}",
        lines.collect::<String>()
    ))
}
