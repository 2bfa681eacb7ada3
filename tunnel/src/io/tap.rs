//! The TAP: layer 2, with virtio-net headers and the kernel's offloads.

use crate::inbound::DEVICE_MAC;
use crate::offload::{Offload, Offloads};
use crate::virtio;
use nix::errno::Errno;
use nix::sys::uio;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

mod ioctl;

/// A TAP that this process is attached to.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
}

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// The kernel has no TUN driver, or the container no device.
    #[error(
        "/dev/net/tun: not found: load the kernel module tun, or give the container the device"
    )]
    NoDriver(#[source] io::Error),
    /// The device may not be opened.
    #[error("/dev/net/tun: not permitted: run as root with CAP_NET_ADMIN")]
    NotPermitted(#[source] io::Error),
    /// Another process has it.
    #[error("device {0}: in use by another process: is a second hawser-tunnel running?")]
    InUse(String),
    /// There is a device of that name that is no TAP of ours.
    #[error(
        "device {0}: exists and is no TAP with our flags, which differ between one lane and several: choose another name by --device, or remove it by `ip link delete {0}`"
    )]
    Foreign(String),
    /// Something else.
    #[error("device {name}: failed to {action}")]
    Failed {
        /// The device.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Tap {
    /// Attaches to the TAP `name` by `queues` queues; it is made where there is none. It outlives this process:
    /// with nobody attached it has no carrier, routes over it stay, and packets go nowhere.
    pub fn open(name: &str, queues: u8) -> Result<Vec<Self>, TapError> {
        let taps = (0..queues).map(|_| Self::attach(name, queues));
        let taps = taps.collect::<Result<Vec<_>, _>>()?;
        let failed = |action| {
            move |error: Errno| TapError::Failed {
                name: name.to_owned(),
                action,
                source: error.into(),
            }
        };
        if let Some(tap) = taps.first() {
            let persistent = ioctl::set_persistent(tap.fd.as_fd(), true);
            persistent.map_err(failed("make it persistent"))?;
        }
        ioctl::set_mac(name, DEVICE_MAC).map_err(failed("set its MAC address"))?;
        ioctl::set_no_arp(name).map_err(failed("switch ARP off"))?;
        ioctl::set_queue_length(name, QUEUE).map_err(failed("set its queue length"))?;
        Ok(taps)
    }

    /// One more queue of a device with `queues` at most.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other errors of the kernel are told as they are"
    )]
    fn attach(name: &str, queues: u8) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun");
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => TapError::NoDriver(source),
            io::ErrorKind::PermissionDenied => TapError::NotPermitted(source),
            _ => TapError::Failed {
                name: name.to_owned(),
                action: "open /dev/net/tun",
                source,
            },
        })?;
        let fd = OwnedFd::from(file);
        let failed = |action| {
            move |error: Errno| TapError::Failed {
                name: name.to_owned(),
                action,
                source: error.into(),
            }
        };
        ioctl::attach(fd.as_fd(), name, queues > 1).map_err(|error| match error {
            Errno::EBUSY => TapError::InUse(name.to_owned()),
            Errno::EINVAL | Errno::EEXIST => TapError::Foreign(name.to_owned()),
            Errno::EPERM => TapError::NotPermitted(error.into()),
            error => failed("attach")(error),
        })?;
        ioctl::set_header(fd.as_fd()).map_err(failed("set the virtio-net header"))?;
        Ok(Self { fd })
    }

    /// Takes over a TAP that another process attached to and handed on.
    pub fn inherit(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Removes the TAP `name` if it is there and nobody else is attached.
    pub fn remove(name: &str) -> Result<(), TapError> {
        if !std::path::Path::new("/sys/class/net").join(name).exists() {
            return Ok(());
        }
        // It has one queue or several, and says which only by what it refuses.
        let tap = match Self::attach(name, 1) {
            Err(TapError::Foreign(_)) => Self::attach(name, 2)?,
            attached => attached?,
        };
        ioctl::set_persistent(tap.fd.as_fd(), false).map_err(|error| TapError::Failed {
            name: name.to_owned(),
            action: "remove it",
            source: error.into(),
        })
    }

    /// Asks for offloads, most first; those that are not granted are told to `offloads`.
    pub fn set_offloads(&self, offloads: &Offloads) {
        for most in [Offload::TapUdp, Offload::TapTcp, Offload::TapChecksum] {
            if ioctl::set_offloads(self.fd.as_fd(), offloads).is_ok() {
                return;
            }
            offloads.refuse(most);
        }
    }

    /// Reads one frame with its offload header into `parts`, one after the other; returns how many bytes. Never waits.
    pub fn read(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(uio::readv(&self.fd, parts)?)
    }

    /// Writes one frame, whose parts stand apart. Never waits.
    pub fn write<'a>(
        &self,
        header: virtio::Header,
        frame: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let header = header.encode();
        let mut parts = [IoSlice::new(&[]); PARTS];
        parts[0] = IoSlice::new(&header);
        let mut count = 1;
        for (slot, part) in parts[1..].iter_mut().zip(frame) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        uio::writev(&self.fd, &parts[..count])?;
        Ok(())
    }

    /// Whether the device is still there: somebody may have removed it under its holder.
    pub fn is_attached(&self) -> bool {
        ioctl::is_attached(self.fd.as_fd())
    }

    /// The descriptor, to be handed on.
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Parts of a frame that is written: offload header, Ethernet header, the first packet, and what was joined to it.
const PARTS: usize = 2 + crate::merge::MAX_PARTS;

/// Frames that wait while the data plane is restarted: at 10,000 packets a second, 400 ms.
const QUEUE: i32 = 4_000;
