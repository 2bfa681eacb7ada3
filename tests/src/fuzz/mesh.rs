//! What hubs and agents read of each other before they know that it is right: frames and certificates.

use super::source::Source;
use bytes::Bytes;
use hawser_mesh::ca::{init, show};
use hawser_mesh::frame::{Decoder, FrameError, Stream, encode};
use hawser_mesh::trust::{Authorities, Credentials, PeerId, Side, Trust};
use hawser_mesh::wire::MAX_MESSAGE;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// A CA that is trusted.
static TRUSTED: LazyLock<String> = LazyLock::new(|| {
    let root = init("set.example", "east", SystemTime::now());
    root.expect("a CA can be made").certificate
});

/// Target: a stream's bytes in pieces. The pieces make no difference, and what comes out is never too long and goes in
/// again.
pub(super) fn frames(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(
        read(bytes, usize::from(*size).max(1)),
        whole,
        "the pieces make no difference"
    );
    for message in &whole.0 {
        assert!(message.len() <= MAX_MESSAGE);
        for stream in Stream::ALL {
            let frame = encode(stream, message).expect("it is not too long");
            let (again, end) = read(&frame, frame.len());
            assert_eq!(
                (again.as_slice(), end),
                (std::slice::from_ref(message), Ok(()))
            );
        }
    }
}

fn read(bytes: &[u8], size: usize) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.handle_bytes(piece);
        loop {
            match decoder.poll_frame() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    let end = decoder.finish();
    (messages, end)
}

/// Target: any bytes as a peer's certificate, as a CA, and as the text of either. Nobody is trusted who was not let in.
pub(super) fn certificate(input: &[u8]) {
    let trust = Trust::new("set.example");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let der = CertificateDer::from(input);
    for side in [Side::Client, Side::Server] {
        let refused = trust.verify(&der, &[], side, now);
        let refused = refused.expect_err("nobody was let in");
        assert!(refused.to_string().starts_with(refused.name()));
    }
    let _ = show::of_der(input);
    // As a CA, and as what vouches for one.
    let der = Bytes::copy_from_slice(input);
    if let Ok(said) = Authorities::new(vec![der.clone()], vec![der]) {
        assert_eq!(said.vouched(&TRUSTED), None, "nobody vouches for it");
    }
    let text = String::from_utf8_lossy(input);
    let _ = show::all_of_pem(&text);
    let mut trust = trust;
    let trusted = trust.set("east", &text).is_ok();
    assert_eq!(trust.clusters().count(), usize::from(trusted));
    let mut source = Source::new(input);
    let at = usize::from(source.any::<u16>()).min(text.len());
    if let Some((chain, key)) = text.split_at_checked(at) {
        let _ = Credentials::from_pem(chain, key);
    }
    if let Ok((clusterset, peer)) = PeerId::parse(&text) {
        assert_eq!(peer.uri(&clusterset), text);
    }
}
