//! Why there is no key from a session.

/// What the node that was asked has against it. The name travels; the text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a request, or an impossible one.
    #[error("the request cannot be read")]
    Malformed,
    /// The node is proven, and no record says that it is a peer of ours.
    #[error("no record of that node is here, or node.yaml says what its keys are")]
    PeerUnknown,
    /// One side knows other WireGuard keys than the other.
    #[error("WireGuard keys are others here; one of the two has not heard of a change yet")]
    KeysOther,
    /// There is a key of that epoch or a later one.
    #[error("there is a key of that epoch or a later one")]
    EpochOld,
    /// The session is X25519 alone, where more is required or was there before.
    #[error("the session was agreed upon by X25519 alone")]
    GroupClassical,
    /// The two sides derive different keys.
    #[error("the two sides derive different keys")]
    ConfirmationOther,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::PeerUnknown,
        Self::KeysOther,
        Self::EpochOld,
        Self::GroupClassical,
        Self::ConfirmationOther,
    ];

    /// Its name in metrics, logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "key_malformed",
            Self::PeerUnknown => "key_peer_unknown",
            Self::KeysOther => "key_keys_other",
            Self::EpochOld => "key_epoch_old",
            Self::GroupClassical => "key_group_classical",
            Self::ConfirmationOther => "key_confirmation_other",
        }
    }

    /// The refusal of that name, if we know it.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.name() == name)
    }
}
