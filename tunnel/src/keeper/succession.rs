//! One data plane takes the place of another, with both running (see [`crate::handover`]).

use super::Held;
use super::signals::{Event, wait};
use crate::io::{clock, descriptor_pass};
use nix::sys::signalfd::SignalFd;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A data plane that has not handed over by then is stuck.
const HANDOVER: Duration = Duration::from_secs(15);

/// A data plane that runs, and the way to tell it of its successor.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) heir: UnixStream,
    pub(super) started: Instant,
}

impl Running {
    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Held {
    /// Starts a data plane beside the one that runs, to take its place without losing a packet.
    /// Whichever of them fails, the other has everything. Returns the one that is left; `None` when
    /// a signal asked to stop.
    pub(super) fn hand_over(
        &self,
        mut old: Running,
        signals: &SignalFd,
    ) -> io::Result<Option<Running>> {
        let (told, taker) = UnixStream::pair()?;
        let mut new = match self.start(&self.program, Some(&taker)) {
            Ok(new) => new,
            Err(error) => {
                warn!(%error, program = %self.program.display(), "successor could not be started: the data plane goes on");
                return Ok(Some(old));
            }
        };
        drop(taker);
        if let Err(error) = descriptor_pass::send(&old.heir, &told) {
            // It has just ended, and its successor will see that.
            warn!(%error, "data plane could not be told of its successor");
        }
        drop(told);
        let end = clock::now() + HANDOVER;
        loop {
            if old.child.try_wait()?.is_some() {
                return Ok(Some(new));
            }
            if new.child.try_wait()?.is_some() {
                warn!("successor ended: the data plane goes on");
                return Ok(Some(old));
            }
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                warn!("data plane did not hand over in time: ended");
                old.kill();
                return Ok(Some(new));
            }
            if wait(&mut old.child, signals, Some(left))? == Event::Stop {
                old.kill();
                new.kill();
                info!("stopped: device, routes and guard stay");
                return Ok(None);
            }
        }
    }
}
