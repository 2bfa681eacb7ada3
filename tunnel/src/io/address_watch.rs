//! Hears of changes to this node's own addresses. Needs no capability.

use super::netlink_watch::{Message, Messages, drain, subscribe};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// Multicast groups RTNLGRP_IPV4_IFADDR = 5 and RTNLGRP_IPV6_IFADDR = 9, as a bit mask.
const ADDRESS_GROUPS: u32 = 1 << 4 | 1 << 8;
/// RTM_NEWADDR.
const NEW_ADDRESS: u16 = 20;
/// RTM_DELADDR.
const OLD_ADDRESS: u16 = 21;
/// Length of `ifaddrmsg`, which precedes the attributes.
const HEADER: usize = 8;
/// IFA_ADDRESS.
const ADDRESS: u16 = 1;
/// IFA_F_TENTATIVE: nobody sends from it yet.
const TENTATIVE: u8 = 0x40;
/// RT_SCOPE_LINK; a greater scope is narrower still. Pods' devices have such addresses, and no peer
/// is reached from one.
const SCOPE_LINK: u8 = 253;
/// The kernel's own messages are at most this long.
const MESSAGE: usize = 64 * 1024;

/// A subscription in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct AddressWatch {
    addresses: OwnedFd,
    known: Addresses,
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
            known: Addresses::new(nix::net::if_::if_nametoindex(ignored).ok()),
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
        let known = &mut self.known;
        drain(&self.addresses, &mut self.buffer, |datagram| {
            known.handle(datagram)
        })
    }
}

/// The addresses that were told so far, of which a refreshed lifetime is no news.
#[derive(Debug)]
pub struct Addresses {
    ignored: Option<u32>,
    known: BTreeSet<(u32, Vec<u8>)>,
}

impl Addresses {
    /// None yet; those of the device with the number `ignored` never count.
    #[must_use]
    pub fn new(ignored: Option<u32>) -> Self {
        Self {
            ignored,
            known: BTreeSet::new(),
        }
    }

    /// Takes a datagram of the kernel's; whether an address came or went that a peer may know.
    pub fn handle(&mut self, datagram: &[u8]) -> bool {
        // Each is noted, also after one that is news.
        let news = Messages(datagram).filter(|message| self.note(*message));
        news.count() > 0
    }

    fn note(&mut self, message: Message<'_>) -> bool {
        let Some(&[_, _, flags, scope, a, b, c, d]) = message.body.first_chunk::<HEADER>() else {
            return false;
        };
        let index = u32::from_ne_bytes([a, b, c, d]);
        let Some(address) = message.attribute(HEADER, ADDRESS) else {
            return false;
        };
        if scope >= SCOPE_LINK || self.ignored == Some(index) {
            return false;
        }
        let key = (index, address.to_vec());
        match message.kind {
            NEW_ADDRESS if flags & TENTATIVE == 0 => self.known.insert(key),
            // It may have been there before this subscription.
            OLD_ADDRESS => {
                self.known.remove(&key);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u16, flags: u8, scope: u8, index: u32, address: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 24, flags, scope];
        body.extend_from_slice(&index.to_ne_bytes());
        let length = u16::try_from(4 + address.len()).unwrap();
        body.extend_from_slice(&length.to_ne_bytes());
        body.extend_from_slice(&ADDRESS.to_ne_bytes());
        body.extend_from_slice(address);
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut datagram = length.to_ne_bytes().to_vec();
        datagram.extend_from_slice(&kind.to_ne_bytes());
        datagram.extend_from_slice(&[0; 10]);
        datagram.extend_from_slice(&body);
        datagram
    }

    #[test]
    fn an_address_is_news_when_it_comes_and_when_it_goes() {
        let mut addresses = Addresses::new(Some(9));
        let new = datagram(20, 0, 0, 7, &[192, 0, 2, 1]);
        assert!(addresses.handle(&new));
        assert!(!addresses.handle(&new), "its lifetime was refreshed");
        assert!(addresses.handle(&datagram(21, 0, 0, 7, &[192, 0, 2, 1])));
        assert!(addresses.handle(&new));
        for (why, other) in [
            ("our own device", datagram(20, 0, 0, 9, &[192, 0, 2, 2])),
            ("link scope", datagram(20, 0, 253, 7, &[0xfe, 0x80, 0, 1])),
            ("tentative", datagram(20, 0x40, 0, 7, &[192, 0, 2, 3])),
            ("another message", datagram(16, 0, 0, 7, &[192, 0, 2, 4])),
        ] {
            assert!(!addresses.handle(&other), "{why}");
        }
        assert!(!addresses.handle(&new[..20]));
    }
}
