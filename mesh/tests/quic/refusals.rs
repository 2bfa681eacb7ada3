//! Who is refused, under which name, and that the listener serves the others as before.

use crate::initial::{datagram, hello_of_tls12};
use crate::members::{
    CLUSTERSET, Cluster, Forged, HOUR, assert_unharmed, listen, loopback, trust, until, uri,
};
use crate::raw::Client;
use hawser_mesh::io::quic::{HandshakeError, Listener, Tls, connect};
use hawser_mesh::trust::{Credentials, Expected, PeerId, Untrusted};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::UdpSocket;
use std::time::SystemTime;

/// The listener of `east`, which trusts `east` and `west`, refuses this client under this name, and tells it so.
async fn assert_refused(name: &str, client: impl FnOnce(&Cluster, &Cluster) -> Client) {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let (mut listener, address) = listen(&east, &[&east, &west]);
    let told = client(&east, &west).refused(address).await;
    until("the refusal", || listener.refusals().get(name) == Some(&1)).await;
    assert_eq!(listener.refusals().len(), 1, "{:?}", listener.refusals());
    let by_tls_alone = ["certificate_missing", "alpn_other", "tls_failed"];
    assert!(
        told.contains(name) || by_tls_alone.contains(&name),
        "the client is told {told:?}"
    );
    assert_unharmed(&east, &mut listener, address).await;
}

fn named(cluster: &Cluster, name: &str) -> Forged {
    cluster.forge(|params| params.subject_alt_names = vec![uri(name)])
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_only_calls_itself_the_same_is_refused() {
    assert_refused("issuer_unknown", |_, _| Client::of(&Cluster::new("east"))).await;
}

#[tokio::test]
async fn a_trusted_cluster_cannot_speak_for_another() {
    let forge = |_: &Cluster, west: &Cluster| {
        Client::with(named(west, &PeerId::node("east", "worker").uri(CLUSTERSET)))
    };
    assert_refused("issuer_unknown", forge).await;
    let forge = |east: &Cluster, _: &Cluster| {
        Client::with(named(east, &PeerId::hub("west", "hub-1").uri(CLUSTERSET)))
    };
    assert_refused("issuer_unknown", forge).await;
}

#[tokio::test]
async fn a_cluster_that_nobody_let_in_is_refused() {
    assert_refused("cluster_unknown", |_, _| Client::of(&Cluster::new("north"))).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_and_a_hub_of_our_own_have_no_business_at_a_hub() {
    assert_refused("cluster_other", |_, west| Client::of(west)).await;
    let forge = |east: &Cluster, _: &Cluster| {
        Client::with(named(east, &PeerId::hub("east", "hub-2").uri(CLUSTERSET)))
    };
    assert_refused("role_other", forge).await;
}

#[tokio::test]
async fn another_clusterset_is_refused() {
    let forge = |east: &Cluster, _: &Cluster| {
        Client::with(named(
            east,
            &PeerId::node("east", "worker").uri("other.set"),
        ))
    };
    assert_refused("clusterset_other", forge).await;
}

#[tokio::test]
async fn a_certificate_that_is_over_or_has_not_begun_is_refused() {
    let now = SystemTime::now();
    let expired = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| params.not_after = (now - HOUR / 2).into()))
    };
    assert_refused("certificate_expired", expired).await;
    let future = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| params.not_before = (now + HOUR / 2).into()))
    };
    assert_refused("certificate_not_yet_valid", future).await;
}

#[tokio::test]
async fn a_certificate_without_a_name_of_ours_or_with_many_is_refused() {
    let forge = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| params.subject_alt_names.clear()))
    };
    assert_refused("identity_missing", forge).await;
    let two = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| {
            let also = PeerId::node("east", "other").uri(CLUSTERSET);
            params.subject_alt_names.push(uri(&also));
        }))
    };
    assert_refused("identity_missing", two).await;
    for name in [
        "spiffe://set.example/cluster/east/pod/worker",
        "spiffe://set.example/cluster/east/node/worker/more",
        "spiffe://set.example/ns/default/sa/worker",
        "https://set.example/cluster/east/node/worker",
    ] {
        let forge = |east: &Cluster, _: &Cluster| Client::with(named(east, name));
        assert_refused("identity_malformed", forge).await;
    }
}

