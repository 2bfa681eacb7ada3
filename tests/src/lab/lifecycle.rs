//! How a lab begins and ends.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};

use super::node::Link;
use super::record::{Record, records};
use super::topology::Topology;
use super::wire::{self, Wire};
use super::{Lab, READY, address, build, cable, configure, hub, janitor, remove_everything_of};
use crate::io::{Netns, is_alive};

impl Lab {
    /// Builds the network. No program of ours runs yet.
    ///
    /// # Errors
    /// When the topology is wrong, without root, or when the kernel refuses something; nothing is left then.
    pub fn new(topology: Topology) -> Result<Self> {
        topology.check()?;
        if !nix::unistd::geteuid().is_root() {
            bail!("not root: a lab makes network namespaces; run it as root");
        }
        let seed: [u8; 19] = random()?;
        let id: String = seed[..3].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut canary = [0; 16];
        canary.copy_from_slice(&seed[3..]);
        let owner = i32::try_from(std::process::id()).context("process id does not fit")?;
        let record = Record {
            id,
            name: None,
            kept: false,
            owner,
            canary,
            topology,
        };

        let janitor = janitor::Janitor::hire(&record.id)?;
        match Self::build(record) {
            Ok(mut lab) => {
                lab.janitor = Some(janitor);
                Ok(lab)
            }
            Err(error) => {
                janitor.remove().ok();
                Err(error)
            }
        }
    }

    /// Builds the network, starts everything and waits until every tunnel has shaken hands with every other.
    ///
    /// # Errors
    /// As [`Self::new`], [`Self::start`] and [`Self::wait_ready`].
    pub fn running(topology: Topology) -> Result<Self> {
        let mut lab = Self::new(topology)?;
        lab.start()?;
        lab.wait_ready(READY)?;
        if !lab.hubs().is_empty() {
            lab.wait_keyed(READY)?;
        }
        Ok(lab)
    }

    /// Opens a lab by its name; without a name the only one there is. Dropping the result leaves it standing.
    ///
    /// # Errors
    /// When there is no such lab, or no name was given and there are several.
    pub fn open(name: Option<&str>) -> Result<Self> {
        let mut kept: Vec<Record> = records()
            .into_iter()
            .filter(|record| record.name.is_some())
            .collect();
        if let Some(name) = name {
            kept.retain(|record| record.name.as_deref() == Some(name));
        }
        let names: Vec<&str> = kept
            .iter()
            .filter_map(|record| record.name.as_deref())
            .collect();
        match names.as_slice() {
            [] => match name {
                Some(name) => bail!("no lab is called {name}; `lab list` shows what there is"),
                None => bail!("no lab is up; `lab up FILE` or `lab demo --keep` makes one"),
            },
            [_] => {}
            [..] => bail!(
                "several labs are up ({}); choose one by --name",
                names.join(", ")
            ),
        }
        let record = kept.swap_remove(0);
        let router = Netns::open(&format!("hw{}-rt", record.id))?.marked(&record.id);
        let opened =
            |name: &str| Ok(Netns::open(&format!("hw{}-{name}", record.id))?.marked(&record.id));
        let link = |name: &str, cluster: u16, index: u16| {
            if record.topology.underlay.direct {
                return cable::link(&record.topology, name, opened);
            }
            Ok(Link {
                name: name.to_owned(),
                netns: router.clone(),
                device: format!("p{cluster}-{index}"),
            })
        };
        let nodes = configure::nodes(&record, opened, link)?;
        let hubs = hub::hubs(&record, &nodes);
        Ok(Self {
            record,
            router,
            nodes,
            hubs,
            guests: Vec::new(),
            _wires: None,
            janitor: None,
        })
    }

