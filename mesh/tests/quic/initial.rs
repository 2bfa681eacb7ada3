//! First packets of connections (RFC 9001, appendix A), made by hand: with any TLS hello, from any number of clients.

use rustls::Side;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

/// A datagram with an Initial packet that carries this hello, for a connection ID that the client chose.
pub(crate) fn datagram(hello: &[u8], connection: [u8; 8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let quic = suite.quic_suite().unwrap().quic;
    let keys = Keys::initial(Version::V1, suite, quic, &connection, Side::Client).local;

    let mut payload = vec![0x06, 0x00];
    payload.extend((0x4000 | u16::try_from(hello.len()).unwrap()).to_be_bytes());
    payload.extend(hello);
    payload.resize(payload.len().max(1200), 0);
    let length = 4 + payload.len() + keys.packet.tag_len();

    let mut header = vec![0xc3, 0, 0, 0, 1, 8];
    header.extend(connection);
    header.push(8);
    header.extend(connection);
    header.push(0);
    header.extend((0x4000 | u16::try_from(length).unwrap()).to_be_bytes());
    let number_at = header.len();
    header.extend([0; 4]);

    let tag = keys
        .packet
        .encrypt_in_place(0, &header, &mut payload)
        .unwrap();
    let mut packet = header;
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let (head, body) = packet.split_at_mut(number_at + 4);
    let (first, rest) = head.split_first_mut().unwrap();
    let number = &mut rest[number_at - 1..];
    keys.header
        .encrypt_in_place(&body[..keys.header.sample_len()], first, number)
        .unwrap();
    packet
}

/// A hello that offers TLS 1.2 and no more.
pub(crate) fn hello_of_tls12() -> Vec<u8> {
    let extensions = [
        // supported_groups: x25519
        &[0, 10, 0, 4, 0, 2, 0, 29][..],
        // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![1, 0];
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend(body);
    hello
}
