//! A TAP without offloads: whole frames of one device, as they would be on a wire.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};

use super::Netns;

nix::ioctl_write_int!(
    /// TUNSETIFF.
    tun_set_iff, b'T', 202);

/// A TAP device that exists as long as this value.
///
/// Neither virtio-net header nor offloads: the kernel cuts super-frames and makes checksums before it hands a frame
/// over, and takes each frame as one packet.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// What became of a frame that was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapOutcome {
    /// A frame of so many bytes.
    Frame(usize),
    /// There is none now, or the device is down.
    Nothing,
    /// Somebody removed the device.
    Gone,
}

impl Tap {
    /// Makes the TAP `device` inside `netns`. It is down, with a MAC address by chance.
    ///
    /// # Errors
    /// When there is a device of that name, without root, or without /dev/net/tun.
    pub fn create(netns: &Netns, device: &str) -> Result<Self> {
        let failed = || format!("failed to make TAP {device} in {}", netns.name());
        // The device goes to the namespace in which /dev/net/tun was opened.
        let file = netns
            .run(|| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open("/dev/net/tun")
            })?
            .context("failed to open /dev/net/tun")
            .with_context(failed)?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI)
                    .context("flags do not fit")?,
            },
        };
        ensure!(
            !device.is_empty() && device.len() < libc::IFNAMSIZ,
            "device: {device:?}: must be 1 to 15 bytes"
        );
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let address = std::ptr::from_ref(&request) as u64;
        // SAFETY: TUNSETIFF reads and writes one ifreq at the address that is its argument; `request` outlives the call.
        #[expect(unsafe_code, reason = "ioctl")]
        unsafe { tun_set_iff(file.as_raw_fd(), address) }.with_context(failed)?;
        Ok(Self { file })
    }

    /// Reads one frame. Never waits.
    ///
    /// # Errors
    /// What the kernel says other than that there is none.
    pub fn read(&self, buffer: &mut [u8]) -> Result<TapOutcome> {
        outcome((&self.file).read(buffer)).context("failed to read a frame")
    }

    /// Writes one frame. Never waits.
    ///
    /// # Errors
    /// What the kernel says other than that the device is down or gone, or has no room.
    pub fn write(&self, frame: &[u8]) -> Result<TapOutcome> {
        outcome((&self.file).write(frame)).context("failed to write a frame")
    }
}

fn outcome(result: std::io::Result<usize>) -> std::io::Result<TapOutcome> {
    match result {
        Ok(length) => Ok(TapOutcome::Frame(length)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EBADFD | libc::ENODEV) => Ok(TapOutcome::Gone),
            // EIO: the device is down. EINVAL: a flipped bit has made the frame something that the kernel refuses.
            Some(libc::EIO | libc::EINVAL | libc::ENOMEM | libc::ENOBUFS) => {
                Ok(TapOutcome::Nothing)
            }
            _ if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(TapOutcome::Nothing)
            }
            _ => Err(error),
        },
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
