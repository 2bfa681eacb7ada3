//! What TLS is told for each connection.

use super::{ALPN, ENROL_ALPN, KEY_ALPN};
use crate::psk::Group;
use crate::trust::{
    Credentials, Expected, PeerId, Pinned, Side, Trust, Untrusted, provider, provider_of,
};
use arc_swap::ArcSwap;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup,
    OtherError, ServerConfig, SignatureScheme,
};
use std::sync::{Arc, OnceLock};

/// What we show and whom we trust. Both can be changed at any time: connections that are open stay, new ones are made
/// with what is newest.
#[derive(Debug)]
pub struct Tls {
    credentials: ArcSwap<Credentials>,
    trust: ArcSwap<Trust>,
}

impl Tls {
    /// Shared by listeners and dialers.
    pub fn new(credentials: Credentials, trust: Trust) -> Arc<Self> {
        Arc::new(Self {
            credentials: ArcSwap::from_pointee(credentials),
            trust: ArcSwap::from_pointee(trust),
        })
    }

    /// Shows another certificate from now on.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.credentials.store(Arc::new(credentials));
    }

    /// Trusts others from now on.
    pub fn set_trust(&self, trust: Trust) {
        self.trust.store(Arc::new(trust));
    }

    /// What is shown now.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.load_full()
    }

    /// Who is trusted now.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    fn check(&self, expected: Expected) -> Check {
        Check {
            known: Known::Trusted(self.trust(), expected),
            found: Arc::default(),
        }
    }

    /// For one connection that comes to a hub.
    pub(super) fn server(&self) -> Result<Served, Error> {
        let credentials = self.credentials();
        let expected = Expected::GuestOf(credentials.id().cluster.clone());
        let shown = Shown::new(&credentials, &self.trust());
        // A peer that speaks both is no guest.
        let spoken = vec![ALPN.to_vec(), ENROL_ALPN.to_vec()];
        self.serve(expected, spoken, Arc::new(shown), Offered::default())
    }

    /// For one connection that comes to an agent, from another.
    pub(super) fn key_server(&self) -> Result<Served, Error> {
        let offered = Offered::default();
        let noted = Noted {
            shown: self.credentials().certified(),
            offered: Arc::clone(&offered),
        };
        let spoken = vec![KEY_ALPN.to_vec()];
        self.serve(Expected::AnyNode, spoken, Arc::new(noted), offered)
    }

    fn serve(
        &self,
        expected: Expected,
        spoken: Vec<Vec<u8>>,
        shown: Arc<dyn ResolvesServerCert>,
        offered: Offered,
    ) -> Result<Served, Error> {
        let check = self.check(expected);
        let found = Arc::clone(&check.found);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(check))
            .with_cert_resolver(shown);
        config.alpn_protocols = spoken;
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        let config = QuicServerConfig::try_from(config)
            .map_err(|_| Error::General("no cipher suite for QUIC".to_owned()))?;
        Ok(Served {
            config: quinn::ServerConfig::with_crypto(Arc::new(config)),
            found,
            offered,
        })
    }

    /// For one connection that is opened with this protocol.
    pub(super) fn client(
        &self,
        expected: Expected,
        alpn: &[u8],
    ) -> Result<(quinn::ClientConfig, Found), Error> {
        self.client_by(provider(), expected, alpn)
    }

    /// For one connection that is opened to another agent, by this group.
    pub(super) fn key_client(
        &self,
        expected: Expected,
        group: Group,
    ) -> Result<(quinn::ClientConfig, Found), Error> {
        self.client_by(provider_of(group), expected, KEY_ALPN)
    }

    fn client_by(
        &self,
        provider: Arc<CryptoProvider>,
        expected: Expected,
        alpn: &[u8],
    ) -> Result<(quinn::ClientConfig, Found), Error> {
        let credentials = self.credentials();
        let check = self.check(expected);
        let found = Arc::clone(&check.found);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(check))
            .with_client_cert_resolver(Arc::new(Own(credentials.certified())));
        Ok((client_config(config, alpn)?, found))
    }
}

/// For one connection of a guest that has a token and no certificate.
pub(super) fn guest(pinned: Pinned) -> Result<(quinn::ClientConfig, Found, FoundCa), Error> {
    let ca = FoundCa::default();
    let check = Check {
        known: Known::Pinned(pinned, Arc::clone(&ca)),
        found: Arc::default(),
    };
    let found = Arc::clone(&check.found);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check))
        .with_no_client_auth();
    Ok((client_config(config, ENROL_ALPN)?, found, ca))
}

