//! A client that does as it likes: other certificates, other protocols, streams with any bytes.

use crate::members::{Cluster, Forged, soon};
use hawser_mesh::frame::{Stream, encode};
use hawser_mesh::io::quic::ALPN;
use hawser_mesh::trust::provider;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What it shows and says.
pub(crate) struct Client {
    pub(crate) certificate: Option<Forged>,
    /// These bytes in place of that certificate, with its key.
    pub(crate) shown: Option<CertificateDer<'static>>,
    /// More behind its own.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) alpn: Vec<u8>,
    /// More protocols behind it.
    pub(crate) also: Vec<Vec<u8>>,
    pub(crate) groups: Vec<&'static dyn SupportedKxGroup>,
}

impl Client {
    pub(crate) fn with(certificate: Forged) -> Self {
        Self {
            certificate: Some(certificate),
            shown: None,
            chain: Vec::new(),
            alpn: ALPN.to_vec(),
            also: Vec::new(),
            groups: provider().kx_groups.clone(),
        }
    }

    /// As the node `worker` would.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self::with(cluster.forge(|_| ()))
    }

    pub(crate) fn tls(&self) -> ClientConfig {
        let provider = Arc::new(CryptoProvider {
            kx_groups: self.groups.clone(),
            ..(*provider()).clone()
        });
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match &self.certificate {
            None => config.with_no_client_auth(),
            Some(forged) => {
                let own = CertificateDer::from_pem_slice(forged.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(forged.key.as_bytes()).unwrap();
                // Nobody looks whether they belong together.
                let key = provider.key_provider.load_private_key(key).unwrap();
                let own = self.shown.clone().unwrap_or(own);
                let chain = std::iter::once(own).chain(self.chain.iter().cloned());
                let certified = CertifiedKey::new(chain.collect(), key);
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = vec![self.alpn.clone()];
        config.alpn_protocols.extend(self.also.iter().cloned());
        config
    }

    /// The connection as QUIC makes it; the other side may still refuse.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let config = QuicClientConfig::try_from(self.tls()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(400)));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, address, "hub").unwrap();
        soon("a handshake", connecting).await
    }

    /// Why the other side ends the connection, in its words.
    pub(crate) async fn refused(&self, address: SocketAddr) -> String {
        match self.dial(address).await {
            Ok(connection) => soon("the end", connection.closed()).await.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

/// A stream on which the opening was said.
pub(crate) async fn opened(
    connection: &quinn::Connection,
    stream: Stream,
) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let opening = encode(stream, stream.name().as_bytes()).unwrap();
    send.write_all(&opening).await.unwrap();
    (send, receive)
}

/// Takes every server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
