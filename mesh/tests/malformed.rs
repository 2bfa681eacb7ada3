//! Certificates that are nearly right, or nothing at all, by the thousand: none is taken, each has a reason, memory stays,
//! and whoever does all right is served (T18).
//!
//! A program of its own, because it looks at its own memory.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it stands and says why"
)]

mod mangle;
#[path = "quic/members.rs"]
mod members;
#[path = "quic/raw.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod raw;

use mangle::{Dice, mangled, resident};
use members::{Cluster, assert_unharmed, listen, until};
use raw::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::SocketAddr;

/// How many. What ended is remembered for some seconds, so memory is looked at when half of them have been.
const COUNT: u64 = 10_000;
/// How much more it may have after the rest.
const MORE: u64 = 4 << 20;

/// Shows as many.
async fn show(dice: &mut Dice, east: &Cluster, address: SocketAddr, count: u64) {
    let mut client = Client::of(east);
    let own = client.certificate.as_ref().unwrap();
    let good = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
    for number in 0..count {
        let bad = mangled(&good, dice);
        client.shown = Some(bad.clone().into());
        let told = client.refused(address).await;
        assert!(
            !told.is_empty() && !told.contains('\n'),
            "{number}: {bad:x?}: {told:?}"
        );
    }
}

#[tokio::test]
async fn thousands_of_malformed_certificates_open_nothing_and_each_has_a_reason() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let mut dice = Dice(7);
    show(&mut dice, &east, address, COUNT / 2).await;
    let before = resident("self");
    show(&mut dice, &east, address, COUNT / 2).await;
    let refused = || listener.refusals().values().sum::<u64>();
    until("each is counted", || refused() >= COUNT).await;
    let after = resident("self");
    let refusals = listener.refusals();
    println!("{COUNT} certificates: {refusals:?}; {before} then {after} bytes resident");
    assert_eq!(refused(), COUNT, "{refusals:?}");
    // Those of a certificate alone: none got as far as a stream.
    let known = [
        "certificate_malformed",
        "certificate_too_long",
        "certificate_refused",
        "certificate_missing",
        "certificate_expired",
        "certificate_not_yet_valid",
        "certificate_usage",
        "identity_malformed",
        "identity_missing",
        "cluster_unknown",
        "clusterset_other",
        "issuer_unknown",
        "tls_failed",
    ];
    for name in refusals.keys() {
        assert!(known.contains(name), "{name}: {refusals:?}");
    }
    assert!(after <= before + MORE, "{before} then {after} bytes");
    assert_unharmed(&east, &mut listener, address).await;
}
