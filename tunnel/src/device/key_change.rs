//! A newer WireGuard key takes the place of this node's own.
//!
//! From then on all pairs are made with the newer key, and each of them has one of the older beside it, by which a peer
//! is reached that has not learnt of the change: it may be hours late. The older key goes when every peer has shown that
//! it knows the newer, or when control says so.

use super::Device;
use crate::key::{OwnKeys, PrivateKey};
use crate::outgoing::ByLane;
use crate::own_key::Generations;
use crate::status::KeyChange;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long an old key is kept at least for peers that have no session by it: they may have been told nothing because
/// they were off, or have had no reason to speak. For those that have one it is kept without a limit.
pub const OLD_KEY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why keys are not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyChangeError {
    /// There would be three keys.
    #[error("a change of keys is still going on")]
    GoingOn,
    /// Not one key for each lane.
    #[error("a change needs one key for each lane")]
    Count,
}

impl Device {
    /// Takes keys as they were found on disk, in the place of those that the device was made with; before the first
    /// [`Self::apply`].
    pub fn take_keys(&self, keys: Vec<OwnKeys>) {
        for (own, keys) in self.own.iter().zip(keys) {
            own.set_keys(Generations::new(keys));
        }
    }

    /// Begins a change to these keys, one for each lane. Handshakes that start are left in `out`.
    ///
    /// # Errors
    /// When the change before is still going on.
    pub fn change_keys(
        &self,
        keys: Vec<PrivateKey>,
        now: Instant,
        out: &mut impl ByLane,
    ) -> Result<(), KeyChangeError> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_older_keys() {
            return Err(KeyChangeError::GoingOn);
        }
        if keys.len() != self.own.len() {
            return Err(KeyChangeError::Count);
        }
        for (own, newest) in self.own.iter().zip(keys) {
            let mut next = Generations::new(newest.into());
            next.older = Some(Arc::clone(&own.keys().newest));
            own.set_keys(next);
        }
        control.changing = Some(now);
        if let Some(table) = self.table() {
            self.renew(control, Arc::clone(&table.state), true, now, out);
        }
        Ok(())
    }

    /// Whether a change is going on.
    pub fn has_older_keys(&self) -> bool {
        self.own.iter().any(|own| own.keys().older.is_some())
    }

    /// How a change that is going on stands.
    pub fn key_change(&self, now: Instant) -> Option<KeyChange> {
        let older = self.own.iter().filter_map(|own| own.keys().older.clone());
        let old_public_keys: Vec<_> = older.map(|key| key.public.to_string()).collect();
        if old_public_keys.is_empty() {
            return None;
        }
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let since = control.changing.unwrap_or(now);
        drop(control);
        let age = now.saturating_duration_since(since);
        let mut change = KeyChange {
            old_public_keys,
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            late: Vec::new(),
            in_use: Vec::new(),
        };
        let table = self.table();
        for peer in table.iter().flat_map(|table| table.peers()) {
            let mut is_late = false;
            let mut is_in_use = false;
            let old = peer.older.iter().filter(|lane| self.is_of_older_key(lane));
            for lane in old.filter(|lane| !lane.is_closed()) {
                is_late |= !lane.is_ending();
                is_in_use |= lane.in_use(now).is_some();
            }
            change.late.extend(is_late.then_some(peer.id));
            change.in_use.extend(is_in_use.then_some(peer.id));
        }
        Some(change)
    }

    /// Whether the old keys are of no use any more: every peer uses the newer ones, or those that do not have not been
    /// heard for [`OLD_KEY`].
    pub fn may_forget_keys(&self, now: Instant) -> bool {
        // Without a state nobody knows who the peers are.
        self.table().is_some()
            && self.key_change(now).is_some_and(|change| {
                let is_old = Duration::from_millis(change.age_ms) >= OLD_KEY;
                change.in_use.is_empty() && (change.late.is_empty() || is_old)
            })
    }

    /// Ends a change: the old keys are wiped, and whoever knows no newer ones is not reached any more. What waits for
    /// such a peer waits for the newer key.
    pub fn forget_keys(&self, now: Instant, out: &mut impl ByLane) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        for own in &self.own {
            let mut keys = Generations::clone(&own.keys());
            keys.older = None;
            own.set_keys(keys);
        }
        control.changing = None;
        if let Some(table) = self.table() {
            self.renew(control, Arc::clone(&table.state), true, now, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Datagrams;
    use crate::state::tests::small_state;
    use std::sync::Weak;

    #[test]
    fn nobody_holds_an_old_key_that_was_forgotten() {
        let now = crate::io::clock::now();
        let keys = |number: u8| vec![PrivateKey::from_random([number; 32])];
        let device = Device::with_lanes(keys(100), [1; 32]);
        let mut out = Datagrams::default();
        device.apply(small_state().check().unwrap(), now, &mut out);
        let old: Vec<Weak<_>> = device
            .own
            .iter()
            .map(|own| Arc::downgrade(&own.keys().newest))
            .collect();
        device.change_keys(keys(101), now, &mut out).unwrap();
        let later = now + Duration::from_secs(1);
        device.handle_timeout(later, &mut out);
        // A table of another state has them too.
        let mut fewer = small_state();
        fewer.peers.pop_first();
        device.apply(fewer.check().unwrap(), later, &mut out);
        assert!(old.iter().all(|key| key.upgrade().is_some()));
        assert_eq!(device.key_change(later).unwrap().late.len(), 1);
        device.forget_keys(later, &mut out);
        assert!(old.iter().all(|key| key.upgrade().is_none()));
    }
}
