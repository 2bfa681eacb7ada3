//! The node's links to the underlay: the one that it has, and one that may be plugged in.

use std::fmt::Write as _;

use anyhow::Result;

use super::Site;
use crate::lab::{Family, Lab, Link};

/// The router's end of a second link to that node, whose other end is [`PARKED`] until a way plugs it in.
const SPARE: &str = "spare";
/// The node's end of that link, while it is not plugged in.
const PARKED: &str = "parked";

/// Makes the second link; its sniffers see it from the router's side, as all others.
pub(super) fn spare_link(lab: &Lab) -> Result<()> {
    lab.router().ip_batch(&format!(
        "link add {SPARE} type veth peer name {PARKED}\nlink set {SPARE} master br0\nlink set {SPARE} up\n"
    ))
}

/// Where it is sniffed.
pub(super) fn spare(lab: &Lab) -> Link {
    Link {
        name: SPARE.to_owned(),
        netns: lab.router().clone(),
        device: SPARE.to_owned(),
    }
}

impl Site {
    /// Gives `eth0`, or what took its place, the node's addresses and default routes.
    pub(super) fn address_underlay(&self, device: &str) -> Result<()> {
        let mut text =
            format!("ip link set {device} up\nip addr replace fe80::1:1/64 dev {device} nodad\n");
        for family in Family::BOTH {
            let (address, gateway) = (self.node().underlay(family), self.gateway(family));
            let (length, nodad) = match family {
                Family::V4 => (24, ""),
                Family::V6 => (64, "nodad"),
            };
            writeln!(
                text,
                "ip addr replace {address}/{length} dev {device} {nodad}"
            )?;
            writeln!(
                text,
                "ip {} route replace default via {gateway} dev {device}",
                family.flag()
            )?;
        }
        self.script(&text)
    }

    /// Takes `eth0` out of the node; the link to the router stays.
    pub(super) fn unplug(&self) -> Result<()> {
        let router = self.lab.router().name();
        self.script(&format!("ip link set eth0 netns {router} name unplugged"))
    }

    /// Puts it back, as a new device with the old name.
    pub(super) fn plug(&self) -> Result<()> {
        let node = self.netns().name();
        self.router_script(&format!("ip link set unplugged netns {node} name eth0"))?;
        self.address_underlay("eth0")
    }

    /// Plugs in the second link as `eth1`, up and without an address.
    pub(super) fn plug_spare(&self) -> Result<()> {
        let node = self.netns().name();
        self.router_script(&format!("ip link set {PARKED} netns {node} name eth1"))?;
        self.script("ip link set eth1 up")
    }

    /// Takes it out again.
    pub(super) fn unplug_spare(&self) -> Result<()> {
        let router = self.lab.router().name();
        self.sweep(&format!("ip link set eth1 netns {router} name {PARKED}"))
    }
}
