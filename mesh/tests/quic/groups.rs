//! Keys are agreed by X25519 and ML-KEM-768 together, unless the other side cannot.

use crate::members::{Cluster, Forged, listen, loopback, soon, trust, until};
use crate::raw::Client;
use hawser_mesh::io::quic::{ALPN, Tls, connect};
use hawser_mesh::trust::{Expected, provider};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{NamedGroup, ServerConfig};
use std::sync::{Arc, Mutex};

/// A server that takes one group, and notes what a client offers.
#[derive(Debug)]
pub(crate) struct Curious {
    own: Arc<CertifiedKey>,
    offered: Mutex<Vec<NamedGroup>>,
}

impl ResolvesServerCert for Curious {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = client_hello.named_groups().unwrap_or_default();
        *self.offered.lock().unwrap() = offered.to_vec();
        Some(Arc::clone(&self.own))
    }
}

impl Curious {
    pub(crate) fn serve(
        own: &Forged,
        group: &'static dyn SupportedKxGroup,
        alpn: &[u8],
    ) -> (quinn::Endpoint, Arc<Self>) {
        let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let key = provider().key_provider.load_private_key(key).unwrap();
        let curious = Arc::new(Self {
            own: Arc::new(CertifiedKey::new(chain, key)),
            offered: Mutex::default(),
        });
        let only = CryptoProvider {
            kx_groups: vec![group],
            ..(*provider()).clone()
        };
        let mut tls = ServerConfig::builder_with_provider(Arc::new(only))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&curious) as Arc<dyn ResolvesServerCert>);
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls = Arc::new(QuicServerConfig::try_from(tls).unwrap());
        let server = quinn::ServerConfig::with_crypto(tls);
        let server = quinn::Endpoint::server(server, loopback()).unwrap();
        (server, curious)
    }

    pub(crate) fn offered(&self) -> Vec<NamedGroup> {
        self.offered.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn we_offer_the_post_quantum_group_first_and_agree_by_it_where_it_is_all_there_is() {
    let east = Cluster::new("east");
    let hub = east.forge(|params| {
        let name = hawser_mesh::trust::PeerId::hub("east", "hub-1");
        params.subject_alt_names = vec![crate::members::uri(&name.uri("set.example"))];
    });
    let (server, curious) = Curious::serve(&hub, kx_group::X25519MLKEM768, ALPN);
    let address = server.local_addr().unwrap();

    let node = Tls::new(east.node("worker"), trust(&[&east]));
    let dialled =
        tokio::spawn(
            async move { connect(address, &node, Expected::HubOf("east".to_owned())).await },
        );
    let incoming = soon("a client", server.accept()).await.unwrap();
    let connection = soon("the handshake", incoming.into_future()).await.unwrap();
    assert_eq!(
        curious.offered(),
        [NamedGroup::X25519MLKEM768, NamedGroup::X25519]
    );
    drop(connection);
    assert!(soon("the client", dialled).await.unwrap().is_err());
}

#[tokio::test]
async fn a_hub_agrees_by_either_group_and_by_no_other() {
    let east = Cluster::new("east");
    let (listener, address) = listen(&east, &[&east]);
    for group in [kx_group::X25519MLKEM768, kx_group::X25519] {
        let client = Client {
            groups: vec![group],
            ..Client::of(&east)
        };
        assert!(client.dial(address).await.is_ok(), "{:?}", group.name());
    }
    let client = Client {
        groups: vec![kx_group::SECP256R1],
        ..Client::of(&east)
    };
    assert!(client.dial(address).await.is_err());
    until("the refusal", || {
        listener.refusals().get("tls_none_in_common") == Some(&1)
    })
    .await;
}
