//! What a hub is asked about members, by its operator or by a cluster that joins, and why it says no.

use super::manifest::{ClusterPeer, QuotaLimits};
use crate::enrol::message::MessageError;
use crate::hub::tokens::seconds;
use crate::io::ca_store::{OwnCa, RollError};
use crate::io::token_store::TokenStoreError;
use crate::join::{Conflict, Grant, Offer, OfferFault, Terms};
use crate::record::NameError;
use crate::revocation::{Kind, Verdict};
use crate::token::{Pin, SecretHash, TokenError};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Answers an affair.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the scribe is asked about members. Only one is settled at a time, over all replicas.
#[derive(Debug)]
pub(super) enum Affair {
    /// Who is there?
    List(oneshot::Sender<Vec<Listed>>),
    /// Make a token for a cluster.
    Invite(Box<Invitation>, Reply<Invited>),
    /// A cluster shows a token, to look or to join.
    Guest(Box<Shown>, Reply<Terms>),
    /// May this cluster, which invited ours, be a member?
    Meet(Box<Met>, Reply<()>),
    /// It took ours in: it is a member.
    Take(Box<Met>, Reply<()>),
    /// A member that joined is none any more.
    Leave(String, Reply<()>),
    /// A member or a node of ours is cut off.
    Revoke(String, Option<Kind>, Reply<Cut>),
    /// It is let in again.
    Readmit(String, Option<Kind>, Reply<Cut>),
    /// Another CA signs from now on.
    RollCa(Reply<Rolled>),
    /// The one before it is trusted no longer.
    RetireCa(Reply<Rolled>),
}

/// A member, or a `ClusterPeer` that is none.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) peer: Arc<ClusterPeer>,
    /// Whether the source says so.
    pub(super) declared: bool,
    /// Why it is none.
    pub(super) refused: Option<String>,
    /// Whether that is because it is cut off.
    pub(super) is_revoked: bool,
}

/// Who was cut off, or let in again.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cut {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// In seconds since 1970; of a cluster, the first epoch.
    pub(super) since: u64,
    /// Of this cluster's newest list.
    pub(super) epoch: u64,
    /// Whether other clusters are told, too.
    pub(super) is_published: bool,
}

/// How it stands with the own CA.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rolled {
    /// The fingerprint of the one that signs.
    pub(super) ca: String,
    /// That of the one before it, while it is trusted.
    pub(super) old: Option<String>,
    /// Until when, in seconds since 1970.
    pub(super) until: Option<u64>,
}

impl Rolled {
    pub(super) fn of(own: &OwnCa) -> Self {
        let fingerprint = |pem: &str| Pin::of_ca(pem).map(|pin| pin.to_string());
        let old = own.old.as_ref();
        Self {
            ca: fingerprint(&own.pem).unwrap_or_default(),
            old: old.and_then(|old| fingerprint(&old.pem)),
            until: old.map(|old| seconds(old.until)),
        }
    }
}

/// Whom an operator invites.
#[derive(Clone, Debug)]
pub(super) struct Invitation {
    /// Ours, with the hubs that are to be told.
    pub(super) ours: Offer,
    /// The cluster's name.
    pub(super) name: String,
    /// What it may announce here.
    pub(super) grant: Grant,
    /// How long the token is good.
    pub(super) life: Duration,
}

/// A token.
pub(super) struct Invited {
    pub(super) token: Zeroizing<String>,
    pub(super) expires: SystemTime,
}

/// Without the token.
impl std::fmt::Debug for Invited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invited")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A cluster that shows a token.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) ours: Offer,
    pub(super) hash: SecretHash,
    pub(super) offer: Offer,
    /// Its clock.
    pub(super) time: u64,
    /// What its operator agreed to; nothing: it looks.
    pub(super) agreed: Option<[u8; 32]>,
}

/// The cluster that invited ours.
#[derive(Clone, Debug)]
pub(super) struct Met {
    pub(super) ours: Offer,
    pub(super) terms: Terms,
    /// What it may announce here.
    pub(super) grant: Grant,
}

/// What is kept with a token for when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    /// Where the joining cluster is told that our hubs are.
    pub(super) hubs: Vec<String>,
    /// What it may announce.
    pub(super) namespaces: Option<Vec<String>>,
    /// How much.
    pub(super) quotas: QuotaLimits,
    /// Whether whom it revokes is cut off here, too.
    #[serde(default)]
    pub(super) may_revoke: bool,
}

