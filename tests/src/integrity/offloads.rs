//! What the devices between two pods do with super-frames and checksums, and changes to it.

use std::fmt;

use anyhow::{Context as _, Result, ensure};

use crate::io::Netns;
use crate::lab::Lab;

/// Devices of a lab that are changed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The pods' ends of their links.
    Pod,
    /// The nodes' ends of them.
    PodPort,
    /// The tunnels' TAPs.
    Tunnel,
    /// The nodes' links to the underlay.
    Underlay,
    /// The router's ends of them.
    UnderlayPort,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pod,
        Self::PodPort,
        Self::Tunnel,
        Self::Underlay,
        Self::UnderlayPort,
    ];

    fn devices(self, lab: &Lab) -> Vec<(Netns, String)> {
        let node = |device: &str| {
            let nodes = lab.nodes().iter();
            nodes
                .map(|node| (node.netns().clone(), device.to_owned()))
                .collect()
        };
        match self {
            Self::Pod => lab
                .pods()
                .map(|pod| (pod.netns().clone(), "eth0".to_owned()))
                .collect(),
            Self::PodPort => lab
                .pods()
                .map(|pod| (lab.node(pod.node()).netns().clone(), pod.host_device()))
                .collect(),
            Self::Tunnel => node("hawser0"),
            Self::Underlay => node("eth0"),
            Self::UnderlayPort => lab
                .nodes()
                .iter()
                .map(|node| (lab.router().clone(), node.port_device().to_owned()))
                .collect(),
        }
    }
}

/// Checksums, to be made by the device.
const CHECKSUM: &str = "tx-checksumming";
/// TCP super-frames, to be cut by the device.
const TSO: &str = "tcp-segmentation-offload";
/// Super-frames of any kind, to be cut as late as possible.
const GSO: &str = "generic-segmentation-offload";
/// UDP super-frames, to be cut by the device.
const USO: &str = "tx-udp-segmentation";
/// Packets, to be joined on arrival.
const GRO: &str = "generic-receive-offload";
/// UDP packets that are forwarded, to be joined on arrival.
const GRO_UDP: &str = "rx-udp-gro-forwarding";

/// A change, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What it is.
    pub name: &'static str,
    places: &'static [Place],
    features: &'static [&'static str],
    on: bool,
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

const fn off(
    name: &'static str,
    places: &'static [Place],
    features: &'static [&'static str],
) -> Variant {
    Variant {
        name,
        places,
        features,
        on: false,
    }
}

const fn on(
    name: &'static str,
    places: &'static [Place],
    features: &'static [&'static str],
) -> Variant {
    Variant {
        name,
        places,
        features,
        on: true,
    }
}

const PODS: &[Place] = &[Place::Pod, Place::PodPort];
const UNDERLAY: &[Place] = &[Place::Underlay, Place::UnderlayPort];

/// Every change that is tried.
pub const VARIANTS: &[Variant] = &[
    on("as the kernel has it", &[], &[]),
    off("checksums off at the pods' end", &[Place::Pod], &[CHECKSUM]),
    off(
        "checksums off at the nodes' end of pod links",
        &[Place::PodPort],
        &[CHECKSUM],
    ),
    off("TSO off on pod links", PODS, &[TSO]),
    off("GSO off on pod links", PODS, &[GSO, TSO]),
    off("USO off on pod links", PODS, &[USO]),
    on("GRO on on pod links", PODS, &[GRO, GRO_UDP]),
    off(
        "all off on pod links",
        PODS,
        &[CHECKSUM, TSO, GSO, USO, GRO],
    ),
    off("checksums off on the TAP", &[Place::Tunnel], &[CHECKSUM]),
    off("TSO off on the TAP", &[Place::Tunnel], &[TSO]),
    off("USO off on the TAP", &[Place::Tunnel], &[USO]),
    off(
        "all off on the TAP",
        &[Place::Tunnel],
        &[CHECKSUM, TSO, GSO, USO, GRO],
    ),
    off("checksums off on the underlay", UNDERLAY, &[CHECKSUM]),
    off("GSO and USO off on the underlay", UNDERLAY, &[GSO, USO]),
    on("GRO on on the underlay", UNDERLAY, &[GRO, GRO_UDP]),
    off(
        "all off on the underlay",
        UNDERLAY,
        &[CHECKSUM, TSO, GSO, USO, GRO],
    ),
    off(
        "all off everywhere",
        &Place::ALL,
        &[CHECKSUM, TSO, GSO, USO, GRO],
    ),
    on("GRO on everywhere", &Place::ALL, &[GRO, GRO_UDP]),
];

/// A change in force. [`Self::undo`] takes it back.
#[derive(Debug)]
pub struct Offloads {
    changed: Vec<(Netns, String, &'static str, bool)>,
}

impl Offloads {
    /// Puts a change in force on every device of its places. A feature that a device has not, or that is fixed there,
    /// is left as it is.
    ///
    /// # Errors
    /// When a device is not there, or a feature that can be changed does not.
    pub fn apply(lab: &Lab, variant: &Variant) -> Result<Self> {
        let mut changed = Vec::new();
        for place in variant.places {
            for (netns, device) in place.devices(lab) {
                let before = features(&netns, &device)?;
                for name in variant.features {
                    let state = before.iter().find(|(known, ..)| known == name);
                    let Some((_, was, false)) = state.filter(|(_, was, _)| *was != variant.on)
                    else {
                        continue;
                    };
                    changed.push((netns.clone(), device.clone(), *name, *was));
                    // One that goes with another is changed already.
                    set(&netns, &device, name, variant.on)?;
                }
            }
        }
        Ok(Self { changed })
    }

    /// How many features of devices are other than before.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changed.len()
    }

    /// Makes everything as it was.
    ///
    /// # Errors
    /// When a device is not there any more.
    pub fn undo(self) -> Result<()> {
        for (netns, device, name, was) in &self.changed {
            set(netns, device, name, *was)?;
        }
        Ok(())
    }
}

fn set(netns: &Netns, device: &str, name: &str, on: bool) -> Result<()> {
    let is = |wanted: bool| -> Result<bool> {
        let now = features(netns, device)?;
        Ok(now
            .iter()
            .any(|(known, state, _)| known == name && *state == wanted))
    };
    if is(on)? {
        return Ok(());
    }
    netns.output(
        "ethtool",
        &["-K", device, name, if on { "on" } else { "off" }],
    )?;
    ensure!(is(on)?, "{device}: {name} does not change to {on}");
    Ok(())
}

/// Name, whether it is on, and whether it is fixed.
fn features(netns: &Netns, device: &str) -> Result<Vec<(String, bool, bool)>> {
    let text = netns.output("ethtool", &["-k", device])?;
    let features = text.lines().filter_map(|line| {
        let (name, state) = line.trim().split_once(": ")?;
        let on = state.starts_with("on");
        Some((name.to_owned(), on, state.contains("[fixed]")))
    });
    let features: Vec<_> = features.collect();
    features.first().context("ethtool says nothing")?;
    Ok(features)
}
