//! What a hub decides, without any I/O: whom it dials, whom it serves, what it takes of whom.
//!
//! The owner calls, then takes actions ([`Core::poll_action`]) and messages ([`Core::poll_transmit`]) until there are none,
//! and comes back when [`Core::poll_timeout`] says. Frames and members come from who reads the source and the journal.

mod action;
mod gate;
mod membership;
mod refused;

pub use action::{Action, Unwelcome};
pub use refused::{MAX_SHOWN, RefusedByOthers};

use super::bump::{self, Bump, Claim, Judgement, Witness};
use super::grants::{self, Grants, Issuers};
use super::journal::{Frame, Live};
use super::manifest::{ClusterPeer, QuotaLimits};
use super::protected::Protected;
use crate::kept::KeptOrigin;
use crate::record::{Cluster, Key, Kind, LaneRecord, Record, Version};
use crate::replica::{
    Audience, Event, Filter, Gate as _, Limits, Replica, SessionId, Stats, Store, Stream, Transmit,
    Wanted,
};
use crate::revocation::Epoch;
use crate::trust::{PeerId, Role};
use crate::wire::decode_record;
use bytes::Bytes;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The most sessions of one peer: the one that it has, the one that takes its place, and one that is not known to be
/// dead yet. A greater number closes the oldest.
const MAX_SESSIONS_OF_PEER: usize = 3;

/// A session, as for a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who is there.
    pub peer: PeerId,
    /// Whether we subscribe there; else it subscribes here.
    pub feeds_us: bool,
    witness: Option<Witness>,
}

#[derive(Debug)]
struct Member {
    name: String,
    peer: Arc<ClusterPeer>,
}

/// A hub.
#[derive(Debug)]
pub struct Core {
    own: Cluster,
    quotas: QuotaLimits,
    replica: Replica,
    grants: Grants,
    issuers: Issuers,
    members: BTreeMap<ClusterId, Member>,
    /// Indices of the own cluster's nodes.
    nodes: BTreeMap<String, NodeIndex>,
    node_names: BTreeMap<Key, String>,
    /// Where they are reached, by record.
    underlay: BTreeMap<Key, BTreeSet<IpAddr>>,
    protected: Protected,
    /// Whether what is our own changed since the gate was made.
    own_changed: bool,
    refused_by_others: RefusedByOthers,
    sessions: BTreeMap<SessionId, Session>,
    writes: bool,
    bump: Bump,
    /// Keys of other clusters that changed since the last `Reached`.
    changed: BTreeMap<ClusterId, BTreeMap<Key, bool>>,
    actions: VecDeque<Action>,
}

