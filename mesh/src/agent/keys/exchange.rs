//! The thread's end: sessions that come and go, and what they lead to.

use super::{Held, Keyring, Proof, Report, Roster};
use crate::io::quic::{Arrival, Guest, HandshakeError, KeySession, Listener, Tls};
use crate::lot;
use crate::psk::{
    Agenda, Answer, Begin, ExporterFailed, Failure, Group, Keys, Refusal, Request, Side,
};
use crate::trust::{Expected, PeerId, Role};
use hawser_tunnel::node::NodeId;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A port that cannot be had is tried for again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// Why a session led to nothing, and a line for people.
type Failed = (Failure, String);

/// What it holds together.
#[derive(Debug)]
pub(super) struct Exchange {
    roster: watch::Receiver<Arc<Roster>>,
    proof: watch::Receiver<Proof>,
    tell: watch::Sender<Arc<Keyring>>,
    report: Arc<Report>,
    present: Arc<Roster>,
    /// Peers by what certificates say.
    by_id: BTreeMap<PeerId, NodeId>,
    agenda: Agenda,
    held: BTreeMap<NodeId, Held>,
    failures: BTreeMap<NodeId, String>,
    tls: Option<Arc<Tls>>,
    listener: Option<Listener>,
    /// When to try for the port.
    listen_at: Option<Instant>,
    sessions: JoinSet<(Begin, Result<Keys, Failed>)>,
}

impl Exchange {
    pub(super) fn new(
        roster: watch::Receiver<Arc<Roster>>,
        proof: watch::Receiver<Proof>,
        tell: watch::Sender<Arc<Keyring>>,
        report: Arc<Report>,
    ) -> Self {
        let present = Arc::clone(&roster.borrow());
        Self {
            agenda: Agenda::new(present.demand, lot::drawn()),
            roster,
            proof,
            tell,
            report,
            present,
            by_id: BTreeMap::new(),
            held: BTreeMap::new(),
            failures: BTreeMap::new(),
            tls: None,
            listener: None,
            listen_at: None,
            sessions: JoinSet::new(),
        }
    }

    /// Until the node has ended its side.
    pub(super) async fn serve(mut self) {
        self.handle_proof();
        loop {
            self.look_after();
            let due = self.poll_timeout();
            tokio::select! {
                biased;
                changed = self.roster.changed() => match changed {
                    Ok(()) => self.handle_roster(),
                    Err(_) => break,
                },
                Ok(()) = self.proof.changed() => self.handle_proof(),
                () = self.report.renewal() => self.agenda.renew(Instant::now()),
                Some(done) = self.sessions.join_next(), if !self.sessions.is_empty() => {
                    // One that panicked has said so; its peer comes to us after a while.
                    if let Ok((begin, result)) = done {
                        self.handle_session(&begin, result);
                    }
                }
                Some(arrival) = next(&mut self.listener) => self.handle_arrival(arrival),
                () = sleep_until(due) => {}
            }
        }
        if let Some(listener) = &mut self.listener {
            listener.close("agent_stops").await;
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let agenda = self.agenda.poll_timeout().filter(|_| self.tls.is_some());
        agenda.into_iter().chain(self.listen_at).min()
    }

    /// What is due.
    fn look_after(&mut self) {
        let now = Instant::now();
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen(now);
        }
        let Some(tls) = self.tls.clone() else { return };
        while let Some(begin) = self.agenda.poll_exchange(now, unix()) {
            let Some(id) = self.present.ids.get(&begin.peer).cloned() else {
                let unknown = Failure::Session;
                self.agenda.handle_failed(&begin, &unknown, now);
                continue;
            };
            let tls = Arc::clone(&tls);
            self.sessions.spawn(async move {
                let result = derive(&begin, id, &tls).await;
                (begin, result)
            });
        }
    }

    fn handle_roster(&mut self) {
        let now = Instant::now();
        let before = std::mem::replace(
            &mut self.present,
            Arc::clone(&self.roster.borrow_and_update()),
        );
        if before.authorities != self.present.authorities {
            self.set_trust();
        }
        if before.port != self.present.port {
            self.listener = None;
            self.listen_at = Some(now);
        }
        if before.demand != self.present.demand {
            self.agenda.set_demand(self.present.demand, now);
        }
        self.by_id.clear();
        for (&peer, id) in &self.present.ids {
            // Of two nodes with one name the first is meant, as everywhere.
            self.by_id.entry(id.clone()).or_insert(peer);
        }
        self.agenda.set_peers(self.present.partners.clone(), now);
        let partners = &self.present.partners;
        self.failures.retain(|peer, _| partners.contains_key(peer));
        self.publish();
    }