/// Why it is not done: one line each. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The text is no token, or it is over by our clock.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is not good, or none can be kept.
    #[error(transparent)]
    Store(#[from] TokenStoreError),
    /// The two clusters cannot meet.
    #[error(transparent)]
    Conflict(Box<Conflict>),
    /// An offer or a grant makes no sense.
    #[error(transparent)]
    Offer(#[from] OfferFault),
    /// Our own CA cannot be read.
    #[error(transparent)]
    Pem(#[from] crate::io::pem_file::PemFault),
    /// A message makes no sense.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The token is for another cluster.
    #[error("token: is for cluster {wanted}; this is {here}: have one made for that name")]
    TokenName {
        /// Whom it is for.
        wanted: String,
        /// Who we are.
        here: String,
    },
    /// The inviting side is not who made the token.
    #[error("{field}: {got}: must be {wanted}, as the token says; have another made")]
    Inviter {
        field: &'static str,
        wanted: String,
        got: String,
    },
    /// A cluster cannot invite itself.
    #[error("NAME: {0}: is this cluster itself; name the one that is to join")]
    Itself(String),
    /// There is nobody of that name who joined.
    #[error("NAME: {0}: did not join this cluster; `hawser clusters list` names all")]
    NotJoined(String),
    /// Who is in the source, leaves with it.
    #[error("NAME: {0}: is a ClusterPeer of the source; remove its manifest")]
    Manifest(String),
    /// What was agreed to is not what is offered.
    #[error(
        "the offer of {0} is not the one that was agreed to; look at it again with `hawser join`"
    )]
    TermsChanged(String),
    /// Nobody can reach us.
    #[error(
        "hubs: none: other clusters must know where this cluster's hubs are; set it in hub.yaml, or --hubs"
    )]
    NoHubs,
    /// The life of a token.
    #[error("--ttl: {0} s: must be 1 to 900; choose another")]
    Life(u64),
    /// The inviting side said no.
    #[error("{text}")]
    Told { name: String, text: String },
    /// Nobody of the inviting side could be asked.
    #[error("{text}")]
    Unreached { name: &'static str, text: String },
    /// The state directory cannot be used.
    #[error("the state directory cannot be used: {}", crate::io::secret_file::reason(.0))]
    Disk(#[from] io::Error),
    /// It is cut off.
    #[error("NAME: {name}: {verdict}; let it in again first: `hawser readmit {name}`")]
    Revoked { name: String, verdict: Box<Verdict> },
    /// Nobody to cut off has that name.
    #[error(
        "NAME: {0}: is neither a member nor a node of this cluster; correct it, or say which it will be: --kind"
    )]
    NobodyOfThatName(String),
    /// Both have that name.
    #[error("NAME: {0}: is a cluster and a node; say which: --kind cluster, or --kind node")]
    Ambiguous(String),
    /// It is not cut off.
    #[error("NAME: {0}: is not revoked; `hawser clusters list` and `hawser hub` logs name who is")]
    NotRevoked(String),
    /// The list is full.
    #[error("NAME: 512 clusters are revoked already; let one in again first: `hawser readmit`")]
    TooManyRevoked,
    /// The CA does not sign.
    #[error("the CA of this cluster cannot sign the list of revocations")]
    Sign(#[from] crate::ca::IssueError),
    /// The CA is not changed.
    #[error(transparent)]
    Roll(#[from] RollError),
    /// Certificates come from elsewhere.
    #[error(
        "tls: is in hub.yaml, so this hub has no CA of its own; roll it where its certificates are issued"
    )]
    NotIssuing,
    /// The hub ends.
    #[error("the hub is ending; ask again")]
    Ending,
}

impl From<Conflict> for Refusal {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(Box::new(conflict))
    }
}

impl Refusal {
    /// Somebody wrote no name.
    pub(super) fn name_is_none(name: &str, rule: NameError) -> Self {
        let shown = name.escape_default();
        OfferFault(format!("NAME: {shown}: {rule}; correct it")).into()
    }

    /// Its name in logs, metrics, answers and tests.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Token(error) => error.name(),
            Self::Store(error) => error.name(),
            Self::Conflict(conflict) => conflict.name(),
            Self::Offer(_) => OfferFault::NAME,
            Self::Pem(_) => "ca_unreadable",
            Self::Message(error) => error.name(),
            Self::TokenName { .. } => "token_name",
            Self::Inviter { .. } => "inviter_other",
            Self::Itself(_) => "cluster_itself",
            Self::NotJoined(_) => "not_joined",
            Self::Manifest(_) => "peer_declared",
            Self::TermsChanged(_) => "terms_changed",
            Self::NoHubs => "no_hubs",
            Self::Life(_) => "ttl_range",
            Self::Told { .. } => "refused_there",
            Self::Unreached { name, .. } => name,
            Self::Disk(_) => "state_unusable",
            Self::Revoked { .. } => "cluster_revoked",
            Self::NobodyOfThatName(_) => "name_unknown",
            Self::Ambiguous(_) => "name_ambiguous",
            Self::NotRevoked(_) => "not_revoked",
            Self::TooManyRevoked => "too_many_revoked",
            Self::Sign(_) => "sign_failed",
            Self::Roll(RollError::Rolling(_)) => "ca_rolling",
            Self::Roll(RollError::NoneOld) => "ca_none_old",
            Self::Roll(_) => "ca_unchanged",
            Self::NotIssuing => "ca_none_own",
            Self::Ending => "hub_ending",
        }
    }

    /// The same; of what the inviting side said, its name there.
    pub(super) fn reason(&self) -> &str {
        if let Self::Told { name, .. } = self {
            return name;
        }
        self.name()
    }

    /// Whether our own files are of no use.
    pub(super) fn is_our_fault(&self) -> bool {
        matches!(
            self,
            Self::Disk(_)
                | Self::Pem(_)
                | Self::Sign(_)
                | Self::Store(TokenStoreError::Broken { .. })
        )
    }

    /// What a guest is told. Of our files no more than that.
    pub(super) fn for_guest(&self) -> (&'static str, String) {
        let text = if self.is_our_fault() {
            "the inviting hub cannot use its own files; its log says why".to_owned()
        } else {
            crate::chain::one_line(self)
        };
        (self.name(), text)
    }
}
