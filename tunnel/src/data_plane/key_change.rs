//! Changes of this node's own WireGuard keys: on disk first, then in force.

use super::DataPlane;
use super::control::refused;
use crate::control::{Refusal, Response};
use crate::device::KeyChangeError;
use crate::io::key_file::{self, KeyFileError};
use crate::io::{clock, stack};
use crate::key::OwnKeys;
use crate::lane::LaneNumber;
use crate::outgoing::PerLane;
use std::path::Path;
use std::sync::PoisonError;
use tracing::{info, warn};

/// The keys of these lanes as they are on disk.
pub(super) fn load(state_dir: &Path, lanes: &[LaneNumber]) -> Result<Vec<OwnKeys>, KeyFileError> {
    let keys = lanes.iter().map(|lane| key_file::load(state_dir, *lane));
    keys.collect()
}

impl DataPlane {
    /// Begins a change. The keys are on disk before a peer can be told of them: a node that forgot them would be lost to
    /// whoever forgot the others.
    pub(super) fn make_new_keys(&self) -> Response {
        if self.device.has_older_keys() {
            return going_on();
        }
        let keys = match key_file::make_newer(&self.options.state_dir, self.lanes.len()) {
            Ok(keys) => keys,
            Err(error) => return refused(Refusal::NotPersisted, error.to_string()),
        };
        let mut out = PerLane::default();
        let changed = self.device.change_keys(keys, clock::now(), &mut out);
        self.transmit(&out);
        stack::wipe();
        match changed {
            Ok(()) => {
                info!(public_key = %self.device.public_key(), "change of keys begins");
                Response::NewKeys {
                    public_keys: self.public_keys(),
                }
            }
            Err(KeyChangeError::GoingOn) => going_on(),
            Err(error @ KeyChangeError::Count) => refused(Refusal::NotPersisted, error.to_string()),
        }
    }

    /// Ends a change because somebody says so.
    pub(super) fn forget_old_keys(&self) -> Response {
        let Some(change) = self.device.key_change(clock::now()) else {
            return refused(Refusal::NoKeyChange, "no change of keys is going on");
        };
        match self.forget() {
            Ok(()) => {
                let late = change.late.len();
                info!(late, "change of keys was ended");
                Response::KeysForgotten { late }
            }
            Err(error) => refused(Refusal::NotPersisted, error.to_string()),
        }
    }

    /// Ends a change that is over.
    pub(super) fn end_key_change(&self) {
        if !self.device.has_older_keys() {
            return;
        }
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        // While one data plane takes over from another, either may still need them.
        if control.is_frozen() || !self.device.may_forget_keys(clock::now()) {
            return;
        }
        match self.forget() {
            Ok(()) => info!("change of keys is over"),
            Err(error) => warn!(%error, "old keys stay"),
        }
    }

    /// On disk first: a key that is wiped here must not come back with the next process.
    fn forget(&self) -> Result<(), KeyFileError> {
        key_file::forget_older(&self.options.state_dir, self.lanes.len())?;
        let mut out = PerLane::default();
        self.device.forget_keys(clock::now(), &mut out);
        self.transmit(&out);
        Ok(())
    }
}

fn going_on() -> Response {
    refused(
        Refusal::KeyChangeGoingOn,
        KeyChangeError::GoingOn.to_string(),
    )
}