    /// The certificate is new, or the CA of the own cluster.
    fn handle_proof(&mut self) {
        let credentials = {
            let proof = self.proof.borrow_and_update();
            proof.as_ref().map(|(credentials, _)| credentials.clone())
        };
        let Some(credentials) = credentials else {
            return;
        };
        match &self.tls {
            Some(tls) => {
                tls.set_credentials(credentials);
                self.set_trust();
            }
            None => {
                let trust = crate::trust::Trust::new(credentials.clusterset());
                self.tls = Some(Tls::new(credentials, trust));
                self.set_trust();
                self.listen_at = Some(Instant::now());
            }
        }
    }

    /// Trusts the own cluster's CA as the link to the hub does, and those of the others as the hub tells them.
    fn set_trust(&mut self) {
        let own = self.proof.borrow().as_ref().map(|(_, own)| own.clone());
        let (Some(tls), Some(mut trust)) = (&self.tls, own) else {
            return;
        };
        let own = tls.credentials().id().cluster.clone();
        for (cluster, ca) in &self.present.authorities {
            if *cluster == own {
                continue;
            }
            if let Err(error) = trust.set(cluster, ca) {
                tracing::warn!(cluster, %error, "a cluster's CA is none; no keys with its nodes");
            }
        }
        tls.set_trust(trust);
    }

