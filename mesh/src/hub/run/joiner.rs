//! Joins the cluster that made a token: asks its hub, and checks what that says.

use super::operator::ask_scribe;
use crate::enrol::message::{Answer, JoinRequest, Request};
use crate::hub::joining::{Affair, Met, Refusal};
use crate::hub::scribe::Order;
use crate::hub::tokens::seconds;
use crate::io::quic::{AskCheck, ask};
use crate::join::{Conflict, Grant, Offer, Terms};
use crate::token::{Purpose, Token};
use crate::trust::Pinned;
use bytes::Bytes;
use std::sync::mpsc;
use std::time::SystemTime;

/// Somebody's wish to join.
pub(super) struct Joiner {
    orders: mpsc::Sender<Order>,
    ours: Offer,
    grant: Grant,
    token: Token,
}

impl Joiner {
    /// Of ours, by the text of a token. The other cluster will be let do what the grant says.
    pub(super) fn new(
        orders: mpsc::Sender<Order>,
        ours: Offer,
        grant: Grant,
        text: &str,
    ) -> Result<Self, Refusal> {
        let token = Token::parse_for(Purpose::Cluster, text)?;
        token.check_time(SystemTime::now())?;
        if token.name != ours.name {
            return Err(Refusal::TokenName {
                wanted: token.name,
                here: ours.name,
            });
        }
        if token.clusterset != ours.clusterset {
            let conflict = Conflict::Clusterset {
                here: ours.name,
                other: token.cluster,
                ours: ours.clusterset,
                theirs: token.clusterset,
            };
            return Err(conflict.into());
        }
        Ok(Self {
            orders,
            ours,
            grant,
            token,
        })
    }

    /// What this cluster says of itself.
    pub(super) fn ours(&self) -> &Offer {
        &self.ours
    }

    /// What the other cluster may announce here.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What the other side offers. Nothing changes anywhere.
    pub(super) async fn look(&self) -> Result<Terms, Refusal> {
        let terms = self.ask(None).await?;
        ask_scribe(&self.orders, |reply| {
            Affair::Meet(Box::new(self.met(&terms)), reply)
        })
        .answer()
        .await?;
        Ok(terms)
    }

    /// Joins, if the other side still offers what was agreed to. Whatever ends this in the middle, the same again
    /// finishes it.
    pub(super) async fn join(&self, agreed: &str) -> Result<Terms, Refusal> {
        // Once more, so that what cannot be taken here uses up nothing there.
        let terms = self.look().await?;
        let digest = terms.digest();
        if hex(&digest) != agreed {
            return Err(Refusal::TermsChanged(terms.offer.name));
        }
        let terms = self.ask(Some(digest)).await?;
        ask_scribe(&self.orders, |reply| {
            Affair::Take(Box::new(self.met(&terms)), reply)
        })
        .answer()
        .await?;
        Ok(terms)
    }

    fn met(&self, terms: &Terms) -> Met {
        Met {
            ours: self.ours.clone(),
            terms: terms.clone(),
            grant: self.grant.clone(),
        }
    }

    async fn ask(&self, agreed: Option<[u8; 32]>) -> Result<Terms, Refusal> {
        let token = &self.token;
        let request = Request::Join(Box::new(JoinRequest {
            secret: token.secret.clone(),
            offer: self.ours.clone(),
            time: seconds(SystemTime::now()),
            agreed,
        }));
        let check = AskCheck::Pinned(Pinned {
            pin: token.pin,
            clusterset: token.clusterset.clone(),
            cluster: token.cluster.clone(),
        });
        let request = Bytes::copy_from_slice(&request.encode());
        let asked = ask(&token.hubs, check, request).await;
        let answered = asked.map_err(|error| Refusal::Unreached {
            name: error.name(),
            text: error.to_string(),
        })?;
        let terms = match Answer::decode(&answered.answer)? {
            Answer::Terms(terms) => *terms,
            Answer::Refused { name, text } => return Err(Refusal::Told { name, text }),
            Answer::Certificate { .. } => {
                return Err(Refusal::Message(
                    crate::enrol::message::MessageError::Unknown,
                ));
            }
        };
        self.check(&terms.offer)?;
        Ok(terms)
    }

    /// Whether this is the cluster whose hub made the token.
    fn check(&self, offer: &Offer) -> Result<(), Refusal> {
        let other = |field, wanted: &str, got: &str| Refusal::Inviter {
            field,
            wanted: wanted.to_owned(),
            got: got.to_owned(),
        };
        if offer.name != self.token.cluster {
            return Err(other("cluster.name", &self.token.cluster, &offer.name));
        }
        if !offer.pins().contains(&self.token.pin) {
            let pin = self.token.pin.to_string();
            return Err(other("ca", &pin, &offer.fingerprint()));
        }
        Ok(())
    }
}

/// As it goes to the operator and back.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a text takes all that is written to it");
    }
    text
}
