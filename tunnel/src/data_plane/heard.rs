//! How far the threads that read sockets have come: what a thread that watches peers must know of them.
//!
//! A reply that lies in a socket is not silence of the peer. So time counts for a verdict only as far as all that came
//! before was handed in, which three things tell: a socket that was read until it was empty; a socket that was read for
//! longer than its queue can be; and a thread that waits for a socket in which nothing is.

use crate::io::udp::Progress;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

/// How far a thread that reads sockets has come; on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Heard {
    start: Instant,
    /// All that came before was handed in; nanoseconds since `start`.
    until: AtomicU64,
    /// The thread waits: what is not in the sockets was handed in.
    waits: AtomicBool,
}

impl Heard {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            until: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }
    }

    /// Notes that all was handed in that came before `at`.
    pub(super) fn note(&self, at: Instant) {
        let since = at.saturating_duration_since(self.start).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.until.store(since, Ordering::Release);
    }

    /// Notes whether the thread waits. It says that it does not before it reads.
    pub(super) fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
        // Whoever finds nothing in the socket because it was read also finds this.
        fence(Ordering::SeqCst);
    }

    /// All that came before was handed in. `is_readable` says whether there is something in the sockets.
    pub(super) fn until(&self, now: Instant, is_readable: impl FnOnce() -> bool) -> Instant {
        if self.waits.load(Ordering::Acquire) && !is_readable() {
            fence(Ordering::SeqCst);
            if self.waits.load(Ordering::Acquire) {
                return now;
            }
        }
        self.start + Duration::from_nanos(self.until.load(Ordering::Acquire))
    }
}

/// How far the queues of the two sockets of a lane were read.
#[derive(Debug)]
pub(super) struct Backlog([Queue; 2]);

#[derive(Debug)]
struct Queue {
    /// All that came before was read.
    until: Instant,
    /// Since when it was read without an end, and how many bytes.
    endless: Option<(Instant, usize)>,
}

impl Backlog {
    /// Nothing was read before `now`.
    pub(super) fn new(now: Instant) -> Self {
        let queue = || Queue {
            until: now,
            endless: None,
        };
        Self([queue(), queue()])
    }

    /// Takes what a read that began at `at` made of each queue; `None`: it was not read. Returns until when all was read.
    pub(super) fn read(&mut self, progress: [Option<Progress>; 2], at: Instant) -> Instant {
        for (queue, progress) in self.0.iter_mut().zip(progress) {
            if let Some(progress) = progress {
                queue.read(progress, at);
            }
        }
        let [v4, v6] = &self.0;
        v4.until.min(v6.until)
    }
}

impl Queue {
    fn read(&mut self, progress: Progress, at: Instant) {
        if progress.emptied {
            (self.until, self.endless) = (at, None);
            return;
        }
        let (since, bytes) = self.endless.unwrap_or((at, 0));
        let bytes = bytes.saturating_add(progress.bytes);
        // It is read in order: what was there at the beginning is out when more was than it can hold.
        self.endless = match bytes >= progress.capacity {
            true => {
                self.until = since;
                None
            }
            false => Some((since, bytes)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock;

    const MS: Duration = Duration::from_millis(1);

    fn progress(bytes: usize, emptied: bool) -> Progress {
        Progress {
            bytes,
            emptied,
            capacity: 1_000,
        }
    }

    #[test]
    fn a_queue_is_read_when_it_was_empty_or_when_more_came_out_than_it_holds() {
        let start = clock::now();
        let mut backlog = Backlog::new(start);
        let mut read = |v4, v6: Option<Progress>, ms| {
            let read = backlog.read([Some(v4), v6], start + MS * ms);
            (read - start).as_millis()
        };
        assert_eq!(read(progress(100, true), Some(progress(0, true)), 1), 1);
        assert_eq!(read(progress(10, true), None, 2), 1, "one was not read");
        assert_eq!(read(progress(10, true), Some(progress(0, true)), 3), 3);
        assert_eq!(read(progress(500, false), Some(progress(0, true)), 4), 3);
        assert_eq!(read(progress(499, false), Some(progress(0, true)), 5), 3);
        assert_eq!(read(progress(1, false), Some(progress(0, true)), 6), 4);
        assert_eq!(read(progress(999, false), Some(progress(0, true)), 7), 4);
        assert_eq!(read(progress(0, true), Some(progress(0, true)), 8), 8);
        assert_eq!(
            read(progress(1_000, false), Some(progress(400, false)), 9),
            8,
            "each has its own queue"
        );
    }

    #[test]
    fn who_waits_at_an_empty_socket_has_handed_in_all() {
        let start = clock::now();
        let heard = Heard::new(start);
        let until =
            |now, readable| (heard.until(start + MS * now, || readable) - start).as_millis();
        assert_eq!(until(10, false), 0, "it has not begun");
        heard.note(start + MS * 20);
        assert_eq!(until(30, false), 20, "it is at work");
        heard.set_waits(true);
        assert_eq!(until(40, false), 40);
        assert_eq!(until(50, true), 20, "it was not woken yet");
        heard.set_waits(false);
        assert_eq!(until(60, false), 20, "it took what there was");
    }
}