fn client_config(mut config: ClientConfig, alpn: &[u8]) -> Result<quinn::ClientConfig, Error> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    let config = QuicClientConfig::try_from(config)
        .map_err(|_| Error::General("no cipher suite for QUIC".to_owned()))?;
    Ok(quinn::ClientConfig::new(Arc::new(config)))
}

/// What the check of the peer's certificate said, once there was one.
pub(super) type Found = Arc<OnceLock<Result<PeerId, Untrusted>>>;

/// By which group the client of a connection shakes hands, once it has said so.
pub(super) type Offered = Arc<OnceLock<Group>>;

/// What one connection that comes is judged by.
pub(super) struct Served {
    pub(super) config: quinn::ServerConfig,
    pub(super) found: Found,
    pub(super) offered: Offered,
}

/// The CA by which a hub was known, in PEM, once it was.
pub(super) type FoundCa = Arc<OnceLock<String>>;

/// The check of one connection's peer.
#[derive(Debug)]
struct Check {
    known: Known,
    found: Found,
}

/// By what a peer is known.
#[derive(Debug)]
enum Known {
    /// Its cluster's CA is trusted.
    Trusted(Arc<Trust>, Expected),
    /// A token says so.
    Pinned(Pinned, FoundCa),
}

impl Check {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), Error> {
        let peer = match &self.known {
            Known::Trusted(trust, expected) => trust
                .verify(certificate, intermediates, side, now)
                .and_then(|peer| expected.check(&peer).map(|()| peer)),
            Known::Pinned(pinned, found) => {
                let verified = pinned.verify(certificate, intermediates, now);
                verified.map(|(peer, ca)| {
                    let _ = found.set(ca);
                    peer
                })
            }
        };
        let refused = peer.as_ref().err().cloned();
        let _ = self.found.set(peer);
        match refused {
            None => Ok(()),
            Some(untrusted) => {
                let other = OtherError(Arc::new(Told(untrusted.name())));
                Err(Error::InvalidCertificate(CertificateError::Other(other)))
            }
        }
    }
}

/// What the peer is told of our refusal: its name and nothing of what we know. rustls tells it in the form of `Debug`.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Told(&'static str);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, &algorithms)
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken".to_owned()))
}

fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

impl ClientCertVerifier for Check {
    /// A guest may come without; who is none is refused once the protocol is known.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, Side::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, Side::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Always shows the one certificate that there is.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

/// What a server shows: to guests, which may know no more than a key, with the CAs that it leads to.
#[derive(Debug)]
struct Shown {
    to_peers: Arc<CertifiedKey>,
    to_guests: Arc<CertifiedKey>,
}

impl Shown {
    fn new(credentials: &Credentials, trust: &Trust) -> Self {
        let to_peers = credentials.certified();
        let mut chain = to_peers.cert.clone();
        for ca in trust.authorities(&credentials.id().cluster) {
            if !chain.contains(ca) {
                chain.push(ca.clone());
            }
        }
        let to_guests = CertifiedKey::new(chain, Arc::clone(&to_peers.key));
        Self {
            to_peers,
            to_guests: Arc::new(to_guests),
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut spoken: Vec<_> = client_hello.alpn().into_iter().flatten().collect();
        spoken.retain(|alpn| [ALPN, ENROL_ALPN].contains(alpn));
        Some(Arc::clone(if spoken == [ENROL_ALPN] {
            &self.to_guests
        } else {
            &self.to_peers
        }))
    }
}

/// What an agent shows, and by which group it was asked to. A client that offers both may get either, which is as good as
/// the weaker; ours offers one.
#[derive(Debug)]
struct Noted {
    shown: Arc<CertifiedKey>,
    offered: Offered,
}

impl ResolvesServerCert for Noted {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ours = provider();
        let mut groups = client_hello.named_groups().unwrap_or_default().iter();
        let is_ours = |group: &&NamedGroup| ours.kx_groups.iter().any(|our| our.name() == **group);
        let is_hybrid = |group: &NamedGroup| *group == NamedGroup::X25519MLKEM768;
        let group = match groups.by_ref().filter(is_ours).all(is_hybrid) {
            true => Group::Hybrid,
            false => Group::Classical,
        };
        let _ = self.offered.set(group);
        Some(Arc::clone(&self.shown))
    }
}

impl ResolvesClientCert for Own {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
