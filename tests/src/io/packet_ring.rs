//! Reads every frame of a device through a memory-mapped ring (AF_PACKET, TPACKET_V2), and knows when it lost some.
//!
//! A ring and not `recv`: the kernel copies the first bytes of each frame at once, so a burst of 64 KiB super-frames
//! cannot use up the socket's memory while the judge is busy.

use std::num::NonZeroUsize;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use socket2::{Domain, Protocol, Socket, Type};

use super::Netns;
use super::packet_socket::bind;

/// Bytes of one slot: its header, and the first bytes of a frame. Holds a whole frame of a 1500-byte MTU.
const SLOT: usize = 2048;
/// Slots of one ring. At 10,000 frames/s this is three seconds of not looking.
const SLOTS: usize = 32_768;
/// Bytes the kernel allocates in one piece.
const BLOCK: usize = 65_536;

/// One frame in the ring.
#[derive(Debug)]
pub struct RingFrame<'a> {
    /// What was captured of it, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// How long it was.
    pub length: usize,
    /// When the kernel saw it.
    pub at: SystemTime,
    /// The VLAN tag (tag control information) that the kernel took out of the frame.
    pub vlan: Option<u16>,
}

/// A ring of frames of one device, both directions.
#[derive(Debug)]
pub struct PacketRing {
    socket: Socket,
    map: NonNull<libc::c_void>,
    next: usize,
    lost: u64,
}

// SAFETY: the mapping belongs to this value alone, and all access goes through `&mut self`.
#[expect(
    unsafe_code,
    reason = "a raw pointer hides that the mapping has one owner"
)]
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// Opens a ring on `device` inside `netns`.
    ///
    /// # Errors
    /// When the device does not exist, without root, or without 64 MiB of memory.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        // Bound only once the ring stands: a frame that comes before it would go to the socket's plain queue, unseen.
        let socket = netns
            .run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))))?
            .context("failed to make a packet socket (root is needed)")?;
        let version = i32::try_from(libc::tpacket_versions::TPACKET_V2 as u32)
            .context("version does not fit")?;
        set_option(&socket, libc::PACKET_VERSION, &version)
            .context("failed to choose TPACKET_V2")?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK.try_into().context("block size does not fit")?,
            tp_block_nr: (SLOT * SLOTS / BLOCK)
                .try_into()
                .context("block count does not fit")?,
            tp_frame_size: SLOT.try_into().context("slot size does not fit")?,
            tp_frame_nr: SLOTS.try_into().context("slot count does not fit")?,
        };
        set_option(&socket, libc::PACKET_RX_RING, &request)
            .context("failed to make a packet ring")?;
        let length = NonZeroUsize::new(SLOT * SLOTS).context("empty ring")?;
        // SAFETY: a fresh mapping of the ring that the kernel just made for this socket; nothing else is mapped there.
        #[expect(unsafe_code, reason = "mmap")]
        let map = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &socket,
                0,
            )
        }
        .context("failed to map the packet ring")?;
        let ring = Self {
            socket,
            map,
            next: 0,
            lost: 0,
        };
        netns.run(|| bind(&ring.socket, device))??;
        Ok(ring)
    }

    /// Hands frames to `look`, oldest first, until the ring is empty or `most` were seen; returns how many.
    pub fn drain(&mut self, most: usize, mut look: impl FnMut(&RingFrame<'_>)) -> usize {
        let mut seen = 0;
        while seen < most {
            let offset = self.next * SLOT;
            // SAFETY: `next < SLOTS`, so the slot lies inside the mapping, which lives as long as `self`; slots are
            // 2048-byte aligned. The status word is shared with the kernel and only touched atomically.
            #[expect(unsafe_code, reason = "shared memory with the kernel")]
            let (slot, status) = unsafe {
                let slot = self.map.as_ptr().cast::<u8>().add(offset);
                (slot, AtomicU32::from_ptr(slot.cast::<u32>()))
            };
            let state = status.load(Ordering::Acquire);
            if state & libc::TP_STATUS_USER == 0 {
                break;
            }
            // SAFETY: TP_STATUS_USER says that the kernel has filled this slot and does not touch it until the status
            // is given back below.
            #[expect(unsafe_code, reason = "shared memory with the kernel")]
            let (header, content) = unsafe {
                (
                    std::ptr::read(slot.cast::<libc::tpacket2_hdr>()),
                    std::slice::from_raw_parts(slot.cast_const(), SLOT),
                )
            };
            let start = usize::from(header.tp_mac).min(SLOT);
            let captured = usize::try_from(header.tp_snaplen)
                .unwrap_or(SLOT)
                .min(SLOT - start);
            let since = Duration::new(u64::from(header.tp_sec), header.tp_nsec.min(999_999_999));
            look(&RingFrame {
                bytes: &content[start..start + captured],
                length: usize::try_from(header.tp_len).unwrap_or(usize::MAX),
                at: SystemTime::UNIX_EPOCH + since,
                vlan: (state & libc::TP_STATUS_VLAN_VALID != 0).then_some(header.tp_vlan_tci),
            });
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % SLOTS;
            seen += 1;
        }
        seen
    }

    /// How many frames the kernel could not put into the ring since it was opened.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn lost(&mut self) -> Result<u64> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = size_of::<libc::tpacket_stats>()
            .try_into()
            .context("length does not fit")?;
        // SAFETY: `statistics` is a writable `tpacket_stats` and `length` its size.
        #[expect(unsafe_code, reason = "nix has no such socket option")]
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut statistics).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            bail!(
                "failed to read packet statistics: {}",
                std::io::Error::last_os_error()
            );
        }
        // The kernel's counter starts again at each reading.
        self.lost += u64::from(statistics.tp_drops);
        Ok(self.lost)
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this length and nothing borrowed from it can outlive `self`.
        #[expect(unsafe_code, reason = "munmap")]
        let unmapped = unsafe { munmap(self.map, SLOT * SLOTS) };
        debug_assert!(unmapped.is_ok(), "the ring was mapped in open");
    }
}

pub(super) fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> Result<()> {
    let length = size_of::<T>().try_into().context("length does not fit")?;
    // SAFETY: `value` is readable for its whole size, and each caller passes the type that the option wants.
    #[expect(unsafe_code, reason = "nix has no such socket option")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result != 0 {
        bail!("{}", std::io::Error::last_os_error());
    }
    Ok(())
}
