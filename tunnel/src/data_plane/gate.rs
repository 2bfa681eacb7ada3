//! Stops a thread that carries packets, between two batches, and lets it go on.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// One thread passes here before each batch.
#[derive(Debug)]
pub(super) struct Gate {
    closed: AtomicBool,
    parked: Mutex<bool>,
    changed: Condvar,
    wake: EventFd,
}

impl Gate {
    /// Open, or closed before its thread starts.
    pub(super) fn new(closed: bool) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            closed: AtomicBool::new(closed),
            parked: Mutex::new(false),
            changed: Condvar::new(),
            wake: EventFd::from_flags(flags)?,
        })
    }

    /// Becomes readable when the thread shall come here.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Returns at once while the gate is open; waits otherwise.
    pub(super) fn pass(&self) {
        if !self.closed.load(Ordering::Acquire) {
            return;
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        *parked = true;
        self.changed.notify_all();
        while self.closed.load(Ordering::Acquire) {
            parked = self
                .changed
                .wait(parked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *parked = false;
    }

    /// Wakes the thread where it waits for something else: there is work that it does not see.
    pub(super) fn nudge(&self) {
        let _ = self.wake.write(1);
    }

    /// The thread has come, for whatever it was woken.
    pub(super) fn calm(&self) {
        let _ = self.wake.read();
    }

    /// Closes it, and returns when the thread waits: what it carried has been sent.
    pub(super) fn close(&self) -> io::Result<()> {
        self.closed.store(true, Ordering::Release);
        self.wake.write(1)?;
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        while !*parked {
            parked = self
                .changed
                .wait(parked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Lets the thread go on.
    pub(super) fn open(&self) {
        let _ = self.wake.read();
        let _parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(false, Ordering::Release);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_closed_gate_holds_its_thread_and_an_open_one_lets_it_go_on() {
        let gate = Arc::new(Gate::new(false).unwrap());
        let passed = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_gate, its_passed, its_stop) =
            (Arc::clone(&gate), Arc::clone(&passed), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !its_stop.load(Ordering::Relaxed) {
                its_gate.pass();
                its_passed.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        for _ in 0..100 {
            gate.close().unwrap();
            let held = passed.load(Ordering::Relaxed);
            std::thread::yield_now();
            assert_eq!(passed.load(Ordering::Relaxed), held);
            gate.open();
            while passed.load(Ordering::Relaxed) == held {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
