//! WireGuard's messages as far as they show without keys.

use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::reject::Reject;
use hawser_tunnel::wireguard::{Mac1, Message, data_header};

/// Target: any bytes as a message, read beside the whitepaper's table.
pub(super) fn message(input: &[u8]) {
    let little = |at: usize| {
        let field = input[at..at + 4].iter().rev();
        field.fold(0_u32, |all, &byte| all << 8 | u32::from(byte))
    };
    let expected = match (input.first_chunk(), input.len()) {
        (Some([1, 0, 0, 0]), 148) => Ok(Message::Initiation),
        (Some([2, 0, 0, 0]), 92) => Ok(Message::Response {
            receiver: little(8),
        }),
        (Some([3, 0, 0, 0]), 64) => Ok(Message::Cookie {
            receiver: little(4),
        }),
        (Some([4, 0, 0, 0]), 32..) => Ok(Message::Data {
            receiver: little(4),
        }),
        _ => Err(Reject::WgMalformed),
    };
    assert_eq!(Message::parse(input), expected);
    let header = data_header(input);
    if let Ok(Message::Data { receiver }) = expected {
        assert_eq!(header.receiver, receiver);
        let counter = u64::from(little(8)) | u64::from(little(12)) << 32;
        assert_eq!(header.counter, counter);
    }
    // A MAC that nobody made for this key: 2^128 inputs would be needed.
    thread_local!(static OURS: Mac1 = Mac1::new(&PrivateKey::from_random([9; 32]).public()));
    OURS.with(|mac1| assert!(!mac1.verify(input), "a forged MAC"));
}
