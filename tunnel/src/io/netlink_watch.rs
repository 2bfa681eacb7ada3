//! Hears of changes to the guard tables and to network devices.
//!
//! The kernel tells every change by netlink; the keeper waits here and repairs what somebody flushed.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

use crate::guard::TABLE;

/// Multicast group of nftables changes, NFNLGRP_NFTABLES = 7, as a bit mask.
const NFTABLES_GROUP: u32 = 1 << 6;
/// Multicast group of device changes, RTNLGRP_LINK = 1, as a bit mask.
const LINK_GROUP: u32 = 1;
/// NFNL_SUBSYS_NFTABLES: the upper byte of a message type.
const NFTABLES_SUBSYSTEM: u16 = 10;
/// RTM_NEWLINK and RTM_DELLINK.
const LINK_MESSAGES: [u16; 2] = [16, 17];
/// Length of `nlmsghdr`.
const HEADER: usize = 16;
/// Length of `nfgenmsg`, which precedes the attributes of an nftables message.
const NFTABLES_HEADER: usize = 4;
/// Length of `ifinfomsg`, which precedes the attributes of a link message.
const LINK_HEADER: usize = 16;
/// Every nftables object carries its table's name as attribute 1.
const TABLE_NAME: u16 = 1;
/// IFLA_IFNAME.
const DEVICE_NAME: u16 = 3;
/// Attribute flags (nested, byte order) that are not part of the type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// Room for bursts, such as another program loading 10,000 set elements; an overrun only costs one needless check.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel's own messages are at most this long.
const MESSAGE: usize = 64 * 1024;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One of the guard tables, or too much to tell.
    Guard,
    /// A network device appeared, vanished or changed.
    Link,
}

/// Subscriptions in the network namespace of the thread that opened them.
#[derive(Debug)]
pub struct NetlinkWatch {
    nftables: OwnedFd,
    links: OwnedFd,
    only: Option<BTreeSet<String>>,
    buffer: Vec<u8>,
}

