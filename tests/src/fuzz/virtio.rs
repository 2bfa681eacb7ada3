//! The header in front of each frame of the TAP.

use hawser_tunnel::virtio::{Header, LEN};

use super::source::Source;

/// Target: every ten bytes are a header, and are written back as they were.
pub(super) fn header(input: &[u8]) {
    let bytes: [u8; LEN] = Source::new(input).array();
    let header = Header::parse(&bytes);
    assert_eq!(header.encode(), bytes);
    assert_eq!(
        header.gso().is_some(),
        matches!(bytes[1] & 0x7f, 0 | 1 | 4 | 5)
    );
    assert_eq!(header.needs_checksum(), bytes[0] & 1 == 1);
}
