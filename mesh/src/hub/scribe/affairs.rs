//! Settles what is asked about members: tokens, clusters that join and leave. One at a time over all replicas, so that
//! what was checked still holds when it is written.

use super::Scribe;
use crate::hub::joining::{
    Affair, Invitation, Invited, Listed, Met, Note, Refusal, Shown as Guest,
};
use crate::hub::manifest::ClusterPeer;
use crate::hub::tokens::{Kept, Shown, seconds};
use crate::io::lock::Lock;
use crate::join::{Conflict, Grant, Offer, OfferFault, Terms, conflict};
use crate::token::{MAX_HUBS, MAX_LIFE, Pin, Purpose, Secret, Token};
use std::sync::Arc;
use std::time::SystemTime;

impl Scribe {
    /// Settles one, and says what came of it. Who asked may be gone.
    pub(super) fn settle_affair(&mut self, affair: Affair) {
        let now = SystemTime::now();
        match affair {
            Affair::List(reply) => {
                let _ = reply.send(self.list());
            }
            Affair::Invite(invitation, reply) => {
                let _ = reply.send(self.invite(&invitation, now));
            }
            Affair::Guest(guest, reply) => {
                let _ = reply.send(self.guest(&guest, now));
            }
            Affair::Meet(met, reply) => {
                let _ = reply.send(self.meet(&met, now).map(drop));
            }
            Affair::Take(met, reply) => {
                let _ = reply.send(self.take(&met, now));
            }
            Affair::Leave(name, reply) => {
                let _ = reply.send(self.leave(&name));
            }
            Affair::Revoke(name, kind, reply) => {
                let _ = reply.send(self.revoke(&name, kind, now));
            }
            Affair::Readmit(name, kind, reply) => {
                let _ = reply.send(self.readmit(&name, kind, now));
            }
            Affair::RollCa(reply) => {
                let _ = reply.send(self.roll(now));
            }
            Affair::RetireCa(reply) => {
                let _ = reply.send(self.retire());
            }
        }
    }

