use super::*;
use hex_literal::hex;
use proptest::prelude::*;

const OPTION: SourceOption = SourceOption {
    cluster: 2,
    flags: 1,
    identity: 0x0012_3456,
};

/// A header of our own with `options` in the place of ours.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![
        u8::try_from(options.len() / 4).unwrap(),
        0,
        0x08,
        0x00,
        0,
        0,
        1,
        0,
    ];
    bytes.extend_from_slice(options);
    bytes
}

#[test]
fn golden_bytes() {
    let vni = Vni::new(0x00ab_cdef).unwrap();
    let golden = hex!("03 00 86dd abcdef 00  ff48 01 02 0002 0001 00123456");
    assert_eq!(encode(vni, Protocol::Ipv6, OPTION), golden);
    let parsed = parse(&golden).unwrap();
    assert_eq!(
        (parsed.vni, parsed.protocol, parsed.source),
        (vni, Protocol::Ipv6, Some(OPTION))
    );
}

#[test]
fn each_malformed_header_has_its_own_reason() {
    let good = encode(Vni::DEFAULT, Protocol::Ipv4, OPTION);
    for short in 0..good.len() {
        assert_eq!(
            parse(&good[..short]),
            Err(Reject::GeneveTruncated),
            "{short} bytes"
        );
    }
    let with = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        parse(&bytes).map(|geneve| geneve.source)
    };
    for version in 1..4 {
        assert_eq!(with(0, version << 6 | 3), Err(Reject::GeneveVersion));
    }
    assert_eq!(with(1, 0x80), Err(Reject::GeneveControl));
    assert_eq!(
        with(2, 0x65),
        Err(Reject::GeneveProtocol),
        "Ethernet inside is not ours"
    );
    assert_eq!(with(1, 0x3f), Ok(Some(OPTION)), "reserved bits are ignored");
    assert_eq!(
        with(7, 0xff),
        Ok(Some(OPTION)),
        "the reserved byte is ignored"
    );
    assert_eq!(
        with(1, 0x40),
        Ok(Some(OPTION)),
        "C without an unknown critical option"
    );
}

#[test]
fn option_lengths_of_five_bits() {
    for length in 0..32_u8 {
        let mut options = hex!("ff48 01 00 0002 0001 00123456").to_vec();
        options[3] = length;
        let expected = match length {
            // The rest is read as the next option: class 0x0012, type 0x34, length 0x16.
            0 | 1 => Err(Reject::OptionMalformed),
            2 => Ok(Some(OPTION)),
            _ => Err(Reject::GeneveOptionLength),
        };
        assert_eq!(
            parse(&with_options(&options)).map(|geneve| geneve.source),
            expected,
            "length {length}"
        );
    }
}

#[test]
fn unknown_options_are_skipped_and_unknown_critical_ones_drop() {
    let ours = hex!("ff48 01 02 0002 0001 00123456");
    let unknown = hex!("0102 03 01 deadbeef");
    let critical = hex!("0102 83 01 deadbeef");
    let source =
        |options: &[&[u8]]| parse(&with_options(&options.concat())).map(|geneve| geneve.source);
    assert_eq!(source(&[&unknown, &ours, &unknown]), Ok(Some(OPTION)));
    assert_eq!(source(&[&unknown]), Ok(None));
    assert_eq!(source(&[]), Ok(None));
    assert_eq!(
        source(&[&ours, &critical]),
        Err(Reject::GeneveCriticalOption)
    );
    assert_eq!(source(&[&ours, &ours]), Err(Reject::OptionTwice));
    let our_class_critical = hex!("ff48 81 00");
    assert_eq!(
        source(&[&ours, &our_class_critical]),
        Err(Reject::GeneveCriticalOption)
    );
    let full = hex!("0102 03 1f")
        .iter()
        .copied()
        .chain([0; 31 * 4])
        .collect::<Vec<_>>();
    let longest = [full.clone(), full[..120].to_vec()].concat();
    assert_eq!(longest.len() + 4, MAX_OPTIONS_LEN);
    assert_eq!(source(&[&longest]), Err(Reject::GeneveOptionLength));
}

#[test]
fn a_packet_is_for_a_pod_or_for_control_and_never_for_both() {
    let control = encode_control(Vni::DEFAULT, 0x88b5, OPTION);
    assert_eq!(
        control,
        hex!("03 80 88b5 000001 00  ff48 01 02 0002 0001 00123456")
    );
    assert_eq!(parse(&control), Err(Reject::GeneveControl));
    let read = parse_control(&control).unwrap();
    assert_eq!(
        (read.vni, read.protocol, read.source, read.payload),
        (Vni::DEFAULT, 0x88b5, Some(OPTION), &[][..])
    );
    let pod = encode(Vni::DEFAULT, Protocol::Ipv4, OPTION);
    assert_eq!(parse_control(&pod), Err(Reject::GeneveControl));
    for short in 0..control.len() {
        assert_eq!(
            parse_control(&control[..short]),
            Err(Reject::GeneveTruncated),
            "{short} bytes"
        );
    }
}

proptest! {
    #[test]
    fn round_trip(vni in 0..=Vni::MAX, six in any::<bool>(), cluster: u16, flags: u16, identity: u32, payload: Vec<u8>) {
        let vni = Vni::new(vni).unwrap();
        let protocol = if six { Protocol::Ipv6 } else { Protocol::Ipv4 };
        let option = SourceOption { cluster, flags, identity };
        let bytes = [&encode(vni, protocol, option)[..], &payload].concat();
        prop_assert_eq!(parse(&bytes), Ok(Geneve { vni, protocol, source: Some(option), payload: &payload }));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
        if let Ok(geneve) = parse(&bytes) {
            prop_assert!(bytes.ends_with(geneve.payload));
            prop_assert_eq!(parse_control(&bytes), Err(Reject::GeneveControl));
        }
        if let Ok(control) = parse_control(&bytes) {
            prop_assert!(bytes.ends_with(control.payload));
            prop_assert_eq!(parse(&bytes), Err(Reject::GeneveControl));
        }
    }
}