impl NetlinkWatch {
    /// Subscribes to changes of nftables and of network devices.
    ///
    /// Open it before the first look at either, so that nothing falls in between.
    ///
    /// # Errors
    /// When the kernel refuses a socket, as it does without nftables.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            nftables: subscribe(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?,
            links: subscribe(SockProtocol::NetlinkRoute, LINK_GROUP)?,
            only: None,
            buffer: vec![0; MESSAGE],
        })
    }

    /// Reports [`Change::Link`] for these devices only; a node has many that come and go with its pods.
    #[must_use]
    pub fn only_links(mut self, devices: BTreeSet<String>) -> Self {
        self.only = Some(devices);
        self
    }

    /// Waits for a change, at most for `timeout`; several that are waiting are told once, the guard's first.
    ///
    /// # Errors
    /// When a socket fails for another reason than an overrun.
    #[expect(clippy::disallowed_methods, reason = "a wait is measured by the clock")]
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<Change>> {
        let start = Instant::now();
        loop {
            if drain(&self.nftables, &mut self.buffer, tells_of_guard)? {
                return Ok(Some(Change::Guard));
            }
            let only = self.only.as_ref();
            if drain(&self.links, &mut self.buffer, |bytes| {
                tells_of_link(bytes, only)
            })? {
                return Ok(Some(Change::Link));
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            let mut sockets =
                [&self.nftables, &self.links].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            // Rounded up: a wait of less than a millisecond must not become a busy loop.
            let left =
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut sockets, left) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(super) fn subscribe(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    // Needs CAP_NET_ADMIN; the default size is enough for all but storms.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Reads everything that waits; tells whether any datagram `matters`, or some were lost.
pub(super) fn drain(
    fd: &OwnedFd,
    buffer: &mut [u8],
    mut matters: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut found = false;
    loop {
        match recvfrom::<NetlinkAddr>(fd.as_raw_fd(), buffer) {
            // Only the kernel has port id 0; another process may write to us, too.
            Ok((len, Some(from))) if from.pid() == 0 => {
                found |= matters(buffer.get(..len).unwrap_or_default());
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => found = true,
            Err(Errno::EAGAIN) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells whether a datagram of nftables has a message about the guard's tables. What is cut short is
/// read up to there.
#[must_use]
pub fn tells_of_guard(datagram: &[u8]) -> bool {
    Messages(datagram).any(names_guard)
}

/// Tells whether a datagram of the kernel's links has a message about one of the devices in `only`, or
/// about any device.
#[must_use]
pub fn tells_of_link(datagram: &[u8], only: Option<&BTreeSet<String>>) -> bool {
    Messages(datagram).any(|message| names_link(message, only))
}

fn names_guard(message: Message<'_>) -> bool {
    message.kind >> 8 == NFTABLES_SUBSYSTEM
        && message.attribute(NFTABLES_HEADER, TABLE_NAME) == Some(TABLE.as_bytes())
}

fn names_link(message: Message<'_>, only: Option<&BTreeSet<String>>) -> bool {
    if !LINK_MESSAGES.contains(&message.kind) {
        return false;
    }
    let name = message
        .attribute(LINK_HEADER, DEVICE_NAME)
        .map(String::from_utf8_lossy);
    match (only, name) {
        (Some(only), Some(name)) => only.contains(name.as_ref()),
        _ => true,
    }
}

/// A netlink message without its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Returns the text of the first attribute of this type, without its closing zero.
    pub(super) fn attribute(&self, header: usize, kind: u16) -> Option<&'a [u8]> {
        let mut rest = self.body.get(header..)?;
        while let Some((len, found)) = u16_at(rest, 0).zip(u16_at(rest, 2)) {
            let value = rest.get(4..usize::from(len))?;
            if found & ATTRIBUTE_TYPE == kind {
                return Some(value.strip_suffix(&[0]).unwrap_or(value));
            }
            rest = rest.get(usize::from(len).next_multiple_of(4)..)?;
        }
        None
    }
}

/// Netlink messages one after the other; ends at the first that is cut short.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::try_from(u32::from_ne_bytes(*self.0.first_chunk()?)).ok()?;
        let kind = u16_at(self.0, 4)?;
        let body = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, header: usize, attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = [vec![0; header], attributes.concat()].concat();
        let mut bytes = u32::try_from(HEADER + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_message_about_our_table_is_told_from_others() {
        let rule = |table: &[u8]| {
            message(
                10 << 8 | 6,
                4,
                &[attribute(2, b"chain\0"), attribute(1, table)],
            )
        };
        assert!(tells_of_guard(&rule(b"hawser_guard\0")));
        assert!(!tells_of_guard(&rule(b"hawser_guards\0")));
        assert!(tells_of_guard(
            &[rule(b"filter\0"), rule(b"hawser_guard\0")].concat()
        ));
        assert!(!tells_of_guard(&message(
            16,
            4,
            &[attribute(1, b"hawser_guard\0")]
        )));
    }

    #[test]
    fn a_message_about_another_device_is_passed_over_when_asked() {
        let only = BTreeSet::from(["eth0".to_owned()]);
        let link = |name: &[u8]| message(16, 16, &[attribute(3, name)]);
        assert!(tells_of_link(&link(b"eth0\0"), Some(&only)));
        assert!(!tells_of_link(&link(b"veth7\0"), Some(&only)));
        assert!(tells_of_link(&link(b"veth7\0"), None));
        assert!(
            tells_of_link(&message(16, 16, &[]), Some(&only)),
            "a nameless message could be about any device"
        );
    }

    #[test]
    fn a_message_cut_anywhere_ends_the_reading() {
        let whole = message(
            10 << 8,
            4,
            &[attribute(2, b"x\0"), attribute(1, b"hawser_guard\0")],
        );
        for len in 0..whole.len() - 4 {
            assert!(!tells_of_guard(&whole[..len]));
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                let _ = tells_of_guard(&broken);
            }
        }
    }
}
