//! Why a session is closed.

use crate::wire::MessageError;

/// A message that no honest peer sends. The session is closed with it; others do not notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// See [`crate::wire::MAX_MESSAGE`].
    #[error("message of more than 1048576 bytes")]
    MessageTooLong,
    /// It is no protobuf.
    #[error("malformed message")]
    MessageMalformed,
    /// Something came before it.
    #[error("the first message is no hello")]
    HelloMissing,
    /// There was one already.
    #[error("a second hello")]
    HelloTwice,
    /// A snapshot among the changes, or the reverse.
    #[error("message on the wrong stream")]
    WrongStream,
    /// What this side says, or says of another role, or at another time.
    #[error("message that nobody waits for")]
    UnexpectedMessage,
    /// A subscription's number is not greater than the one before: an old message, sent again.
    #[error("subscription with a number that was used")]
    SubscriptionOrder,
    /// Nobody subscribed with this number yet.
    #[error("message about a subscription that is not there yet")]
    SubscriptionUnknown,
    /// See [`super::MAX_PREFIXES`].
    #[error("too many prefixes")]
    TooManyPrefixes,
    /// It is empty or too long.
    #[error("malformed prefix")]
    PrefixMalformed,
    /// Prefixes are sorted, none under another.
    #[error("prefixes that are not sorted, or one under another")]
    PrefixOrder,
    /// What the origin keeps to its own agents, or to another node.
    #[error("prefix of what is not for this peer")]
    PrefixPrivate,
    /// No cluster has this number.
    #[error("malformed cluster ID")]
    OriginMalformed,
    /// It is not for this peer.
    #[error("origin that is not shown to this peer")]
    OriginNotShown,
    /// We did not ask for it.
    #[error("origin that was not subscribed to")]
    OriginNotSubscribed,
    /// Nobody else may say anything of it.
    #[error("our own origin, told by somebody else")]
    OriginIsOwn,
    /// See [`super::Limits::origins`].
    #[error("too many origins")]
    TooManyOrigins,
    /// Sums have 16 bytes, one for each bucket.
    #[error("digests of a wrong length")]
    DigestsLength,
    /// A set of buckets has 32 bytes.
    #[error("buckets of a wrong length")]
    BucketsLength,
    /// A part that was never sent.
    #[error("acknowledgement of what was not sent")]
    AckOfUnsent,
    /// A part is missing, or came twice.
    #[error("part out of order")]
    SequenceOrder,
    /// See [`super::WINDOW`].
    #[error("more unacknowledged parts than agreed")]
    WindowExceeded,
    /// Changes are sorted by revision and lie within the delta.
    #[error("revisions out of order")]
    RevisionOrder,
    /// A state that is older than one we had.
    #[error("version that went back")]
    VersionWentBack,
    /// See [`super::MAX_INCARNATION_STEP`].
    #[error("implausible incarnation")]
    IncarnationImplausible,
    /// Nobody asked for one.
    #[error("snapshot that was not asked for")]
    SnapshotUnasked,
    /// The ranges of a snapshot follow on each other, and its parts are of one state.
    #[error("snapshot part that does not follow on the one before")]
    SnapshotRange,
    /// The records of a snapshot are sorted by key.
    #[error("keys out of order")]
    KeyOrder,
    /// A key outside the subscription, the range or the buckets.
    #[error("record that was not asked for")]
    KeyNotSubscribed,
    /// Too many lanes, or something that is none.
    #[error("malformed announcement")]
    AnnounceMalformed,
}

impl Reject {
    /// Its name in metrics, logs and the reason that the other side is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageTooLong => "message_too_long",
            Self::MessageMalformed => "message_malformed",
            Self::HelloMissing => "hello_missing",
            Self::HelloTwice => "hello_twice",
            Self::WrongStream => "wrong_stream",
            Self::UnexpectedMessage => "unexpected_message",
            Self::SubscriptionOrder => "subscription_order",
            Self::SubscriptionUnknown => "subscription_unknown",
            Self::TooManyPrefixes => "too_many_prefixes",
            Self::PrefixMalformed => "prefix_malformed",
            Self::PrefixOrder => "prefix_order",
            Self::PrefixPrivate => "prefix_private",
            Self::OriginMalformed => "origin_malformed",
            Self::OriginNotShown => "origin_not_shown",
            Self::OriginNotSubscribed => "origin_not_subscribed",
            Self::OriginIsOwn => "origin_is_own",
            Self::TooManyOrigins => "too_many_origins",
            Self::DigestsLength => "digests_length",
            Self::BucketsLength => "buckets_length",
            Self::AckOfUnsent => "ack_of_unsent",
            Self::SequenceOrder => "sequence_order",
            Self::WindowExceeded => "window_exceeded",
            Self::RevisionOrder => "revision_order",
            Self::VersionWentBack => "version_went_back",
            Self::IncarnationImplausible => "incarnation_implausible",
            Self::SnapshotUnasked => "snapshot_unasked",
            Self::SnapshotRange => "snapshot_range",
            Self::KeyOrder => "key_order",
            Self::KeyNotSubscribed => "key_not_subscribed",
            Self::AnnounceMalformed => "announce_malformed",
        }
    }
}

impl From<MessageError> for Reject {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::TooLong(_) => Self::MessageTooLong,
            MessageError::Malformed(_) => Self::MessageMalformed,
        }
    }
}
