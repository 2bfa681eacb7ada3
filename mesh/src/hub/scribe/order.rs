//! What the scribe is told, and what it tells.

use crate::hub::bump::Claim;
use crate::hub::joining::Affair;
use crate::hub::journal::{Frame, Live};
use crate::hub::members::MemberChange;
use crate::io::ca_store::OwnCa;
use crate::io::journal_file::JournalError;
use crate::io::lock::Lock;
use crate::io::token_store::TokenStoreError;
use crate::record::{Incarnation, LaneRecord};
use crate::revocation::{Epoch, Signed};
use crate::trust::Authorities;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// What the scribe is told.
#[derive(Debug)]
pub(in crate::hub) enum Order {
    /// Something changed in the source.
    Source,
    /// Something changed in the journal.
    Journal,
    /// Some node's lanes were written.
    Announced,
    /// Some replica wrote what it heard of newer states.
    Heard,
    /// Some replica wrote of a member that joined or left.
    Peers,
    /// Some replica wrote of somebody who is cut off.
    Revoked,
    /// A member told whom it revoked.
    Revocations(Box<Signed>),
    /// Some replica changed the CA of this cluster.
    Ca,
    /// Some replica wrote what became of another cluster's CA.
    Followed,
    /// A member told its CAs.
    Authorities(String, Authorities),
    /// Something about members is asked or to be done.
    Affair(Affair),
    /// Nobody else writes any more.
    Locked(Lock),
    /// The lock cannot be had.
    Unlockable(io::Error),
    /// An agent told its node's lanes.
    Lanes(String, Vec<LaneRecord>),
    /// Subscribers told this replica, which does not write, of newer states.
    Ahead(Vec<Claim>),
    /// Begin another incarnation.
    Bump(Incarnation),
    /// End.
    Stop,
}

/// What the scribe tells.
#[derive(Debug)]
pub(in crate::hub) enum Report {
    /// The own cluster's state, once.
    Own(Live),
    /// The next change of it.
    Frame(Frame),
    /// A member came, changed or left.
    Member(MemberChange),
    /// The CA of this cluster is another, or the one before it is trusted no longer.
    Ca(Arc<OwnCa>),
    /// The newest lists of revocations, by their issuers.
    Epochs(BTreeMap<String, Epoch>),
    /// Another replica heard this.
    Heard(Claim),
    /// This replica writes from now on.
    Writes,
    /// How many objects there are, and what is wrong with others: a line each.
    Source(usize, Vec<String>),
    /// It cannot go on.
    Failed(ScribeError),
}

/// Why a scribe cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScribeError {
    /// The journal is of no use.
    #[error(transparent)]
    Journal(#[from] JournalFault),
    /// The state directory is of no use.
    #[error("failed to use the state directory")]
    State(#[from] io::Error),
    /// Tokens cannot be kept in it.
    #[error(transparent)]
    Tokens(#[from] TokenStoreError),
}

/// What is wrong with the journal.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JournalFault(JournalError);

impl From<JournalError> for ScribeError {
    fn from(error: JournalError) -> Self {
        Self::Journal(JournalFault(error))
    }
}
