//! The calls that set a TAP up (linux/if_tun.h, netdevice(7)).

use crate::identity::Mac;
use crate::offload::{Offload, Offloads};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

nix::ioctl_write_int!(
    /// TUNSETIFF.
    tun_set_iff, b'T', 202);
nix::ioctl_write_int!(
    /// TUNSETPERSIST.
    tun_set_persist, b'T', 203);
nix::ioctl_write_int!(
    /// TUNSETOFFLOAD.
    tun_set_offload, b'T', 208);
nix::ioctl_read!(
    /// TUNGETIFF.
    tun_get_iff, b'T', 210, libc::c_uint);
nix::ioctl_write_ptr!(
    /// TUNSETVNETHDRSZ.
    tun_set_vnet_header_size, b'T', 216, libc::c_int);
nix::ioctl_write_ptr!(
    /// TUNSETVNETLE.
    tun_set_vnet_little_endian, b'T', 220, libc::c_int);
nix::ioctl_readwrite_bad!(
    /// SIOCGIFFLAGS.
    get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(
    /// SIOCSIFFLAGS.
    put_flags, libc::SIOCSIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(
    /// SIOCSIFHWADDR.
    put_hardware_address, libc::SIOCSIFHWADDR, libc::ifreq);
nix::ioctl_write_ptr_bad!(
    /// SIOCSIFTXQLEN.
    put_queue_length, libc::SIOCSIFTXQLEN, libc::ifreq);

const TUN_F_CSUM: u64 = 0x01;
const TUN_F_TSO4: u64 = 0x02;
const TUN_F_TSO6: u64 = 0x04;
const TUN_F_TSO_ECN: u64 = 0x08;
const TUN_F_USO4: u64 = 0x20;
const TUN_F_USO6: u64 = 0x40;

fn request(name: &str) -> Result<libc::ifreq, Errno> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn control_socket() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

pub(super) fn attach(fd: BorrowedFd<'_>, name: &str, several: bool) -> Result<(), Errno> {
    let mut request = request(name)?;
    let several = if several { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let address = std::ptr::from_ref(&request) as u64;
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: TUNSETIFF reads one ifreq at the address that is passed as its argument; `request`
    // lives until the call returns.
    unsafe { tun_set_iff(fd.as_raw_fd(), address) }?;
    Ok(())
}

pub(super) fn is_attached(fd: BorrowedFd<'_>) -> bool {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: TUNGETIFF is declared to write an unsigned int and writes a whole ifreq: the pointer
    // leads to one, a local that outlives the call.
    let answer = unsafe { tun_get_iff(fd.as_raw_fd(), (&raw mut request).cast()) };
    answer.is_ok()
}

pub(super) fn set_persistent(fd: BorrowedFd<'_>, persistent: bool) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: TUNSETPERSIST takes a number, no pointer.
    unsafe { tun_set_persist(fd.as_raw_fd(), persistent.into()) }?;
    Ok(())
}

pub(super) fn set_header(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let size = libc::c_int::try_from(crate::virtio::LEN).map_err(|_| Errno::EINVAL)?;
    let little_endian: libc::c_int = 1;
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: each call reads one int through a pointer to a local that outlives it.
    unsafe {
        tun_set_vnet_header_size(fd.as_raw_fd(), &raw const size)?;
        tun_set_vnet_little_endian(fd.as_raw_fd(), &raw const little_endian)?;
    }
    Ok(())
}

pub(super) fn set_offloads(fd: BorrowedFd<'_>, offloads: &Offloads) -> Result<(), Errno> {
    let mut flags = 0;
    for (wanted, bits) in [
        (Offload::TapChecksum, TUN_F_CSUM),
        (Offload::TapTcp, TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN),
        (Offload::TapUdp, TUN_F_USO4 | TUN_F_USO6),
    ] {
        if offloads.uses(wanted) {
            flags |= bits;
        }
    }
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
    unsafe { tun_set_offload(fd.as_raw_fd(), flags) }?;
    Ok(())
}

pub(super) fn set_mac(name: &str, mac: Mac) -> Result<(), Errno> {
    let mut request = request(name)?;
    let mut address = libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data: [0; 14],
    };
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_hwaddr = address;
    let socket = control_socket()?;
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: the call reads one ifreq through a pointer to a local that outlives it.
    unsafe { put_hardware_address(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

pub(super) fn set_no_arp(name: &str) -> Result<(), Errno> {
    let mut request = request(name)?;
    let socket = control_socket()?;
    #[expect(unsafe_code, reason = "ioctl and the union of its argument")]
    // SAFETY: the first call fills the flags of one ifreq, which is the member of the union that is
    // read; the second reads them. `request` outlives both.
    unsafe {
        get_flags(socket.as_raw_fd(), &raw mut request)?;
        let no_arp = libc::c_short::try_from(libc::IFF_NOARP).map_err(|_| Errno::EINVAL)?;
        if request.ifr_ifru.ifru_flags & no_arp == 0 {
            request.ifr_ifru.ifru_flags |= no_arp;
            put_flags(socket.as_raw_fd(), &raw const request)?;
        }
    }
    Ok(())
}

pub(super) fn set_queue_length(name: &str, length: i32) -> Result<(), Errno> {
    let mut request = request(name)?;
    // The queue length shares its place in the union with every other int.
    request.ifr_ifru.ifru_metric = length;
    let socket = control_socket()?;
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: the call reads one ifreq through a pointer to a local that outlives it.
    unsafe { put_queue_length(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}
