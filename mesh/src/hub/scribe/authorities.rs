//! CAs that change: this cluster's own, and those of members, which say themselves what becomes of them.

use super::{Report, Scribe};
use crate::hub::joining::{Refusal, Rolled};
use crate::hub::manifest::ClusterPeer;
use crate::io::ca_store::{self, OwnCa, RollError, take};
use crate::token::pins;
use crate::trust::{Authorities, Followed};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Hubs' certificates live a day, those of nodes as configured: so long, and a while for clocks that are late, the old CA
/// is trusted beside the new one.
const TRUSTED: Duration = Duration::from_secs(86_400 + 3600);

impl Scribe {
    /// Removes what a replica left that died while it rolled the CA: an old key may be in it.
    pub(super) fn clear_ca(&self) -> std::io::Result<()> {
        if self.own_ca.is_none() {
            return Ok(());
        }
        let _lock = self.peers.lock()?;
        ca_store::sweep(&self.config.state_directory)
    }

    /// Looks whether the own CA is another by now, and whether the one before it is to go.
    pub(super) fn look_at_ca(&mut self) {
        let now = SystemTime::now();
        let old = self.own_ca.as_ref().and_then(|own| own.old.as_ref());
        if self.writing.is_some() && old.is_some_and(|old| old.until <= now) {
            // Another replica may roll it just now.
            let lock = self.peers.lock().map_err(RollError::from);
            let state = &self.config.state_directory;
            match lock.and_then(|_lock| ca_store::retire(state, Some(now))) {
                Ok(()) => tracing::info!("the old CA is trusted no longer: its time is over"),
                Err(RollError::NoneOld) => {}
                Err(error) => tracing::error!(%error, "the old CA cannot be taken away"),
            }
        }
        self.read_ca();
    }

    /// Takes the CA as the folder has it, if that is another by now.
    fn read_ca(&mut self) {
        let Some(own) = &self.own_ca else { return };
        let state = &self.config.state_directory;
        if !own.has_changed(state) {
            return;
        }
        match take(state, &self.config.clusterset, &self.config.cluster.name) {
            Ok(own) => self.take_ca(own),
            Err(error) => tracing::error!(%error, "the CA cannot be read; the one before stands"),
        }
    }

    fn take_ca(&mut self, own: OwnCa) {
        let own = Arc::new(own);
        self.own_ca = Some(Arc::clone(&own));
        // Before others hear of it: who comes then finds it.
        self.report(Report::Ca(own));
        self.sign_again();
        self.publish_authorities();
        self.report_source();
    }

    /// Lets the CA that signs by now sign what stands.
    pub(super) fn sign_again(&mut self) {
        let (Some(own), Some(_)) = (&self.own_ca, &self.writing) else {
            return;
        };
        let mut revoked = self.members.standing().own.clone();
        // Whoever broke the file is told of by who reads it.
        let signed = revoked.signed().ok().flatten();
        if signed.is_none_or(|signed| signed.is_by(&own.pem)) {
            return;
        }
        revoked.forget_signature();
        let (clusterset, cluster) = (&self.config.clusterset, &self.config.cluster.name);
        let signed = revoked
            .sign(clusterset, cluster, &own.ca)
            .map_err(Refusal::from);
        let kept = signed.and_then(|()| Ok(self.revoked.put_own(&revoked)?));
        if let Err(error) = kept {
            tracing::error!(%error, "the list of revocations is not signed by the new CA");
        }
        self.look_at_revoked();
    }

    /// Tells others of the own CAs, if this replica is the one that writes.
    pub(super) fn publish_authorities(&mut self) {
        let said = self.own_ca.as_ref().and_then(|own| own.authorities());
        let pem = self.own_ca.as_ref().filter(|_| said.is_some());
        let pem = pem.map(|own| own.bundle()).unwrap_or_default();
        if let Some(writing) = &mut self.writing {
            writing.writer.set_authorities(said, pem);
            writing.dirty = true;
        }
    }

    /// Makes the next CA.
    pub(super) fn roll(&mut self, now: SystemTime) -> Result<Rolled, Refusal> {
        let _lock = self.alone()?;
        self.check_own_ca()?;
        let (clusterset, cluster) = (&self.config.clusterset, &self.config.cluster.name);
        let trusted = TRUSTED.max(self.config.node_certificate + Duration::from_secs(3600));
        let own = ca_store::roll(
            &self.config.state_directory,
            clusterset,
            cluster,
            now,
            trusted,
        )?;
        let rolled = Rolled::of(&own);
        tracing::warn!(
            ca = rolled.ca,
            "the CA is rolled; the old one is trusted beside it"
        );
        self.take_ca(own);
        Ok(rolled)
    }

    /// Trusts the old CA no longer.
    pub(super) fn retire(&mut self) -> Result<Rolled, Refusal> {
        let _lock = self.alone()?;
        self.check_own_ca()?;
        ca_store::retire(&self.config.state_directory, None)?;
        tracing::warn!("the old CA is trusted no longer");
        self.read_ca();
        let own = self.own_ca.as_deref();
        own.map(Rolled::of).ok_or(Refusal::NotIssuing)
    }

    fn check_own_ca(&self) -> Result<(), Refusal> {
        self.own_ca.as_ref().map(drop).ok_or(Refusal::NotIssuing)
    }

    /// Looks at what became of the CAs of other clusters.
    pub(super) fn look_at_followed(&mut self) {
        match self.followed.look() {
            Ok(names) => {
                for name in &names {
                    self.set_member(name);
                }
                if !names.is_empty() {
                    self.report_source();
                }
            }
            Err(error) => {
                tracing::error!(%error, "CAs of other clusters cannot be read; those before stand")
            }
        }
    }

    /// A member as it counts: with the CAs that it has by now.
    pub(super) fn with_followed(&self, name: &str, peer: Arc<ClusterPeer>) -> Arc<ClusterPeer> {
        match self.followed.get(name).and_then(|it| it.of(&peer.ca)) {
            Some(ca) if ca != peer.ca => {
                let ca = ca.to_owned();
                Arc::new(ClusterPeer {
                    ca,
                    ..(*peer).clone()
                })
            }
            Some(_) | None => peer,
        }
    }

    /// A member's CAs, of which the gate believed one at least.
    pub(super) fn hear_authorities(&mut self, name: &str, said: &Authorities) {
        if let Err(refusal) = self.follow_authorities(name, said) {
            tracing::error!(cluster = name, error = %refusal, "its new CA cannot be kept; trying again");
            self.unkept_authorities
                .insert(name.to_owned(), said.clone());
        }
    }

    fn follow_authorities(&mut self, name: &str, said: &Authorities) -> Result<(), Refusal> {
        // What others heard counts first.
        let _lock = self.alone()?;
        self.look_at_followed();
        let member = self
            .members
            .accepted()
            .get(name)
            .map(|member| member.ca.clone());
        let (Some(before), Some(given)) = (member, self.given(name)) else {
            return Ok(());
        };
        let Some(ca) = said.vouched(&before).filter(|ca| *ca != before) else {
            return Ok(());
        };
        let followed = Followed {
            said: pins(&given.ca),
            ca,
        };
        self.followed.put(name, &followed)?;
        let cas: Vec<String> = pins(&followed.ca).iter().map(ToString::to_string).collect();
        tracing::warn!(
            cluster = name,
            ?cas,
            "its CA changed, as the one before it vouches"
        );
        self.look_at_followed();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