impl Core {
    /// The hub of a cluster of this clusterset, with quotas for all others. It has no members yet, and no state.
    pub fn new(own: Cluster, clusterset: String, quotas: QuotaLimits) -> Self {
        let gate = Grants::default();
        let limits = Limits {
            quota: grants::quota(quotas, QuotaLimits::default()),
            ..Limits::default()
        };
        let mut replica = Replica::new(limits, Box::new(gate.clone()));
        replica.set_members(BTreeSet::new());
        Self {
            own,
            quotas,
            replica,
            grants: gate,
            issuers: Issuers::new(clusterset),
            members: BTreeMap::new(),
            nodes: BTreeMap::new(),
            node_names: BTreeMap::new(),
            underlay: BTreeMap::new(),
            protected: Protected::default(),
            own_changed: false,
            refused_by_others: RefusedByOthers::default(),
            sessions: BTreeMap::new(),
            writes: false,
            bump: Bump::default(),
            changed: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// What is imported from nobody, in place of the default. Call it once, before members are told.
    pub fn protect(&mut self, protected: Protected) {
        self.protected = protected;
    }

    /// Takes the own cluster's state as the journal has it. Call it once, before anybody is served.
    pub fn load_own(&mut self, live: &Live) {
        let records = live.records.iter();
        let records =
            records.map(|(key, (revision, value))| (*revision, key.clone(), value.clone()));
        self.replica.load(self.own.id, live.version, true, records);
        self.replica.own(self.own.id, live.version);
        for (key, (_, value)) in &live.records {
            self.note_node(key, Some(value));
        }
    }

    /// Takes another cluster's state as it was kept. Call it after the members were told, before anybody is served.
    pub fn load(&mut self, origin: ClusterId, kept: KeptOrigin) {
        if !self.members.contains_key(&origin) {
            self.actions.push_back(Action::Forget { origin });
            return;
        }
        let KeptOrigin {
            version,
            complete,
            mut records,
        } = kept;
        let before = records.len();
        // Its grant may be another one by now. Without what that shuts out the rest is compared.
        records.retain(|(_, key, value)| self.grants.admit(origin, key, value).is_ok());
        // Perhaps we died before what it says of whom to trust was kept for good.
        for (_, key, value) in &records {
            self.note_trust(origin, key, value);
        }
        let complete = complete && records.len() == before;
        self.replica.load(origin, version, complete, records);
    }

    /// Takes a frame of the own cluster, which is on the disk already.
    pub fn write(&mut self, frame: Frame) {
        let ours = self.version();
        if frame.version.incarnation > ours.incarnation {
            self.replica.bump_incarnation(frame.version.incarnation);
        }
        self.replica.write(frame.version.revision, frame.changes);
        self.drain_events(None);
    }

    /// Whether this replica of the hub is the one that writes.
    pub fn set_writer(&mut self, writes: bool) {
        self.writes = writes;
    }

    /// Takes what another replica of this hub heard ([`Action::Ahead`]). Counts as if it had been heard here, once: who
    /// says so is named, and must be a member or a node.
    pub fn heard(&mut self, claim: Claim, now: Instant) {
        let is_known = match claim.who {
            Witness::Hub(cluster) => self.members.contains_key(&cluster),
            Witness::Agent(node) => self.nodes.values().any(|known| *known == node),
        };
        if self.writes && is_known {
            // Who said what is implausible was cut off there.
            self.judge(claim, now);
        }
    }

    /// Takes the newest lists of revocations that are known, by their issuers. No older ones are taken from now on.
    pub fn raise_epochs(&self, epochs: BTreeMap<String, Epoch>) {
        for (issuer, epoch) in epochs {
            self.issuers.raise(&issuer, epoch);
        }
    }

    /// We have a connection to a hub of this cluster: subscribes there to what that cluster writes.
    pub fn dialed(&mut self, session: SessionId, cluster: ClusterId, peer: PeerId, now: Instant) {
        if self
            .members
            .get(&cluster)
            .is_none_or(|member| member.name != peer.cluster)
        {
            let reason = Unwelcome::ClusterUnknown.name();
            self.actions.push_back(Action::Close { session, reason });
            return;
        }
        let (feeds_us, witness) = (true, None);
        self.sessions.insert(
            session,
            Session {
                peer,
                feeds_us,
                witness,
            },
        );
        self.replica
            .subscribe(session, Wanted::One(cluster), Filter::public(), now);
    }

    /// Whether the cluster has a node of this name.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// Somebody dialed us, and proved who it is: serves what it may have.
    ///
    /// # Errors
    /// It may have nothing: close the connection with that name.
    pub fn accepted(&mut self, session: SessionId, peer: PeerId) -> Result<(), Unwelcome> {
        let own = peer.cluster == self.own.name;
        let (audience, witness) = match (&peer.role, own) {
            (Role::Node(name), true) => {
                let node = *self.nodes.get(name).ok_or(Unwelcome::NodeUnknown)?;
                (Audience::OwnAgent { node }, Witness::Agent(node))
            }
            (Role::Hub(_), false) => {
                let mut members = self.members.iter();
                let member = members.find(|(_, member)| member.name == peer.cluster);
                let (&cluster, _) = member.ok_or(Unwelcome::ClusterUnknown)?;
                (Audience::OtherHub { cluster }, Witness::Hub(cluster))
            }
            (Role::Node(_), false) | (Role::Hub(_), true) => return Err(Unwelcome::RoleUnserved),
        };
        let same = self.sessions.iter();
        let same = same.filter(|(_, session)| !session.feeds_us && session.peer == peer);
        let same: Vec<SessionId> = same.map(|(id, _)| *id).collect();
        if same.len() >= MAX_SESSIONS_OF_PEER {
            self.close(same[0], "too_many_sessions");
        }
        self.sessions.insert(
            session,
            Session {
                peer,
                feeds_us: false,
                witness: Some(witness),
            },
        );
        self.replica.publish(session, audience);
        Ok(())
    }

    /// The connection is gone.
    pub fn closed(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_some() {
            self.replica.close(session);
            self.drain_events(None);
        }
    }

    /// Takes a message.
    pub fn handle_message(
        &mut self,
        session: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Instant,
    ) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        let handled = self.replica.handle_message(session, stream, bytes, now);
        self.drain_events(Some(now));
        if let Err(reject) = handled {
            self.close(session, reject.name());
        }
    }

    /// Whether the transport takes more on a stream.
    pub fn set_writable(&mut self, session: SessionId, stream: Stream, writable: bool) {
        self.replica.set_writable(session, stream, writable);
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.look_at_own(now);
        self.replica.poll_transmit(now)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.replica.poll_timeout()
    }

    /// Looks after what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.replica.handle_timeout(now);
        self.drain_events(Some(now));
    }

