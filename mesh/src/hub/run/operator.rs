//! Answers who asks on the hub's socket. What takes a disk or another hub is answered when it is known.

use super::Hub;
use super::joiner::{Joiner, hex};
use crate::chain::one_line;
use crate::enrol::message::{self as enrol, Answer, JoinRequest};
use crate::hub::admin::{Answering, Question, Request, TokenText, Wishes};
use crate::hub::joining::{Affair, Invitation, Invited, Refusal, Reply, Rolled, Shown};
use crate::hub::scribe::Order;
use crate::hub::status::{clusters, standings, status};
use crate::hub::tokens::seconds;
use crate::io::quic::Guest;
use crate::join::table::Side;
use crate::join::{Grant, Offer, Terms};
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

impl Hub {
    pub(super) fn answer(&self, question: Question) {
        let Question { request, reply } = question;
        match request {
            Request::Status { digest } => reply.line(self.status(digest)),
            Request::Clusters {} => self.clusters(reply),
            Request::Invite { name, terms, ttl } => {
                self.invite(reply, name, terms, ttl);
            }
            Request::Look { token, terms } => {
                let joiner = self.joiner(&token, terms);
                answer_with(reply, async move {
                    let joiner = joiner?;
                    let terms = joiner.look().await?;
                    Ok(json!({ "looked": both(&joiner, &terms) }))
                });
            }
            Request::Join {
                token,
                terms,
                agreed,
            } => {
                let joiner = self.joiner(&token, terms);
                answer_with(reply, async move {
                    let joiner = joiner?;
                    let terms = joiner.join(&agreed).await?;
                    Ok(json!({ "joined": both(&joiner, &terms) }))
                });
            }
            Request::Leave { name } => {
                let left = json!({ "left": { "name": name } });
                let asked = ask_scribe(&self.orders, |reply| Affair::Leave(name, reply));
                answer_with(reply, async move { asked.answer().await.map(|()| left) });
            }
            Request::Revoke { name, kind } => {
                let asked = ask_scribe(&self.orders, |reply| Affair::Revoke(name, kind, reply));
                answer_with(reply, async move {
                    asked.answer().await.map(|cut| json!({ "revoked": cut }))
                });
            }
            Request::Readmit { name, kind } => {
                let asked = ask_scribe(&self.orders, |reply| Affair::Readmit(name, kind, reply));
                answer_with(reply, async move {
                    asked.answer().await.map(|cut| json!({ "readmitted": cut }))
                });
            }
            Request::RollCa {} => {
                let asked = ask_scribe(&self.orders, Affair::RollCa);
                answer_with(reply, async move {
                    asked.answer().await.map(|it| json!({ "rolled": it }))
                });
            }
            Request::RetireCa {} => {
                let asked = ask_scribe(&self.orders, Affair::RetireCa);
                answer_with(reply, async move {
                    asked.answer().await.map(|it| json!({ "retired": it }))
                });
            }
        }
    }

    fn status(&self, digest: bool) -> String {
        let role = if self.writes { "writer" } else { "follower" };
        status(
            &self.core,
            digest,
            role,
            self.certificates.own_ca().as_deref().map(Rolled::of),
            &self.source,
            &self.connections,
            &self.listener.refusals(),
        )
    }

    fn clusters(&self, reply: Answering) {
        let standings = standings(&self.core, &self.connections, Instant::now());
        let (listed, list) = oneshot::channel();
        self.order(Order::Affair(Affair::List(listed)));
        tokio::spawn(async move {
            match list.await {
                Ok(listed) => reply.answer(&clusters(&listed, &standings)),
                Err(_) => refuse(reply, &Refusal::Ending),
            }
        });
    }

    fn invite(&self, reply: Answering, name: String, wishes: Wishes, ttl: u64) {
        let begun = self.own_offer(&wishes).and_then(|ours| {
            let invitation = Invitation {
                ours,
                name,
                grant: Grant::new(wishes.namespaces, wishes.quotas, wishes.may_revoke)?,
                life: Duration::from_secs(ttl),
            };
            Ok(ask_scribe(&self.orders, |reply| {
                Affair::Invite(Box::new(invitation), reply)
            }))
        });
        tokio::spawn(async move {
            let invited = match begun {
                Ok(begun) => begun.answer().await,
                Err(refusal) => Err(refusal),
            };
            match invited {
                Ok(Invited { token, expires }) => reply.token(&token, seconds(expires)),
                Err(refusal) => refuse(reply, &refusal),
            }
        });
    }

