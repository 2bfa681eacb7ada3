//! What the kernel tells of changes.

use std::collections::BTreeSet;

use hawser_tunnel::io::netlink_watch::{tells_of_guard, tells_of_link};

use super::source::Source;

/// Target: any bytes as a netlink datagram; well-formed ones are understood, however they are mixed.
pub(super) fn datagram(input: &[u8]) {
    let only = BTreeSet::from(["eth0".to_owned()]);
    let any = tells_of_link(input, None);
    assert!(
        any || !tells_of_link(input, Some(&only)),
        "one of some devices is one of all"
    );
    assert!(input.len() >= 16 || !tells_of_guard(input));
    let mut source = Source::new(input);
    let mut bytes = Vec::new();
    let (mut guard, mut link, mut ours) = (false, false, false);
    for _ in 0..source.below(6) {
        let kind: u16 = source.pick(&[10 << 8 | 6, 16, 17, 10 << 8, 18, 11 << 8, 3]);
        let is_link = matches!(kind, 16 | 17);
        let header = if is_link { 16 } else { 4 };
        let name: &[u8] = source.pick(&[
            b"hawser_guard\0",
            b"eth0\0",
            b"hawser_guards\0",
            b"veth7\0",
            b"",
        ]);
        let (attributes, found) = attributes(&mut source, if is_link { 3 } else { 1 }, name);
        guard |= kind >> 8 == 10 && found && name == b"hawser_guard\0";
        link |= is_link;
        // A message without a name could be about any device.
        ours |= is_link && (!found || name == b"eth0\0");
        let body = [vec![0; header], attributes].concat();
        let length = u32::try_from(16 + body.len()).expect("a short message");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
    }
    assert_eq!(tells_of_guard(&bytes), guard);
    assert_eq!(tells_of_link(&bytes, None), link);
    assert_eq!(tells_of_link(&bytes, Some(&only)), ours);
    // Cut short, it tells no more than it did.
    let cut = &bytes[..source.below(bytes.len() + 1)];
    assert!(guard || !tells_of_guard(cut));
    assert!(link || !tells_of_link(cut, None));
}

/// Attributes around one of type `kind`, if the input wants it there.
fn attributes(source: &mut Source<'_>, kind: u16, value: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut add = |kind: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).expect("a short attribute");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    for _ in 0..source.below(3) {
        add(source.pick(&[2, 5, 0x8004]), source.bytes(9));
    }
    let found = !source.once_in(4);
    if found {
        // The nested and byte-order flags are no part of the type.
        add(kind | source.pick(&[0, 0x8000, 0x4000]), value);
    }
    for _ in 0..source.below(2) {
        add(source.pick(&[2, 5]), source.bytes(9));
    }
    (bytes, found)
}