    /// Looks at the folder of those that joined.
    pub(super) fn look_at_peers(&mut self) {
        let changed = match self.peers.look() {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%error, "members that joined cannot be read; what stood before, stands");
                return;
            }
        };
        for name in &changed {
            self.set_member(name);
        }
        if !changed.is_empty() {
            self.report_source();
        }
    }

    fn list(&self) -> Vec<Listed> {
        let refused = self.members.refused();
        let refused = refused.map(|(name, why)| (name.to_owned(), why.to_owned(), false));
        let revoked = self.members.revoked();
        let revoked = revoked.map(|(name, verdict)| (name.to_owned(), verdict.to_string(), true));
        let refused: Vec<(String, String, bool)> = refused.chain(revoked).collect();
        let listed = |name: &str, peer: &Arc<ClusterPeer>, refused| Listed {
            name: name.to_owned(),
            peer: Arc::clone(peer),
            declared: self.declares(name),
            refused,
            is_revoked: false,
        };
        let members = self.members.accepted().iter();
        let mut all: Vec<Listed> = members
            .map(|(name, peer)| listed(name, peer, None))
            .collect();
        all.extend(refused.into_iter().filter_map(|(name, why, is_revoked)| {
            let peer = self.members.wanted(&name)?;
            Some(Listed {
                is_revoked,
                ..listed(&name, peer, Some(why))
            })
        }));
        all
    }

    /// From here on no other replica changes anything, and what they did is known.
    pub(super) fn alone(&mut self) -> Result<Lock, Refusal> {
        let lock = self.peers.lock()?;
        self.look_at_peers();
        self.look_at_revoked();
        Ok(lock)
    }

    fn invite(&mut self, invitation: &Invitation, now: SystemTime) -> Result<Invited, Refusal> {
        let Invitation {
            ours,
            name,
            grant,
            life,
        } = invitation;
        crate::record::check_label(name).map_err(|rule| Refusal::name_is_none(name, rule))?;
        if *name == ours.name {
            return Err(Refusal::Itself(name.clone()));
        }
        self.look_at_revoked();
        self.check_revoked(name, "")?;
        if self.declares(name) {
            return Err(declared(&ours.name, name).into());
        }
        if life.is_zero() || *life > MAX_LIFE {
            return Err(Refusal::Life(life.as_secs()));
        }
        if ours.hubs.is_empty() {
            return Err(Refusal::NoHubs);
        }
        if ours.hubs.len() > MAX_HUBS {
            let rule = format!(
                "--hubs: {}: must be at most {MAX_HUBS}; name fewer",
                ours.hubs.len()
            );
            return Err(OfferFault(rule).into());
        }
        let pin =
            Pin::of_ca(&ours.ca).ok_or_else(|| OfferFault("ca: must be a CA in PEM".to_owned()))?;
        let secret = Secret::generate().map_err(std::io::Error::other)?;
        let expires = now + *life;
        let names = grant.namespaces.as_ref();
        let note = Note {
            hubs: ours.hubs.clone(),
            namespaces: names.map(|names| names.iter().cloned().collect()),
            quotas: grant.quotas,
            may_revoke: grant.may_revoke,
        };
        let kept = Kept {
            purpose: Purpose::Cluster,
            name: name.clone(),
            expires: seconds(expires),
            note: serde_json::to_string(&note).map_err(std::io::Error::other)?,
        };
        if let Err(error) = self.tokens.sweep(now) {
            tracing::warn!(%error, "old tokens cannot be removed");
        }
        self.tokens.add(&secret.hash(), &kept)?;
        let token = Token {
            purpose: Purpose::Cluster,
            clusterset: ours.clusterset.clone(),
            cluster: ours.name.clone(),
            name: name.clone(),
            hubs: ours.hubs.clone(),
            pin,
            secret,
            expires,
        };
        tracing::info!(cluster = %name, ttl_s = life.as_secs(), "cluster invited");
        let token = token.encode();
        Ok(Invited { token, expires })
    }

    /// A cluster shows a token: what it is offered. With what its operator agreed to, it becomes a member.
    fn guest(&mut self, guest: &Guest, now: SystemTime) -> Result<Terms, Refusal> {
        let _lock = self.alone()?;
        let Guest {
            ours,
            hash,
            offer,
            time,
            agreed,
        } = guest;
        let by = offer.fingerprint();
        let shown = Shown {
            purpose: Purpose::Cluster,
            name: &offer.name,
            by: &by,
        };
        // Who has no token learns nothing of us.
        let token = self.tokens.look(hash, shown, now)?;
        let note: Note = serde_json::from_str(&token.kept.note).map_err(std::io::Error::other)?;
        let grant = Grant::new(note.namespaces, note.quotas, note.may_revoke)?;
        let ours = Offer {
            hubs: note.hubs,
            ..ours.clone()
        };
        let text = self.check(&ours, offer, *time, &grant, now)?;
        let terms = Terms {
            offer: ours,
            grant,
            time: seconds(now),
        };
        let Some(agreed) = agreed else {
            return Ok(terms);
        };
        if *agreed != terms.digest() {
            return Err(Refusal::TermsChanged(terms.offer.name));
        }
        self.tokens.consume(hash, shown, now)?;
        // Should this fail, the same cluster can come again with the same token.
        self.peers.put(&offer.name, &text)?;
        self.look_at_peers();
        tracing::info!(cluster = %offer.name, id = %offer.id, ca = %by, "cluster joined");
        Ok(terms)
    }

    /// Whether the cluster that invited ours may be a member. Returns the text of its file.
    fn meet(&mut self, met: &Met, now: SystemTime) -> Result<String, Refusal> {
        self.look_at_peers();
        let Terms { offer, time, .. } = &met.terms;
        self.check(&met.ours, offer, *time, &met.grant, now)
    }

    fn take(&mut self, met: &Met, now: SystemTime) -> Result<(), Refusal> {
        let _lock = self.alone()?;
        let text = self.meet(met, now)?;
        let Offer { name, id, .. } = &met.terms.offer;
        self.peers.put(name, &text)?;
        self.look_at_peers();
        tracing::info!(cluster = %name, %id, "joined cluster");
        Ok(())
    }

    fn check(
        &self,
        ours: &Offer,
        other: &Offer,
        time: u64,
        grant: &Grant,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        if self.declares(&other.name) {
            return Err(declared(&ours.name, &other.name).into());
        }
        self.check_revoked(&other.name, &other.ca)?;
        conflict::check(ours, seconds(now), self.members.accepted(), other, time)?;
        let peer = other.peer(grant);
        Ok(self.peers.check(&other.name, &peer).map_err(OfferFault)?)
    }

    pub(super) fn check_revoked(&self, name: &str, ca: &str) -> Result<(), Refusal> {
        match self.members.judge(name, ca) {
            None => Ok(()),
            Some(verdict) => Err(Refusal::Revoked {
                name: name.to_owned(),
                verdict: Box::new(verdict),
            }),
        }
    }

    fn leave(&mut self, name: &str) -> Result<(), Refusal> {
        let _lock = self.alone()?;
        if self.peers.get(name).is_none() {
            let name = name.to_owned();
            return Err(if self.declares(&name) {
                Refusal::Manifest(name)
            } else {
                Refusal::NotJoined(name)
            });
        }
        // Or who has one could come back with it.
        self.tokens.revoke(Purpose::Cluster, name)?;
        self.peers.remove(name)?;
        self.look_at_peers();
        self.followed.remove(name)?;
        self.look_at_followed();
        tracing::info!(cluster = %name, "cluster left");
        Ok(())
    }
}

fn declared(here: &str, other: &str) -> Conflict {
    Conflict::Declared {
        here: here.to_owned(),
        other: other.to_owned(),
    }
}

#[cfg(test)]
mod tests;
