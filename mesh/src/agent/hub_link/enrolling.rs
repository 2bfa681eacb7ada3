//! A task that gets the node's certificate by its token, and keeps it good.

use crate::ca::csr::{CsrError, request_of};
use crate::chain::one_line;
use crate::config::{HubConfig, HubFault, NodeConfig};
use crate::enrol::certified::{Certified, CertifiedError};
use crate::enrol::message::{Answer, MessageError, NodeRequest, Request};
use crate::enrol::renewal::{Need, Renewal};
use crate::io::node_files::{NodeFileFault, NodeFiles};
use crate::io::quic::{AskCheck, AskError, Tls, ask};
use crate::trust::{PeerId, Pinned};
use bytes::Bytes;
use futures::FutureExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

/// The clock of the wall is looked at so often: it may be set.
const LOOK: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug)]
pub(super) enum News {
    /// A certificate to use from now on.
    Certified(Box<Certified>),
    /// None, and why.
    Failed(String),
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error(transparent)]
    Token(#[from] Box<HubFault>),
    #[error(transparent)]
    Files(#[from] NodeFileFault),
    #[error("the node's key {0}")]
    Key(#[from] CsrError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("refused by the hub ({name}): {text}")]
    Refused { name: String, text: String },
    #[error("the hub's answer cannot be read ({0})")]
    Answer(#[from] MessageError),
    #[error("the hub's answer is no certificate of this node: {0}")]
    Certified(#[from] CertifiedError),
}

/// Its handle; it ends with it.
#[derive(Debug)]
pub(super) struct Enrolling {
    news: mpsc::Receiver<News>,
    /// What the hub says of the cluster's CAs, in PEM; empty: nothing yet.
    cas: watch::Sender<String>,
    /// That hubs do not know who has signed our certificate.
    refused: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Enrolling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Enrolling {
    /// Begins with what is stored. `None` where the file names certificates that others renew.
    pub(super) fn start(
        config: &NodeConfig,
        hub: &HubConfig,
        stored: Option<Certified>,
    ) -> Option<Self> {
        let token = hub.identity.token()?;
        let validity = stored.as_ref().map(|stored| stored.validity);
        let (tell, news) = mpsc::channel(4);
        let (cas, told) = watch::channel(String::new());
        let refused = Arc::new(Notify::new());
        let keeper = Keeper {
            cluster: config.cluster.clone(),
            node: config.name.clone(),
            token: token.to_owned(),
            hubs: hub.addresses.iter().map(ToString::to_string).collect(),
            files: NodeFiles::of(&hub.state_directory),
            renewal: Renewal::new(validity, crate::lot::drawn()),
            present: stored,
        };
        let task = tokio::spawn(keeper.keep(tell, told, Arc::clone(&refused)));
        Some(Self {
            news,
            cas,
            refused,
            task: task.abort_handle(),
        })
    }

    /// Hubs do not know any more who has signed our certificate: another one is needed now.
    pub(super) fn tell_refused(&self) {
        self.refused.notify_one();
    }

    /// The hub says what the cluster's CAs are by now.
    pub(super) fn tell_cas(&self, pem: &str) {
        self.cas.send_if_modified(|known| {
            let is_news = known != pem;
            if is_news {
                pem.clone_into(known);
            }
            is_news
        });
    }

    /// What was stored by a process before. Broken files are told of and count as none: the token may help.
    pub(super) fn stored(config: &NodeConfig, hub: &HubConfig) -> Option<Certified> {
        let files = NodeFiles::of(&hub.state_directory);
        let expected = PeerId::node(&*config.cluster, &*config.name);
        let folder = files.folder().display();
        match files.stored() {
            Ok(None) => None,
            Ok(Some(it)) => match Certified::read(&it.chain, &it.key, &it.ca, &expected) {
                Ok(certified) => Some(certified),
                Err(error) => {
                    tracing::error!(%folder, %error, "what is stored is not used; enrols again");
                    None
                }
            },
            Err(error) => {
                tracing::error!(%error, "what is stored cannot be read; enrols again");
                None
            }
        }
    }
}

/// Waits for news; for ever, where nothing enrols.
pub(super) async fn next(enrolling: &mut Option<Enrolling>) -> News {
    if let Some(enrolling) = enrolling
        && let Some(news) = enrolling.news.recv().await
    {
        return news;
    }
    std::future::pending().await
}

struct Keeper {
    cluster: String,
    node: String,
    token: PathBuf,
    hubs: Vec<String>,
    files: NodeFiles,
    renewal: Renewal,
    present: Option<Certified>,
}

impl Keeper {
    async fn keep(
        mut self,
        tell: mpsc::Sender<News>,
        mut cas: watch::Receiver<String>,
        refused: Arc<Notify>,
    ) {
        loop {
            let now = SystemTime::now();
            let told = cas.has_changed().unwrap_or(false);
            let told = told.then(|| cas.borrow_and_update().clone());
            if let Some(news) = told.and_then(|told| self.take_cas(&told, now))
                && tell.send(news).await.is_err()
            {
                return;
            }
            let done = match (self.renewal.need(now), &self.present) {
                (Need::Nothing(until), _) => {
                    let wait = until.duration_since(now).unwrap_or_default();
                    tokio::select! {
                        () = tokio::time::sleep(wait.min(LOOK)) => {}
                        () = refused.notified() => self.renewal.handle_superseded(now),
                        // Who would tell has gone, and so will this task.
                        changed = cas.changed() => if changed.is_err() {
                            return;
                        } else {
                            cas.mark_changed();
                        },
                    }
                    continue;
                }
                (Need::Renew, Some(present)) => match self.renew(present).await {
                    // Its CA may have gone while this node was off. Then a token helps.
                    Err(error) => self.enrol().await.map_err(|_| error),
                    Ok(certified) => Ok(certified),
                },
                (Need::First | Need::Renew, _) => self.enrol().await,
            };
            let news = match done {
                Ok(certified) => {
                    // What was said of the one before does not count for this one.
                    let _ = refused.notified().now_or_never();
                    self.renewal.handle_done(certified.validity);
                    self.present = Some(certified.clone());
                    News::Certified(Box::new(certified))
                }
                Err(error) => {
                    self.renewal.handle_failed(SystemTime::now());
                    News::Failed(one_line(&error))
                }
            };
            if tell.send(news).await.is_err() {
                return;
            }
        }
    }

    /// Trusts the CAs that the hub tells, if one of them has signed the present certificate; one of the first of them is
    /// asked for soon.
    fn take_cas(&mut self, ca: &str, now: SystemTime) -> Option<News> {
        let present = self.present.as_ref()?;
        let taken = self
            .files
            .stored()
            .map_err(EnrolError::from)
            .and_then(|stored| {
                let Some(stored) = stored else {
                    return Ok(None);
                };
                let (next, is_current) = present.with_cas(&stored.chain, ca, now)?;
                if *stored.ca != *ca {
                    self.files.store(&stored.chain, ca)?;
                }
                Ok(Some((next, is_current)))
            });
        match taken {
            Ok(None) => None,
            Ok(Some((next, is_current))) => {
                self.present = Some(next.clone());
                if !is_current {
                    self.renewal.handle_superseded(now);
                }
                Some(News::Certified(Box::new(next)))
            }
            Err(error) => Some(News::Failed(one_line(&error))),
        }
    }

    /// By the token.
    async fn enrol(&self) -> Result<Certified, EnrolError> {
        let token = HubConfig::read_token(&self.token, &self.cluster, &self.node)?;
        let key = self.files.key()?;
        let request = Request::Node(NodeRequest {
            secret: token.secret.clone(),
            name: self.node.clone(),
            csr: request_of(&key)?,
        });
        let check = AskCheck::Pinned(Pinned {
            pin: token.pin,
            clusterset: token.clusterset.clone(),
            cluster: self.cluster.clone(),
        });
        let mut hubs = self.hubs.clone();
        for hub in &token.hubs {
            if !hubs.contains(hub) {
                hubs.push(hub.clone());
            }
        }
        self.ask(&hubs, check, &request, &key).await
    }

    /// By the present certificate.
    async fn renew(&self, present: &Certified) -> Result<Certified, EnrolError> {
        let key = self.files.key()?;
        let request = Request::Renew {
            csr: request_of(&key)?,
        };
        let tls = Tls::new(present.credentials.clone(), present.trust.clone());
        self.ask(&self.hubs, AskCheck::Known(tls), &request, &key)
            .await
    }

    async fn ask(
        &self,
        hubs: &[String],
        check: AskCheck,
        request: &Request,
        key: &str,
    ) -> Result<Certified, EnrolError> {
        let request = Bytes::copy_from_slice(&request.encode());
        let answered = ask(hubs, check, request).await?;
        let (chain, ca) = match Answer::decode(&answered.answer)? {
            Answer::Certificate { chain, ca } => (chain, ca),
            Answer::Refused { name, text } => return Err(EnrolError::Refused { name, text }),
            Answer::Terms(_) => return Err(MessageError::Unknown.into()),
        };
        let expected = PeerId::node(&*self.cluster, &*self.node);
        let certified = Certified::read(&chain, key, &ca, &expected)?;
        certified.verify(&chain, SystemTime::now())?;
        self.files.store(&chain, &ca)?;
        Ok(certified)
    }
}