#[tokio::test]
async fn a_certificate_with_a_thousand_names_or_of_great_size_is_refused() {
    let many = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| {
            let names = (0..1000).map(|n| uri(&format!("spiffe://s/{n}")));
            params.subject_alt_names.extend(names);
        }))
    };
    assert_refused("certificate_too_long", many).await;
    let large = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| {
            let extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![4; 9000]);
            params.custom_extensions.push(extension);
        }))
    };
    assert_refused("certificate_too_long", large).await;
}

#[tokio::test]
async fn a_long_chain_is_refused() {
    let forge = |east: &Cluster, _: &Cluster| {
        let root = CertificateDer::from_pem_slice(east.root.certificate.as_bytes()).unwrap();
        let mut client = Client::of(east);
        client.chain = vec![root; 3];
        client
    };
    assert_refused("certificate_chain_too_long", forge).await;
}

#[tokio::test]
async fn a_certificate_for_servers_alone_opens_no_connection() {
    let forge = |east: &Cluster, _: &Cluster| {
        Client::with(east.forge(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }))
    };
    assert_refused("certificate_usage", forge).await;
}

#[tokio::test]
async fn nobody_comes_without_a_certificate() {
    let without = |east: &Cluster, _: &Cluster| Client {
        certificate: None,
        ..Client::of(east)
    };
    assert_refused("certificate_missing", without).await;
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let other = |east: &Cluster, _: &Cluster| Client {
        alpn: b"hawser/2".to_vec(),
        ..Client::of(east)
    };
    assert_refused("alpn_other", other).await;
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let east = Cluster::new("east");
    let (mut listener, address) = listen(&east, &[&east]);
    let socket = UdpSocket::bind(loopback()).unwrap();
    let hello = datagram(&hello_of_tls12(), *b"tls-12..");
    socket.send_to(&hello, address).unwrap();
    until("the refusal", || {
        listener.refusals().get("tls_version") == Some(&1)
    })
    .await;
    assert_unharmed(&east, &mut listener, address).await;
}

/// A node of `east` dials whoever has these credentials.
async fn dialled(east: &Cluster, credentials: Credentials) -> HandshakeError {
    let other = Tls::new(credentials, trust(&[east]));
    let listener = Listener::bind(loopback(), other).unwrap();
    let tls = Tls::new(east.node("worker"), trust(&[east]));
    let address = listener.local_address().unwrap();
    connect(address, &tls, Expected::HubOf("east".to_owned()))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_node_talks_to_no_hub_but_its_own() {
    let east = Cluster::new("east");
    let read = |forged: Forged| Credentials::from_pem(&forged.certificate, &forged.key).unwrap();
    let hub = PeerId::hub("east", "hub-1").uri(CLUSTERSET);

    let impostor = Cluster::new("east").hub("hub-1");
    assert_eq!(
        dialled(&east, impostor).await,
        Untrusted::IssuerUnknown.into()
    );
    let stranger = Cluster::new("west").hub("hub-1");
    let unknown = Untrusted::ClusterUnknown("west".to_owned());
    assert_eq!(dialled(&east, stranger).await, unknown.into());
    let node = dialled(&east, east.node("other")).await;
    assert_eq!(node, Untrusted::RoleOther.into());
    let expired = read(east.forge(|params| {
        params.subject_alt_names = vec![uri(&hub)];
        params.not_after = (SystemTime::now() - HOUR / 2).into();
    }));
    assert_eq!(dialled(&east, expired).await, Untrusted::Expired.into());
    let for_clients = read(east.forge(|params| {
        params.subject_alt_names = vec![uri(&hub)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }));
    assert_eq!(dialled(&east, for_clients).await, Untrusted::Usage.into());
}
