//! Waits for any of several descriptors, or until a point in time, to the nanosecond.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::time::TimeSpec;

/// One thread waits; others may add descriptors or wake it. A descriptor that is closed is forgotten by itself.
#[derive(Debug)]
pub struct Waiter {
    epoll: Epoll,
    alarm: EventFd,
}

impl Waiter {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> Result<Self> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("failed to make an epoll")?;
        let alarm = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("failed to make an eventfd")?;
        let waiter = Self { epoll, alarm };
        waiter.add(&waiter.alarm)?;
        Ok(waiter)
    }

    /// Waits for this descriptor to be readable as well.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn add(&self, descriptor: impl AsFd) -> Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.epoll
            .add(descriptor, event)
            .context("failed to wait for a descriptor")
    }

    /// Ends the wait of the other thread, or its next one.
    ///
    /// # Errors
    /// Never while this value lives.
    pub fn wake(&self) -> Result<()> {
        match self.alarm.write(1) {
            // It is full: the other thread is woken already.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error).context("failed to wake a thread"),
        }
    }

    /// Waits until a descriptor is readable, [`Self::wake`] was called, or `timeout` has passed.
    ///
    /// # Errors
    /// Never while this value lives.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        // By ppoll, as epoll's own timeout is in milliseconds.
        let mut ready = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut ready, timeout.map(TimeSpec::from), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("failed to wait for descriptors"),
        }
        match self.alarm.read() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error).context("failed to read an eventfd"),
        }
    }
}

/// Has the kernel wake the calling thread on time, and not up to 50 µs late to save power.
///
/// # Errors
/// Never on Linux.
pub fn wake_on_time() -> Result<()> {
    prctl::set_timerslack(1).context("failed to set the timer slack")
}
