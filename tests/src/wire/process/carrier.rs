//! Carries the frames of one wire between its two TAPs.

use std::io::{Write as _, stderr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::lock;
use crate::io::{Netns, Tap, TapOutcome, Waiter, device_drops, wake_on_time};
use crate::wire::fate::Dice;
use crate::wire::{Attach, Counts, Kind, Link, Log, Request, Way, WireState};

/// Frames that are read from one end before the other has its turn.
const BATCH: usize = 64;
/// Rounds of [`BATCH`] that are read before a change: more than the queues of both devices hold.
const DRAIN: usize = 2 * 10_000 / BATCH;
/// The longest frame: the largest MTU of a TAP, and a VLAN tag beyond it.
const LONGEST: usize = 65_536 + 18;

/// One wire, shared between its thread and those that answer requests.
#[derive(Debug)]
pub(super) struct Carrier {
    waiter: Waiter,
    wire: Mutex<Wire>,
}

#[derive(Debug)]
struct Wire {
    node: String,
    link: Link,
    ends: Option<Ends>,
    counts: Counts,
    log: Log,
    log_path: PathBuf,
    seed: u64,
    cluster: u16,
    index: u16,
    buffer: Vec<u8>,
}

/// The TAPs, where frames of each way come from: the node's, then the router's.
#[derive(Debug)]
struct Ends {
    taps: [Tap; 2],
    /// Namespace and name of each.
    devices: [(Netns, String); 2],
    /// What the devices had dropped when that was counted last.
    drops_before: [u64; 2],
}

impl Carrier {
    /// Starts the thread of a wire, which has no ends yet.
    pub(super) fn start(node: &str, log_path: PathBuf, attach: &Attach) -> Result<Arc<Self>> {
        let wire = Wire {
            node: node.to_owned(),
            link: Link::new(Dice::new(attach.seed, attach.cluster, attach.index)),
            ends: None,
            counts: Counts::default(),
            log: Log::create(&log_path)?,
            log_path,
            seed: attach.seed,
            cluster: attach.cluster,
            index: attach.index,
            buffer: vec![0; LONGEST],
        };
        let carrier = Arc::new(Self {
            waiter: Waiter::new()?,
            wire: Mutex::new(wire),
        });
        let own = Arc::clone(&carrier);
        thread::Builder::new()
            .name(format!("wire-{node}"))
            .spawn(move || {
                if let Err(error) = own.carry() {
                    writeln!(stderr(), "error: {error:#}").ok();
                    // Half a wire would look like a fault that nobody asked for.
                    std::process::abort();
                }
            })
            .context("failed to start a thread")?;
        Ok(carrier)
    }

    fn carry(&self) -> Result<()> {
        wake_on_time()?;
        loop {
            let deadline = {
                let mut wire = lock(&self.wire);
                if wire.pump()? {
                    continue;
                }
                wire.link.deadline()
            };
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            self.waiter.wait(left)?;
        }
    }

    /// Makes both ends anew.
    pub(super) fn attach(&self, attach: &Attach) -> Result<WireState> {
        let mut wire = lock(&self.wire);
        wire.count_overruns();
        // First of all the names must be free again.
        wire.ends = None;
        let (node, router) = (Netns::open(&attach.netns)?, Netns::open(&attach.router)?);
        let taps = [
            Tap::create(&node, "eth0")?,
            Tap::create(&router, &attach.port)?,
        ];
        for tap in &taps {
            self.waiter.add(tap)?;
        }
        wire.ends = Some(Ends {
            taps,
            devices: [(node, "eth0".to_owned()), (router, attach.port.clone())],
            drops_before: [0; 2],
        });
        Ok(wire.state())
    }

    /// Does what a request other than [`Request::Attach`] says.
    pub(super) fn execute(&self, request: &Request) -> Result<WireState> {
        let mut wire = lock(&self.wire);
        // What was sent before the request is judged before it.
        for _ in 0..DRAIN {
            if !wire.pump()? {
                break;
            }
        }
        let now = Instant::now();
        match request {
            Request::Set(_, direction, impairment) => wire.link.set(*direction, *impairment, now),
            Request::Schedule(_, schedule) => {
                schedule.check()?;
                wire.link.install(schedule, now);
            }
            Request::Rewind(_, seed) => {
                wire.seed = seed.unwrap_or(wire.seed);
                let dice = Dice::new(wire.seed, wire.cluster, wire.index);
                wire.link.rewind(dice, now);
                wire.count_overruns();
                wire.counts = Counts::default();
                wire.log = Log::create(&wire.log_path)?;
            }
            Request::Flush(_) => wire.log.flush()?,
            Request::Tell(_) | Request::Attach(..) => {}
        }
        // The thread of the wire has not seen the deadlines of what was read here.
        self.waiter.wake()?;
        Ok(wire.state())
    }
}

impl Wire {
    /// Reads what has come, up to a batch from each end, and delivers what is due. Returns whether there may be more.
    fn pump(&mut self) -> Result<bool> {
        let mut more = false;
        for way in Way::BOTH {
            let now = Instant::now();
            for count in 0..BATCH {
                let Some(ends) = &self.ends else {
                    break;
                };
                match ends.taps[way.index()].read(&mut self.buffer)? {
                    TapOutcome::Frame(length) => {
                        let frame = self.buffer.get(..length).unwrap_or_default();
                        let line = self.link.push(way, frame, now);
                        self.counts.add(&line);
                        self.log.write(&line);
                    }
                    TapOutcome::Nothing => break,
                    TapOutcome::Gone => self.lose_ends(),
                }
                more |= count + 1 == BATCH;
            }
            self.deliver()?;
        }
        Ok(more)
    }

    fn deliver(&mut self) -> Result<()> {
        while let Some((way, frame)) = self.link.poll(Instant::now()) {
            let taken = match &self.ends {
                Some(ends) => ends.taps[1 - way.index()].write(&frame)?,
                None => TapOutcome::Nothing,
            };
            match taken {
                TapOutcome::Frame(_) => {}
                TapOutcome::Nothing => self.counts.refuse(way, Kind::of(&frame)),
                TapOutcome::Gone => {
                    self.counts.refuse(way, Kind::of(&frame));
                    self.lose_ends();
                }
            }
            self.link.recycle(frame);
        }
        Ok(())
    }

    /// One end was removed: the other goes as well, as it does with a veth.
    fn lose_ends(&mut self) {
        self.ends = None;
        let node = &self.node;
        writeln!(
            stderr(),
            "node {node}: somebody removed its end of the wire"
        )
        .ok();
    }

    /// Adds what the devices have dropped since this was called last.
    fn count_overruns(&mut self) {
        let Some(ends) = &mut self.ends else {
            return;
        };
        let drops = ends.drops();
        for way in Way::BOTH {
            let (now, before) = (drops[way.index()], ends.drops_before[way.index()]);
            self.counts.overrun(way, now.saturating_sub(before));
        }
        ends.drops_before = drops;
    }

    fn state(&mut self) -> WireState {
        let now = Instant::now();
        self.count_overruns();
        WireState {
            out: self.link.impairment(Way::Out, now),
            inward: self.link.impairment(Way::In, now),
            counts: self.counts.clone(),
            unlogged: self.log.unlogged(),
            attached: self.ends.is_some(),
        }
    }
}

impl Ends {
    /// What the kernel could not put into each device's queue. A device that is gone has dropped nothing.
    fn drops(&self) -> [u64; 2] {
        let [node, router] = &self.devices;
        [node, router].map(|(netns, device)| device_drops(netns, device).unwrap_or_default())
    }
}
