//! What agents cost that ask for everything and do not read it: their hub's memory, and the time of others.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;

use super::changes;
use super::measurement::HUB_MORE;
use super::site::{GUESTS, Site};
use crate::bench::meter::{Usage, resident_memory};
use crate::bench::sample::Values;

/// Connections that a hub lets a node have at once.
const OF_EACH: usize = 3;
/// All connections that are not read.
pub(super) const READERS: usize = GUESTS.len() * OF_EACH;

/// Agents that do not read, each in a thread that keeps its connections alive.
#[derive(Debug)]
struct Readers(Vec<(oneshot::Sender<()>, JoinHandle<Result<()>>)>);

impl Readers {
    fn connect(site: &Site) -> Result<Self> {
        let mut readers = Vec::new();
        for guest in site.guests_of_serving()? {
            let before = site.far().versions()?;
            let (stop, stopped) = oneshot::channel();
            let (tell, told) = mpsc::channel();
            let hold = move || guest.hold(OF_EACH, &before, &tell, stopped);
            let thread = thread::spawn(hold);
            if told.recv().is_err() {
                let error = ended(thread).err();
                return Err(error.context("a reader ended by itself")?);
            }
            readers.push((stop, thread));
        }
        Ok(Self(readers))
    }

    /// Fails if the hub gave one of them up.
    fn end(self) -> Result<()> {
        for (stop, thread) in self.0 {
            stop.send(()).ok();
            ended(thread)?;
        }
        Ok(())
    }
}

fn ended(thread: JoinHandle<Result<()>>) -> Result<()> {
    let joined = thread.join();
    joined.map_err(|_| anyhow!("a reader panicked"))?
}

pub(super) fn measure(site: &mut Site, seconds: u32) -> Result<(Values, Usage)> {
    let before = resident_memory(site.hub()?)?;
    let readers = Readers::connect(site)?;
    let (mut values, usage) = changes::measure(site, seconds)?;
    let after = resident_memory(site.hub()?)?;
    readers.end()?;
    values.insert(HUB_MORE, (after - before).max(0.0));
    Ok((values, usage))
}
