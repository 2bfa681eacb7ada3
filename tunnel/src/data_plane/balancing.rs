//! The thread that opens and closes lanes by the load.

use super::DataPlane;
use super::lane_io::LaneIo;
use crate::balance::{Balance, Usage};
use crate::io::clock;
use nix::poll::{PollTimeout, poll};
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tracing::{debug, warn};

/// How often it looks, in milliseconds.
const SAMPLE_MS: u16 = 100;

/// A reading of the two threads of a lane.
type Times = [Usage; 2];

impl DataPlane {
    /// Begins with the lanes that are always open, whatever a data plane before this one had. There is no thread
    /// where there is nothing to decide.
    pub(super) fn start_balancing(self: &Arc<Self>) -> io::Result<()> {
        let lanes = self.open_lanes.load(Ordering::Relaxed);
        if lanes == 1 {
            return Ok(());
        }
        let processors = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let balance = Balance::new(self.options.open_lanes, lanes, processors);
        if let Err(error) = self.open_lanes(balance.open()) {
            // The keeper has said why, when it found out.
            debug!(%error, "all lanes are open");
            return Ok(());
        }
        if balance.most() == balance.open() {
            return Ok(());
        }
        let plane = Arc::clone(self);
        thread::Builder::new()
            .name("balance".to_owned())
            .spawn(move || {
                if let Err(error) = plane.balance(balance) {
                    // Better a lane too many than one too few.
                    warn!(%error, "load of lanes cannot be told: they stay open");
                    if let Err(error) = plane.open_lanes(balance.most()) {
                        warn!(%error, "lanes could not be opened");
                    }
                }
            })?;
        Ok(())
    }

    fn balance(&self, mut balance: Balance) -> io::Result<()> {
        let mut before = self.times()?;
        let mut read = clock::now();
        loop {
            // The process has nothing else to wait for here: time itself is the event.
            let _ = poll(&mut [], PollTimeout::from(SAMPLE_MS));
            let (times, now) = (self.times()?, clock::now());
            let elapsed = now.saturating_duration_since(read);
            let busy = times.iter().zip(&before).map(|(times, before)| {
                let threads = times.iter().zip(before);
                let busy = threads.map(|(thread, before)| thread.since(*before).busy());
                busy.max().unwrap_or_default()
            });
            let busy: Vec<Duration> = busy.collect();
            (before, read) = (times, now);
            if self.heir.load().is_some() {
                // The lanes are about to be a successor's.
                continue;
            }
            if let Some(open) = balance.handle_sample(&busy, elapsed)
                && let Err(error) = self.open_lanes(open)
            {
                warn!(%error, "lanes stay as they are");
                return Ok(());
            }
        }
    }

    fn times(&self) -> io::Result<Vec<Times>> {
        let times = |lane: &LaneIo| Ok([lane.tap_time.read()?, lane.udp_time.read()?]);
        self.lanes.iter().map(times).collect()
    }
}
