//! Processes: what a child inherits, and what it gives up before it touches a packet.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets a child inherit descriptors under the numbers that they have here, and has the kernel kill
/// it when its parent dies.
pub fn inherit(command: &mut Command, fds: Vec<RawFd>) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        // SIGHUP is for the keeper, though it is often sent to all processes of a service.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGHUP);
        blocked.thread_set_mask()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            return Err(io::Error::other("the keeper died"));
        }
        for &fd in &fds {
            keep_open(fd)?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: the closure makes system calls only (sigprocmask, prctl, getppid, fcntl): no allocation on its
    // way to success and no lock that another thread of the parent could hold.
    unsafe {
        command.pre_exec(prepare);
    }
}

fn keep_open(fd: RawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "fcntl on a number")]
    // SAFETY: F_SETFD changes a flag of the descriptor and touches no memory; a number that is not
    // open is answered with EBADF.
    let done = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if done == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes ownership of a descriptor that was inherited.
///
/// Call once for each number, in a process that was started for this.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "fcntl on a number")]
    // SAFETY: F_SETFD changes a flag of the descriptor and touches no memory.
    let done = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if fd < 3 || done == -1 {
        return Err(io::Error::other(format!(
            "descriptor {fd} was not inherited"
        )));
    }
    #[expect(
        unsafe_code,
        reason = "the number is the only name that an inherited descriptor has"
    )]
    // SAFETY: the call above showed it open; the keeper passes each number once, and nothing else
    // in this process has opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends the process when any of its threads panics: half a process would look alive and carry
/// nothing. Whoever started it starts the next.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "bug: the process ends");
        std::process::abort();
    }));
}

/// Gives up every capability and the way to get one back; core dumps and debuggers stay out.
pub fn drop_privileges() -> io::Result<()> {
    let failed = |error: caps::errors::CapsError| {
        io::Error::other(format!("failed to drop capabilities: {error}"))
    };
    for capability in caps::all() {
        // One that this kernel does not know cannot be dropped, and cannot be had either.
        let _ = caps::drop(None, caps::CapSet::Bounding, capability);
    }
    for set in [
        caps::CapSet::Ambient,
        caps::CapSet::Inheritable,
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(failed)?;
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

/// Whether this process may configure the network.
pub fn may_configure_network() -> bool {
    caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_NET_ADMIN,
    )
    .unwrap_or(false)
}