    /// The own cluster.
    pub fn own(&self) -> &Cluster {
        &self.own
    }

    /// Of the own cluster's state.
    pub fn version(&self) -> Version {
        self.store(self.own.id)
            .map_or(Version::NONE, Store::version)
    }

    /// What is known of a cluster.
    pub fn store(&self, origin: ClusterId) -> Option<&Store> {
        self.replica.store(origin)
    }

    /// The clusters of which something is known.
    pub fn origins(&self) -> impl Iterator<Item = ClusterId> {
        self.replica.origins()
    }

    /// The other clusters.
    pub fn members(&self) -> impl Iterator<Item = ClusterId> {
        self.members.keys().copied()
    }

    /// The name of a cluster.
    pub fn name_of(&self, cluster: ClusterId) -> Option<&str> {
        if cluster == self.own.id {
            return Some(&self.own.name);
        }
        Some(&self.members.get(&cluster)?.name)
    }

    /// The sessions.
    pub fn sessions(&self) -> &BTreeMap<SessionId, Session> {
        &self.sessions
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        self.replica.stats()
    }

    /// Which of our records others refused.
    pub fn refused_by_others(&self) -> &RefusedByOthers {
        &self.refused_by_others
    }

    fn close(&mut self, session: SessionId, reason: &'static str) {
        self.closed(session);
        self.actions.push_back(Action::Close { session, reason });
    }

    /// Takes the replica's events. Without a time nobody can have claimed anything.
    fn drain_events(&mut self, now: Option<Instant>) {
        while let Some(event) = self.replica.poll_event() {
            match event {
                Event::InitApply { origin, key, value } | Event::Apply { origin, key, value } => {
                    self.note(origin, key, Some(&value));
                }
                Event::Delete { origin, key } => self.note(origin, key, None),
                Event::Reached {
                    origin,
                    version,
                    complete,
                } => self.reached(origin, version, complete),
                Event::Forgotten { origin } => {
                    self.changed.remove(&origin);
                    self.actions.push_back(Action::Forget { origin });
                }
                Event::Ahead { seen, session, .. } => self.ahead(session, seen, now),
                Event::Announced { session, lanes } => self.announced(session, lanes),
                Event::Refused {
                    session,
                    origin,
                    key,
                    reason,
                } => {
                    if origin == self.own.id {
                        self.refused(session, key, reason);
                    }
                }
                Event::Synced { origin, .. } => {
                    self.actions.push_back(Action::Synced { origin });
                }
                Event::Init { .. } | Event::InitDone { .. } => {}
            }
        }
    }

    fn note(&mut self, origin: ClusterId, key: Key, value: Option<&Bytes>) {
        if origin == self.own.id {
            // Whoever refused it judges it anew.
            self.refused_by_others.changed(&key);
            self.note_node(&key, value);
        } else {
            if let Some(value) = value {
                self.note_trust(origin, &key, value);
            }
            let changed = self.changed.entry(origin).or_default();
            changed.insert(key, value.is_some());
        }
    }

    /// What the gate let in of whom to trust. That it goes again means nothing: what it said, stands.
    fn note_trust(&mut self, origin: ClusterId, key: &Key, value: &Bytes) {
        if !matches!(key.kind(), Some(Kind::Revocations | Kind::Authorities)) {
            return;
        }
        match decode_record(key, value) {
            Ok(Record::Revocations(signed)) => {
                let list = signed.list();
                self.issuers.raise(&list.issuer, list.epoch);
                self.actions.push_back(Action::Revocations { signed });
            }
            Ok(Record::Authorities(said)) => {
                if let Some(name) = self.name_of(origin).map(str::to_owned) {
                    self.actions.push_back(Action::Authorities { name, said });
                }
            }
            // The gate lets nothing else in under these keys.
            Ok(_) | Err(_) => {}
        }
    }