    fn joiner(&self, token: &TokenText, wishes: Wishes) -> Result<Joiner, Refusal> {
        let ours = self.own_offer(&wishes)?;
        let grant = Grant::new(wishes.namespaces, wishes.quotas, wishes.may_revoke)?;
        Joiner::new(self.orders.clone(), ours, grant, &token.0)
    }

    /// Takes what a guest asks: a cluster joins, all else is for the desk of nodes.
    pub(super) fn receive(&self, guest: Guest) {
        match enrol::Request::decode(guest.request()) {
            Ok(enrol::Request::Join(request)) => self.take_in(guest, *request),
            Ok(enrol::Request::Node(_) | enrol::Request::Renew { .. }) | Err(_) => {
                let is_member = self.is_member(guest.peer.as_ref());
                self.enrolment.serve(guest, is_member);
            }
        }
    }

    /// Answers a cluster that shows a token.
    fn take_in(&self, guest: Guest, request: JoinRequest) {
        let shown = self.offer().map(|ours| Shown {
            ours,
            hash: request.secret.hash(),
            offer: request.offer,
            time: request.time,
            agreed: request.agreed,
        });
        let terms = shown
            .map(|shown| ask_scribe(&self.orders, |reply| Affair::Guest(Box::new(shown), reply)));
        tokio::spawn(async move {
            let terms = match terms {
                Ok(terms) => terms.answer().await,
                Err(refusal) => Err(refusal),
            };
            match terms {
                Ok(terms) => guest.answer(Answer::Terms(Box::new(terms)).encode()).await,
                Err(refusal) => {
                    if refusal.is_our_fault() {
                        tracing::error!(error = one_line(&refusal), "a cluster cannot join");
                    }
                    let (name, text) = refusal.for_guest();
                    guest.refuse(name, text).await;
                }
            }
        });
    }

    /// What this cluster says of itself, by its configuration.
    fn offer(&self) -> Result<Offer, Refusal> {
        Ok(Offer::of_hub(&self.config, self.own_ca()?))
    }

    /// The same, with the hubs that an operator wants to be told; there is one at least.
    fn own_offer(&self, wishes: &Wishes) -> Result<Offer, Refusal> {
        let mut ours = self.offer()?;
        if !wishes.hubs.is_empty() {
            ours.hubs.clone_from(&wishes.hubs);
        }
        for hub in &ours.hubs {
            check_hub(hub)?;
        }
        if ours.hubs.is_empty() {
            return Err(Refusal::NoHubs);
        }
        Ok(ours)
    }
}

/// Answers when the work is done.
fn answer_with(
    reply: Answering,
    work: impl Future<Output = Result<Value, Refusal>> + Send + 'static,
) {
    tokio::spawn(async move {
        match work.await {
            Ok(value) => reply.answer(&value),
            Err(refusal) => refuse(reply, &refusal),
        }
    });
}

fn both(joiner: &Joiner, terms: &Terms) -> Value {
    json!({
        "clusterset": terms.offer.clusterset,
        "ours": Side::new(joiner.ours(), &terms.grant),
        "theirs": Side::new(&terms.offer, joiner.grant()),
        "agreed": hex(&terms.digest()),
    })
}

fn check_hub(hub: &str) -> Result<(), Refusal> {
    let parsed = hub.parse::<crate::dial::Target>();
    parsed.map(drop).map_err(|rule| {
        let shown = hub.escape_default();
        crate::join::OfferFault(format!("--hubs: {shown}: {rule}; correct it")).into()
    })
}

fn refuse(reply: Answering, refusal: &Refusal) {
    reply.refuse(refusal.reason(), &one_line(refusal));
}

/// Asks the scribe about a member.
pub(super) fn ask_scribe<T>(
    orders: &mpsc::Sender<Order>,
    affair: impl FnOnce(Reply<T>) -> Affair,
) -> Asked<T> {
    let (reply, answer) = oneshot::channel();
    // When the scribe ended, nobody answers.
    let _ = orders.send(Order::Affair(affair(reply)));
    Asked(answer)
}

/// What the scribe was asked.
pub(super) struct Asked<T>(oneshot::Receiver<Result<T, Refusal>>);

impl<T> Asked<T> {
    /// What it says.
    pub(super) async fn answer(self) -> Result<T, Refusal> {
        self.0.await.unwrap_or(Err(Refusal::Ending))
    }
}