    fn build(record: Record) -> Result<Self> {
        record.write()?;
        let prefix = format!("hw{}-", record.id);
        let mut names = vec![format!("{prefix}rt")];
        for cluster in &record.topology.clusters {
            for index in 1..=cluster.nodes {
                names.push(format!("{prefix}{}-{index}", cluster.name));
                names.extend((1..=cluster.pods).map(|pod| {
                    format!("{prefix}{}-{index}-{}", cluster.name, address::letters(pod))
                }));
            }
        }
        let namespaces = build::namespaces(&names, &record.id)?;
        let find = |name: &str| {
            let full = format!("{prefix}{name}");
            let found = namespaces.iter().find(|netns| netns.name() == full);
            found
                .cloned()
                .with_context(|| format!("no namespace {full}"))
        };
        let router = find("rt")?;
        build::router(&record.topology, &router)?;
        let wires = if record.topology.underlay.wired.is_none() {
            None
        } else {
            Some(wire::start_process(&record.id)?)
        };
        let directory = Record::directory_of(&record.id);
        if record.topology.underlay.direct {
            cable::lay(&record.topology, find)?;
        }
        let link = |name: &str, cluster: u16, index: u16| {
            if record.topology.underlay.direct {
                return cable::link(&record.topology, name, find);
            }
            let wired = record.topology.is_wired(name);
            let wire = wired.then(|| Wire::new(name, &directory));
            let ends = build::Ends {
                router: &router,
                netns: &find(name)?,
                name,
                cluster,
                index,
            };
            build::underlay_link(&record.topology, &ends, wire.as_ref())
        };
        let nodes = configure::nodes(&record, find, link)?;
        for node in nodes
            .iter()
            .filter(|node| record.topology.is_wired(node.name()))
        {
            // One end of a wire was up before the other. Its account begins when the network stands.
            Wire::new(node.name(), &directory).rewind(None)?;
        }
        for node in &nodes {
            std::fs::create_dir_all(node.state_dir())
                .with_context(|| format!("failed to make {}", node.state_dir().display()))?;
            for pod in node.pods() {
                build::pod_link(&record.topology, node.netns(), pod)?;
            }
        }
        let hubs = hub::hubs(&record, &nodes);
        Ok(Self {
            record,
            router,
            nodes,
            hubs,
            guests: Vec::new(),
            _wires: wires,
            janitor: None,
        })
    }

    /// Gives the lab a name, by which [`Self::open`] finds it while it stands.
    ///
    /// # Errors
    /// When another lab has that name.
    pub fn call(&mut self, name: &str) -> Result<()> {
        check_name(name)?;
        self.record.name = Some(name.to_owned());
        self.record.write()
    }

    /// Leaves the lab standing when this value is dropped. It should have a name then.
    ///
    /// # Errors
    /// When the lab is being removed already.
    pub fn keep(&mut self) -> Result<()> {
        self.record.kept = true;
        self.record.write()?;
        if let Some(janitor) = self.janitor.take() {
            janitor.dismiss()?;
        }
        Ok(())
    }

    /// Removes the lab now, also one that was kept.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn remove(mut self) -> Result<()> {
        match self.janitor.take() {
            Some(janitor) => janitor.remove(),
            None => remove_everything_of(&self.record.id),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(janitor) = self.janitor.take()
            && let Err(error) = janitor.remove()
        {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "warning: {error:#}").ok();
        }
    }
}

/// Checks that a lab may be kept under `name`.
///
/// # Errors
/// When the name is taken or not a plain word.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
        bail!("name: {name:?}: must be 1 to 40 letters, digits, '-', '_' or '.'");
    }
    if records()
        .iter()
        .any(|record| record.name.as_deref() == Some(name))
    {
        bail!("name: {name}: a lab of that name is up; choose another or `lab down --name {name}`");
    }
    Ok(())
}

/// Whether the process that made a lab which was not kept is still there.
#[must_use]
pub fn is_held(record: &Record) -> bool {
    !record.kept && is_alive(record.owner)
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let mut source = File::open("/dev/urandom").context("failed to open /dev/urandom")?;
    source
        .read_exact(&mut bytes)
        .context("failed to read /dev/urandom")?;
    Ok(bytes)
}
