//! Who wants to hear of records as they come.

use crate::agent_socket::WatchLine;
use crate::record::Key;
use crate::replica::Filter;
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<Watcher>);

#[derive(Debug)]
struct Watcher {
    filter: Filter,
    values: bool,
    lines: mpsc::Sender<WatchLine>,
}

impl Watchers {
    pub(super) fn add(&mut self, filter: Filter, values: bool, lines: mpsc::Sender<WatchLine>) {
        self.0.push(Watcher {
            filter,
            values,
            lines,
        });
    }

    pub(super) fn apply(&mut self, origin: ClusterId, key: &Key, value: &Bytes) {
        self.tell(Some(key), |watcher, at_ns| WatchLine::Apply {
            origin,
            key: key.to_string(),
            value: watcher.values.then(|| hexadecimal(value)),
            at_ns,
        });
    }

    pub(super) fn delete(&mut self, origin: ClusterId, key: &Key) {
        self.tell(Some(key), |_, at_ns| WatchLine::Delete {
            origin,
            key: key.to_string(),
            at_ns,
        });
    }

    pub(super) fn forgotten(&mut self, origin: ClusterId) {
        self.tell(None, |_, at_ns| WatchLine::Forgotten { origin, at_ns });
    }

    /// Tells those who want it. Who reads too slowly is let go: its channel ends behind what it has.
    fn tell(&mut self, key: Option<&Key>, line: impl Fn(&Watcher, u64) -> WatchLine) {
        if self.0.is_empty() {
            return;
        }
        let at_ns = now_ns();
        self.0.retain(|watcher| {
            if key.is_some_and(|key| !watcher.filter.covers(key)) {
                return !watcher.lines.is_closed();
            }
            watcher.lines.try_send(line(watcher, at_ns)).is_ok()
        });
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
