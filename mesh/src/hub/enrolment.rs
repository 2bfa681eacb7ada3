//! The desk at which nodes get their certificates.

use crate::config::hub_yaml::HubConfig;
use crate::enrol::desk::{EnrolRefusal, Proof, Wanted, weigh};
use crate::enrol::message::{Answer, Request};
use crate::hub::tokens::{Shown, Standing};
use crate::io::ca_store::OwnCa;
use crate::io::quic::Guest;
use crate::io::revoked_folder::is_node_revoked;
use crate::io::token_store::{TokenStore, TokenStoreError};
use crate::token::Purpose;
use crate::trust::PeerId;
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often tokens that are long over are forgotten.
pub(super) const SWEEP: Duration = Duration::from_secs(3600);

/// The desk. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Enrolment(Arc<Desk>);

#[derive(Debug)]
struct Desk {
    cluster: String,
    state_directory: PathBuf,
    life: Duration,
    tokens: TokenStore,
    own: Option<ArcSwap<OwnCa>>,
}

impl Enrolment {
    /// Opens the desk. Without an own CA it only says so.
    pub(super) fn open(
        config: &HubConfig,
        own: Option<Arc<OwnCa>>,
    ) -> Result<Self, TokenStoreError> {
        Ok(Self(Arc::new(Desk {
            cluster: config.cluster.name.clone(),
            state_directory: config.state_directory.clone(),
            life: config.node_certificate,
            tokens: TokenStore::open(&config.state_directory)?,
            own: own.map(ArcSwap::new),
        })))
    }

    /// Takes the own CA as it is by now.
    pub(super) fn set_own(&self, own: Arc<OwnCa>) {
        if let Some(before) = &self.0.own {
            before.store(own);
        }
    }

    /// Answers a guest. It takes the disk's time, and nobody else's. `is_member`: it has shown that it is a node that the
    /// cluster has.
    pub(super) fn serve(&self, guest: Guest, is_member: bool) {
        let desk = Arc::clone(&self.0);
        tokio::spawn(async move {
            let (request, peer) = (guest.request().clone(), guest.peer.clone());
            let judged = tokio::task::spawn_blocking(move || {
                desk.judge(&request, peer.as_ref(), is_member, SystemTime::now())
            });
            // A thread that panicked has said so.
            let judged = judged.await.unwrap_or(Err(EnrolRefusal::Issue));
            match judged {
                Ok(answer) => guest.answer(answer.encode()).await,
                Err(refusal) => guest.refuse(refusal.name(), refusal.to_string()).await,
            }
        });
    }

    /// Forgets tokens that are long over.
    pub(super) fn sweep(&self) {
        let desk = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || match desk.tokens.sweep(SystemTime::now()) {
            Ok(0) => {}
            Ok(tokens) => tracing::info!(tokens, "forgot tokens that are long over"),
            Err(error) => tracing::warn!(%error, "old tokens cannot be forgotten"),
        });
    }
}

impl Desk {
    fn judge(
        &self,
        request: &Bytes,
        peer: Option<&PeerId>,
        is_member: bool,
        now: SystemTime,
    ) -> Result<Answer, EnrolRefusal> {
        let own = self
            .own
            .as_ref()
            .ok_or(EnrolRefusal::NotIssuing)?
            .load_full();
        let wanted = weigh(Request::decode(request)?, peer, is_member, &self.cluster)?;
        self.check_revoked(&wanted.node)?;
        let by = self.prove(&wanted, now)?;
        let chain = own.ca.node_for(&wanted.node, &wanted.csr, self.life, now);
        let chain = chain.map_err(|error| {
            tracing::error!(%error, node = wanted.node, "no certificate can be issued");
            EnrolRefusal::Issue
        })?;
        tracing::info!(node = wanted.node, by, "issued a certificate");
        let ca = own.bundle();
        Ok(Answer::Certificate { chain, ca })
    }

    /// Nothing is used up by who is cut off, nor while it cannot be known.
    fn check_revoked(&self, node: &str) -> Result<(), EnrolRefusal> {
        match is_node_revoked(&self.state_directory, node) {
            Ok(false) => Ok(()),
            Ok(true) => Err(EnrolRefusal::NodeRevoked {
                node: node.to_owned(),
            }),
            Err(error) => {
                tracing::error!(%error, "revocations cannot be read");
                Err(EnrolRefusal::StoreBroken)
            }
        }
    }

    /// Uses a token up, where one is the proof. By what it is proven.
    fn prove(&self, wanted: &Wanted, now: SystemTime) -> Result<&'static str, EnrolRefusal> {
        let hash = match &wanted.proof {
            Proof::Certificate => return Ok("certificate"),
            Proof::Token(hash) => hash,
        };
        let by = wanted.csr.fingerprint();
        let shown = Shown {
            purpose: Purpose::Node,
            name: &wanted.node,
            by: &by,
        };
        match self.tokens.consume(hash, shown, now) {
            Ok(consumed) if consumed.standing == Standing::Again => Ok("token, again"),
            Ok(_) => Ok("token"),
            Err(TokenStoreError::Refused(refusal)) => Err(refusal.into()),
            Err(error @ TokenStoreError::Broken { .. }) => {
                tracing::error!(%error, "tokens cannot be looked up");
                Err(EnrolRefusal::StoreBroken)
            }
        }
    }
}
