//! Many datagrams a system call (`sendmmsg`, `recvmmsg`), each of them one packet: no segmentation offload.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::ptr;

/// The most datagrams of one call.
pub const BATCH: usize = 64;

/// Sends `bytes` as datagrams of `size` bytes each over a connected socket; returns how many the kernel took.
///
/// # Errors
/// What the kernel says of the first.
///
/// # Panics
/// When `bytes` are no whole datagrams, or more than [`BATCH`].
pub fn send_datagrams(socket: &UdpSocket, bytes: &[u8], size: usize) -> io::Result<usize> {
    assert!(
        size > 0 && bytes.len().is_multiple_of(size) && bytes.len() / size <= BATCH,
        "{} bytes in datagrams of {size}",
        bytes.len()
    );
    let mut parts = [EMPTY_PART; BATCH];
    for (part, datagram) in parts.iter_mut().zip(bytes.chunks_exact(size)) {
        *part = libc::iovec {
            iov_base: datagram.as_ptr().cast_mut().cast(),
            iov_len: size,
        };
    }
    let mut messages = messages(&mut parts);
    let count = libc::c_uint::try_from(bytes.len() / size).unwrap_or_default();
    // SAFETY: the first `count` messages point to parts that point into `bytes`; all outlive the call, which only
    // reads what the parts point to.
    #[expect(unsafe_code, reason = "std has no sendmmsg(2)")]
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Waits for a datagram, as long as the socket's timeout says, and takes those that are there already: at most as many
/// as `buffer` has slots of `slot` bytes, and [`BATCH`]. Returns their lengths; what does not fit into a slot is cut.
///
/// # Errors
/// What the kernel says; `WouldBlock` when the timeout passed.
///
/// # Panics
/// When `slot` is 0.
pub fn receive_datagrams<'a>(
    socket: &UdpSocket,
    buffer: &mut [u8],
    slot: usize,
    lengths: &'a mut [usize; BATCH],
) -> io::Result<&'a [usize]> {
    assert!(slot > 0, "slots of no bytes");
    let mut parts = [EMPTY_PART; BATCH];
    let mut slots = 0;
    for (part, slot) in parts.iter_mut().zip(buffer.chunks_exact_mut(slot)) {
        *part = libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: slot.len(),
        };
        slots += 1;
    }
    let mut messages = messages(&mut parts);
    // SAFETY: the first `slots` messages point to parts that point to different slots of `buffer`, which is borrowed
    // mutably; all outlive the call.
    #[expect(unsafe_code, reason = "std has no recvmmsg(2)")]
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            slots,
            libc::MSG_WAITFORONE,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (length, message) in lengths.iter_mut().zip(&messages) {
        *length = usize::try_from(message.msg_len).unwrap_or_default();
    }
    Ok(&lengths[..received])
}

const EMPTY_PART: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

/// A message for each part, without addresses and control data.
fn messages(parts: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    let mut parts = parts.iter_mut();
    [(); BATCH].map(|()| libc::mmsghdr {
        msg_hdr: libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: parts.next().map_or(ptr::null_mut(), ptr::from_mut),
            msg_iovlen: 1,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        },
        msg_len: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was_sent() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        from.connect(to.local_addr().unwrap()).unwrap();
        let bytes: Vec<u8> = (0..40).collect();
        assert_eq!(send_datagrams(&from, &bytes, 10).unwrap(), 4);
        assert_eq!(send_datagrams(&from, &[7; 25], 25).unwrap(), 1);
        let mut buffer = [0; 3 * 16];
        let mut lengths = [0; BATCH];
        let got = receive_datagrams(&to, &mut buffer, 16, &mut lengths).unwrap();
        assert_eq!(got, [10, 10, 10]);
        assert_eq!(buffer[16..26], bytes[10..20]);
        let got = receive_datagrams(&to, &mut buffer, 16, &mut lengths).unwrap();
        assert_eq!(got, [10, 16], "the second is cut");
        assert_eq!(buffer[..10], bytes[30..]);
        to.set_nonblocking(true).unwrap();
        let empty = receive_datagrams(&to, &mut buffer, 16, &mut lengths);
        assert_eq!(empty.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
