//! One data plane takes the place of another, with both running (see [`crate::handover`]).

use super::Held;
use super::signals::{Event, wait};
use crate::io::{clock, descriptor_pass};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A successor that has not taken over by then is stuck. With 25,000 peers it takes a few seconds.
const HANDOVER: Duration = Duration::from_secs(30);

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
        let mut new = match self.start_beside(&old) {
            Ok(new) => new,
            Err(error) => {
                warn!(%error, program = %self.program.display(), "successor could not be started: the data plane goes on");
                return Ok(Some(old));
            }
        };
        let end = clock::now() + HANDOVER;
        let mut again = false;
        let left = loop {
            if old.child.try_wait()?.is_some() {
                break new;
            }
            if new.child.try_wait()?.is_some() {
                warn!("successor ended: the data plane goes on");
                break old;
            }
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                // The old one carries packets; this one has not shown that it can.
                warn!("successor did not take over in time and is ended: the data plane goes on");
                new.kill();
                break old;
            }
            match wait(&mut old.child, signals, Some(left))? {
                Event::Stop => {
                    old.kill();
                    new.kill();
                    info!("stopped: device, routes and guard stay");
                    return Ok(None);
                }
                Event::Renew => again = true,
                Event::Ended | Event::Nothing => {}
            }
        };
        if again {
            // The program may be another one since.
            nix::sys::signal::raise(Signal::SIGHUP)?;
        }
        Ok(Some(left))
    }

    fn start_beside(&self, old: &Running) -> io::Result<Running> {
        let (told, taker) = UnixStream::pair()?;
        let mut new = self.start(&self.program, Some(&taker))?;
        if let Err(error) = descriptor_pass::send(&old.heir, &told) {
            new.kill();
            return Err(error);
        }
        Ok(new)
    }
}
