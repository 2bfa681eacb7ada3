//! The thread that watches peers.

use super::DataPlane;
use super::lane_io::LaneIo;
use crate::io::clock;
use crate::liveness::{Event, TICK};
use crate::outgoing::PerLane;
use std::io;
use std::time::Duration;
use tracing::{info, warn};

/// Between two looks at least, however late it is.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

impl DataPlane {
    /// Watches peers, for ever; sleeps while there are none to watch.
    pub(super) fn watch_peers(&self) -> io::Result<()> {
        let _ = self.watcher.set(std::thread::current());
        let mut out = PerLane::default();
        let mut last = clock::now();
        loop {
            let Some(due) = self.device.watch_timeout() else {
                std::thread::park();
                continue;
            };
            let pause = due.saturating_duration_since(clock::now());
            std::thread::park_timeout(pause.clamp(LEAST_PAUSE, TICK));
            // Peers turn to the successor's sessions; it watches them.
            if self.heir.load().is_some() {
                continue;
            }
            let now = clock::now();
            let until = |lane: &LaneIo| lane.heard.until(now, || lane.udp.is_readable());
            let heard = self.lanes.iter().map(until).min().unwrap_or(now);
            if heard > last {
                last = heard;
                self.device.handle_watch_timeout(heard, now, &mut out);
            }
            while let Some((peer, event)) = self.device.poll_liveness(now, &mut out) {
                match event {
                    Event::Alive { silent } => {
                        info!(%peer, silent_ms = silent.as_millis(), "peer is alive");
                    }
                    Event::Dead { silent } => {
                        warn!(%peer, silent_ms = silent.as_millis(), "peer is dead");
                    }
                }
            }
            self.transmit(&out);
            out.clear();
        }
    }

    /// Wakes the thread that watches: there may be somebody to watch.
    pub(super) fn wake_watcher(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }
}
