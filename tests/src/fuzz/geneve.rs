//! The Geneve header and its options.

use hawser_tunnel::geneve::{self, HEADER_LEN, Protocol, SOURCE_OPTION_LEN, SourceOption};
use hawser_tunnel::reject::Reject;
use hawser_tunnel::vni::Vni;

use super::source::Source;

/// Target: any bytes as a header with options; what is written is read as it was.
pub(super) fn header(input: &[u8]) {
    match geneve::parse(input) {
        Ok(read) => {
            let options = usize::from(input[0] & 0x3f) * 4;
            assert_eq!(
                read.payload,
                &input[HEADER_LEN + options..],
                "the payload follows the options"
            );
            assert_eq!(
                u32::from(read.vni),
                u32::from_be_bytes([0, input[4], input[5], input[6]])
            );
            assert_eq!((input[0] >> 6, input[1] & 0x80), (0, 0));
            if let Some(option) = read.source {
                again(read.vni, read.protocol, option, read.payload);
            }
            assert_eq!(
                read.source.is_some(),
                has_our_option(&input[HEADER_LEN..HEADER_LEN + options])
            );
        }
        Err(reason) => assert!(
            (Reject::GeneveTruncated..=Reject::OptionMalformed).contains(&reason),
            "{reason} of a Geneve header"
        ),
    }
    let mut source = Source::new(input);
    let option = SourceOption {
        cluster: source.any(),
        flags: source.any(),
        identity: source.any(),
    };
    let vni = Vni::from_be_bytes(source.array());
    again(
        vni,
        source.pick(&[Protocol::Ipv4, Protocol::Ipv6]),
        option,
        source.rest(),
    );
}

fn again(vni: Vni, protocol: Protocol, option: SourceOption, payload: &[u8]) {
    let bytes = [&geneve::encode(vni, protocol, option), payload].concat();
    assert_eq!(bytes.len(), HEADER_LEN + SOURCE_OPTION_LEN + payload.len());
    let read = geneve::parse(&bytes).expect("what was written is read");
    assert_eq!(
        (read.vni, read.protocol, read.source),
        (vni, protocol, Some(option))
    );
    assert_eq!(read.payload, payload);
}

/// Walks the options by RFC 8926, section 3.5, alone.
fn has_our_option(options: &[u8]) -> bool {
    let (mut at, mut found) = (0, false);
    while at < options.len() {
        let length = 4 + usize::from(options[at + 3] & 0x1f) * 4;
        found |= options[at..at + 3] == [0xff, 0x48, 0x01];
        at += length;
    }
    assert_eq!(at, options.len(), "an option runs past the options");
    found
}
