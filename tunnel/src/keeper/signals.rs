//! What a keeper waits for: signals, and the end of its data plane.

use crate::io::clock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::AsFd as _;
use std::process::Child;
use std::time::Duration;

/// Blocks the signals that the keeper acts on, and reads them from a descriptor instead.
pub(super) fn signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// What a keeper waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The child ended.
    Ended,
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP: another data plane shall take over, by the binary that is there now.
    Renew,
    /// Another child ended, or time is up.
    Nothing,
}

/// Waits for the child's end, for a signal, or for `limit` at most.
pub(super) fn wait(
    child: &mut Child,
    signals: &SignalFd,
    limit: Option<Duration>,
) -> io::Result<Event> {
    if child.try_wait()?.is_some() {
        return Ok(Event::Ended);
    }
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let limit = limit.map_or(PollTimeout::NONE, |limit| {
        PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, limit) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let asked = asked(signals);
    if asked == Event::Nothing && child.try_wait()?.is_some() {
        return Ok(Event::Ended);
    }
    Ok(asked)
}

/// Reads all signals that wait: to stop comes before everything else.
fn asked(signals: &SignalFd) -> Event {
    let mut asked = Event::Nothing;
    while let Ok(Some(signal)) = signals.read_signal() {
        match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
            Ok(Ok(Signal::SIGCHLD)) => {}
            Ok(Ok(Signal::SIGHUP)) if asked == Event::Nothing => asked = Event::Renew,
            Ok(Ok(Signal::SIGHUP)) => {}
            Ok(_) | Err(_) => asked = Event::Stop,
        }
    }
    asked
}

/// Waits a little; whether a signal asked to stop meanwhile.
pub(super) fn pause(signals: &SignalFd, pause: Duration) -> bool {
    let end = clock::now() + pause;
    loop {
        let left = end.saturating_duration_since(clock::now());
        if left.is_zero() {
            return false;
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(
            &mut fds,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        );
        if asked(signals) == Event::Stop {
            return true;
        }
    }
}
