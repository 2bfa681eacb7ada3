//! Processes of this machine: who is there, who is whose child, and signals.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::IntoRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::Pid;

/// Sends a signal to one process; one that is gone already is no error.
///
/// # Errors
/// When the signal may not be sent.
pub fn send_signal(pid: i32, signal: Signal) -> Result<()> {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("failed to send {signal} to process {pid}"))
        }
    }
}

/// Whether a process exists and is not just a zombie that waits to be reaped.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Every process id there is.
#[must_use]
pub fn process_ids() -> BTreeSet<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The living children of a process.
#[must_use]
pub fn children_of(pid: i32) -> Vec<i32> {
    process_ids()
        .into_iter()
        .filter(|candidate| {
            stat(*candidate).is_some_and(|(state, parent)| parent == pid && state != 'Z')
        })
        .collect()
}

/// Whether a process was started with `variable=value` in its environment.
#[must_use]
pub fn has_environment(pid: i32, variable: &str, value: &str) -> bool {
    let wanted = format!("{variable}={value}");
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|content| {
        content
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    })
}

/// Where [`note_signal`] writes to.
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

/// Runs `action` on a thread when the process gets SIGINT, SIGTERM or SIGHUP, in place of dying at once.
///
/// By a handler and not by blocking the signals: programs that are started inherit what is blocked, and could then not
/// be stopped by SIGTERM.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_interrupt(action: impl FnOnce(Signal) + Send + 'static) -> Result<()> {
    let (mut reader, writer) = UnixStream::pair().context("failed to make a pipe")?;
    writer
        .set_nonblocking(true)
        .context("failed to make a pipe")?;
    SIGNALLED.store(writer.into_raw_fd(), Ordering::Relaxed);
    let handler = SigAction::new(
        SigHandler::Handler(note_signal),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only writes a byte to a socket, which is allowed in a handler.
        #[expect(unsafe_code, reason = "installing a signal handler")]
        unsafe { signal::sigaction(signal, &handler) }
            .context("failed to install a signal handler")?;
    }
    let thread = thread::Builder::new().name("interrupt".into());
    let waiting = move || {
        let mut number = [0];
        if reader.read_exact(&mut number).is_ok()
            && let Ok(signal) = Signal::try_from(i32::from(number[0]))
        {
            action(signal);
        }
    };
    thread
        .spawn(waiting)
        .context("failed to start the interrupt thread")?;
    Ok(())
}

extern "C" fn note_signal(number: libc::c_int) {
    let byte = number.to_le_bytes()[0];
    // SAFETY: writes one byte of a local variable; a bad descriptor is only an error.
    #[expect(unsafe_code, reason = "write(2) is what a signal handler may call")]
    unsafe {
        libc::write(
            SIGNALLED.load(Ordering::Relaxed),
            std::ptr::from_ref(&byte).cast(),
            1,
        );
    }
}

/// A process in a few words: number, name, state, parent.
#[must_use]
pub fn describe_process(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match stat(pid) {
        Some((state, parent)) => format!(
            "process {pid} ({}, state {state}, child of {parent})",
            name.trim()
        ),
        None => format!("process {pid} (gone)"),
    }
}

/// State letter and parent of a process.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything, brackets too.
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