    fn listen(&mut self, now: Instant) {
        self.listen_at = None;
        let Some(tls) = &self.tls else { return };
        let port = self.present.port;
        let bind = |address| Listener::bind_for_keys(address, Arc::clone(tls));
        // A kernel without IPv6 has the other alone.
        let bound = bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
            .or_else(|_| bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
        match bound {
            Ok(listener) => {
                tracing::info!(port, "derives keys with other agents");
                self.listener = Some(listener);
            }
            Err(error) => {
                tracing::warn!(port, %error, "other agents cannot come for keys; tries again");
                self.listen_at = Some(now + RETRY);
            }
        }
        self.publish();
    }

    fn handle_arrival(&mut self, arrival: Arrival) {
        let guest = match arrival {
            Arrival::Guest(guest) => guest,
            // No listener for keys gives one.
            Arrival::Peer(connection) => return connection.tx.close("alpn_other"),
        };
        let now = Instant::now();
        let peer = guest.peer.as_ref().and_then(|id| self.by_id.get(id));
        let peer = peer.copied();
        match self.judge(peer, &guest) {
            Ok((peer, request, group, keys, confirmation)) => {
                let terms = &request.terms;
                self.agenda.handle_answered(peer, terms, group, now);
                self.take(peer, keys);
                let answer = Answer::Accepted { confirmation };
                tokio::spawn(guest.answer(answer.encode()));
            }
            Err(refusal) => {
                let answer = Answer::Refused {
                    name: refusal.name().to_owned(),
                    epoch: peer.map_or(0, |peer| self.agenda.epoch(peer)),
                };
                let who = guest
                    .peer
                    .as_ref()
                    .map_or_else(String::new, PeerId::to_string);
                guest.note_refusal(refusal.name(), &format!("{who}: {refusal}"));
                tokio::spawn(guest.answer(answer.encode()));
            }
        }
        self.publish();
    }

    /// What a request is answered with, if it is.
    fn judge(
        &self,
        peer: Option<NodeId>,
        guest: &Guest,
    ) -> Result<(NodeId, Request, Group, Keys, [u8; 32]), Refusal> {
        let peer = peer.ok_or(Refusal::PeerUnknown)?;
        let request = Request::decode(guest.request())?;
        // A session of which that was not noted is as good as the weakest.
        let group = guest.group.unwrap_or(Group::Classical);
        let terms = &request.terms;
        self.agenda.judge(peer, terms, group)?;
        let failed = |ExporterFailed| Refusal::ConfirmationOther;
        let shown = &request.confirmation;
        if !terms.confirms(guest, Side::Client, shown).map_err(failed)? {
            return Err(Refusal::ConfirmationOther);
        }
        let keys = terms.keys(guest).map_err(failed)?;
        let confirmation = terms.confirmation(guest, Side::Server).map_err(failed)?;
        Ok((peer, request, group, keys, confirmation))
    }

    fn handle_session(&mut self, begin: &Begin, result: Result<Keys, Failed>) {
        let now = Instant::now();
        match result {
            Ok(keys) => {
                if self.agenda.handle_done(begin, now) {
                    self.take(begin.peer, keys);
                }
            }
            Err((failure, text)) => {
                self.agenda.handle_failed(begin, &failure, now);
                let (peer, at, group) = (begin.peer, begin.at, begin.group);
                if passes_by_itself(&failure) {
                    tracing::debug!(%peer, %at, %group, reason = text, "no keys yet");
                } else if self.failures.get(&peer) != Some(&text) {
                    tracing::warn!(%peer, %at, %group, reason = text, "no keys");
                }
                self.failures.insert(begin.peer, text);
            }
        }
        self.publish();
    }

    /// Keys that count from now on.
    fn take(&mut self, peer: NodeId, keys: Keys) {
        let Some(taken) = self.agenda.taken(peer) else {
            return;
        };
        self.failures.remove(&peer);
        tracing::info!(%peer, epoch = taken.epoch, group = %taken.group, "keys derived");
        self.held.insert(peer, Held { keys, taken });
    }

    /// Hands over what is held, where it is something else than before, and shows how it stands.
    fn publish(&mut self) {
        let agenda = &self.agenda;
        self.held
            .retain(|&peer, held| agenda.taken(peer) == Some(held.taken));
        let listener = self.listener.as_ref();
        let address = listener.and_then(|listener| listener.local_address().ok());
        let keyring = Keyring {
            held: self.held.clone(),
            port: address.map(|address| address.port()),
        };
        self.tell.send_if_modified(|told| {
            let differs = **told != keyring;
            if differs {
                *told = Arc::new(keyring);
            }
            differs
        });
        let refusals = listener.map(Listener::refusals).unwrap_or_default();
        let partners = &self.present.partners;
        self.report.show(partners, agenda, &self.failures, refusals);
    }
}

/// Whether one side has only to hear what the other knows already, as after each change of WireGuard keys.
fn passes_by_itself(failure: &Failure) -> bool {
    let refusal = match failure {
        Failure::Refused { refusal, .. } => *refusal,
        Failure::Group | Failure::Session => None,
    };
    matches!(refusal, Some(Refusal::KeysOther | Refusal::EpochOld))
}

/// Derives keys from a session that we open.
async fn derive(begin: &Begin, id: PeerId, tls: &Tls) -> Result<Keys, Failed> {
    let expected = match id.role {
        Role::Node(name) => Expected::Node {
            cluster: id.cluster,
            name,
        },
        // No roster names one.
        Role::Hub(_) => return Err((Failure::Session, "role_other".to_owned())),
    };
    let session = KeySession::open(begin.at, tls, expected, begin.group).await;
    let session = session.map_err(|error| {
        if error != HandshakeError::NoneInCommon {
            return (Failure::Session, error.to_string());
        }
        let name = Refusal::GroupClassical.name();
        (
            Failure::Group,
            format!("{name}: the peer takes no {}", begin.group),
        )
    })?;
    let lost = |error: HandshakeError| (Failure::Session, error.to_string());
    let gone = |error: ExporterFailed| (Failure::Session, error.to_string());
    let refused = |refusal: Refusal| (Failure::Session, refusal.name().to_owned());
    let terms = begin.terms.clone();
    let request = Request {
        confirmation: terms.confirmation(&session, Side::Client).map_err(gone)?,
        terms,
    };
    let answer = session.ask(request.encode()).await.map_err(lost)?;
    let terms = &request.terms;
    match Answer::decode(&answer).map_err(refused)? {
        Answer::Refused { name, epoch } => {
            let refusal = Refusal::of_name(&name);
            Err((
                Failure::Refused { refusal, epoch },
                format!("refused by the peer: {name}"),
            ))
        }
        Answer::Accepted { confirmation } => {
            if !terms
                .confirms(&session, Side::Server, &confirmation)
                .map_err(gone)?
            {
                return Err(refused(Refusal::ConfirmationOther));
            }
            terms.keys(&session).map_err(gone)
        }
    }
}

async fn next(listener: &mut Option<Listener>) -> Option<Arrival> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Seconds since 1970.
fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
