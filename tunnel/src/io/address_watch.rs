//! Hears of changes to this node's own addresses. Needs no capability.

use super::netlink_watch::{Message, Messages, drain, subscribe};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// Multicast groups RTNLGRP_IPV4_IFADDR = 5 and RTNLGRP_IPV6_IFADDR = 9, as a bit mask.
const ADDRESS_GROUPS: u32 = 1 << 4 | 1 << 8;
/// RTM_NEWADDR and RTM_DELADDR.
const ADDRESS_MESSAGES: [u16; 2] = [20, 21];
/// The kernel's own messages are at most this long.
const MESSAGE: usize = 64 * 1024;

/// A subscription in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct AddressWatch {
    addresses: OwnedFd,
    ignored: Option<u32>,
    buffer: Vec<u8>,
}

impl AddressWatch {
    /// Subscribes to changes of addresses on every device but `ignored`.
    ///
    /// # Errors
    /// When the kernel refuses a socket.
    pub fn open(ignored: &str) -> io::Result<Self> {
        Ok(Self {
            addresses: subscribe(SockProtocol::NetlinkRoute, ADDRESS_GROUPS)?,
            ignored: nix::net::if_::if_nametoindex(ignored).ok(),
            buffer: vec![0; MESSAGE],
        })
    }

    /// Waits until an address came or went, or for `timeout`; whether one did.
    ///
    /// # Errors
    /// When the socket fails for another reason than an overrun.
    pub fn wait(&mut self, timeout: PollTimeout) -> io::Result<bool> {
        let mut sockets = [PollFd::new(self.addresses.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sockets, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ignored = self.ignored;
        drain(&self.addresses, &mut self.buffer, |datagram| {
            tells_of_address(datagram, ignored)
        })
    }
}

/// Tells whether a datagram of the kernel's has a message about an address of another device than
/// `ignored`.
#[must_use]
pub fn tells_of_address(datagram: &[u8], ignored: Option<u32>) -> bool {
    Messages(datagram).any(|message| is_address(message, ignored))
}

/// Whether a message is of an address of another device than `ignored` (`ifaddrmsg`: the device's
/// index is the second word).
fn is_address(message: Message<'_>, ignored: Option<u32>) -> bool {
    let index = message.body.get(4..).and_then(<[u8]>::first_chunk);
    let index = index.map(|bytes| u32::from_ne_bytes(*bytes));
    ADDRESS_MESSAGES.contains(&message.kind) && (index.is_none() || index != ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_other_devices_matter() {
        let body = [&[2, 24, 0, 0][..], &7_u32.to_ne_bytes()].concat();
        let message = |kind| Message { kind, body: &body };
        assert!(is_address(message(20), None));
        assert!(is_address(message(21), Some(6)));
        assert!(!is_address(message(21), Some(7)));
        assert!(!is_address(message(16), None));
    }
}