    /// Remembers which node has which index.
    fn note_node(&mut self, key: &Key, value: Option<&Bytes>) {
        if key.kind() != Some(Kind::Node) {
            return;
        }
        if let Some(old) = self.node_names.remove(key) {
            self.nodes.remove(&old);
            let gone = value.is_none();
            let peer = PeerId::node(&self.own.name, &old);
            if gone {
                let sessions = self.sessions.iter();
                let of_node = sessions.filter(|(_, session)| session.peer == peer);
                let of_node: Vec<SessionId> = of_node.map(|(id, _)| *id).collect();
                for session in of_node {
                    self.close(session, Unwelcome::NodeUnknown.name());
                }
            }
        }
        let before = self.underlay.remove(key);
        if let Some(value) = value
            && let Ok(Record::Node(node)) = decode_record(key, value)
        {
            let endpoints = node.lanes.iter().filter_map(|lane| lane.peer_endpoint);
            let addresses = endpoints.map(|endpoint| endpoint.ip()).collect();
            self.underlay.insert(key.clone(), addresses);
            self.nodes.insert(node.name.clone(), node.index);
            self.node_names.insert(key.clone(), node.name);
        }
        self.note_underlay(before.as_ref(), key);
    }

    /// A subscriber refused a record of ours. What it says of records that we do not have is not listened to.
    fn refused(&mut self, session: SessionId, key: Key, reason: String) {
        let Some(by) = self.sessions.get(&session).map(|session| &session.peer) else {
            return;
        };
        let exists = self
            .store(self.own.id)
            .is_some_and(|own| own.get(&key).is_some());
        if exists {
            let loud = self.refused_by_others.told(by, &key, &reason);
            let by = by.clone();
            self.actions.push_back(Action::Refused {
                by,
                key,
                reason,
                loud,
            });
        }
    }

    fn reached(&mut self, origin: ClusterId, version: Version, complete: bool) {
        if origin == self.own.id {
            return;
        }
        let changed = self.changed.remove(&origin).unwrap_or_default();
        let store = self.replica.store(origin);
        let newest = |(key, there): (Key, bool)| {
            let prefix = there.then(|| key.as_prefix());
            let found = prefix.and_then(|prefix| store?.under(&prefix).next());
            let found = found.filter(|(_, other, _)| *other == key);
            let record = found.map(|(revision, _, value)| (revision, value));
            (key, record)
        };
        let changes = changed.into_iter().map(newest).collect();
        self.actions.push_back(Action::Keep {
            origin,
            version,
            complete,
            changes,
        });
    }

    fn ahead(&mut self, session: SessionId, seen: Version, now: Option<Instant>) {
        let witness = self
            .sessions
            .get(&session)
            .and_then(|session| session.witness);
        let (Some(who), Some(now)) = (witness, now) else {
            return;
        };
        let (claim, ours) = (Claim { who, seen }, self.version());
        let implausible = if self.writes {
            self.judge(claim, now) == Judgement::Implausible
        } else {
            bump::is_implausible(seen, ours)
        };
        if implausible {
            self.close(session, "incarnation_implausible");
        } else if !self.writes {
            let claims = self.bump.pass_on(claim, ours, now);
            if !claims.is_empty() {
                self.actions.push_back(Action::Ahead { claims });
            }
        }
    }

    fn judge(&mut self, claim: Claim, now: Instant) -> Judgement {
        let (ours, nodes) = (self.version(), self.nodes.len());
        let judged = self.bump.hear(claim, ours, nodes, now);
        match judged {
            Judgement::Bump(to) => self.actions.push_back(Action::Bump { to }),
            Judgement::Wait | Judgement::Implausible => {}
        }
        judged
    }

    fn announced(&mut self, session: SessionId, lanes: Vec<LaneRecord>) {
        let peer = self.sessions.get(&session).map(|session| &session.peer);
        // The replica takes this from our own agents alone.
        if let Some(PeerId {
            role: Role::Node(node),
            ..
        }) = peer
        {
            let node = node.clone();
            self.actions.push_back(Action::Announced { node, lanes });
        }
    }
}

#[cfg(test)]
mod tests;
