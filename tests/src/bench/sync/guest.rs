//! An agent that the bench plays itself: it follows a hub by the real protocol, and counts what it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use hawser_mesh::dial::Target;
use hawser_mesh::io::pem_file;
use hawser_mesh::io::quic::{Dialer, Tls};
use hawser_mesh::io::resolve::Resolver;
use hawser_mesh::record::{Kind, Prefix, Version};
use hawser_mesh::replica::{AdmitAll, Filter, Limits, Replica, SessionId, Wanted};
use hawser_mesh::trust::{Expected, Trust};
use hawser_mesh::wire::{Body, Message};
use hawser_tunnel::node::ClusterId;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::far::Written;
use super::site::LOST;
use super::speaker::Speaker;
use crate::io::Netns;

/// How often is looked whether there is still a hub to wait for.
const LOOK: Duration = Duration::from_millis(200);

/// One that can follow one hub.
#[derive(Debug)]
pub(super) struct Guest {
    netns: Netns,
    hub: SocketAddr,
    tls: Arc<Tls>,
}

impl Guest {
    /// For a hub of the cluster `east`, with the certificate in `directory`, of a node of it. `authority` is where its CA is.
    pub(super) fn new(
        netns: &Netns,
        hub: SocketAddr,
        directory: &Path,
        authority: &Path,
    ) -> Result<Self> {
        let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
        let credentials = pem_file::credentials(&certificate, &key, ("certificate", "key"))
            .map_err(|fault| anyhow!("{fault}"))?;
        let mut trust = Trust::new(credentials.clusterset());
        pem_file::trust_ca(&mut trust, "east", &authority.join("ca.crt"), "ca")
            .map_err(|fault| anyhow!("{fault}"))?;
        Ok(Self {
            netns: netns.clone(),
            hub,
            tls: Tls::new(credentials, trust),
        })
    }

    /// Waits until the hub has every origin in whole, at these versions or later ones. Asks for everything: who asks for
    /// less does not hear of versions in which nothing changed for it.
    pub(super) fn wait_complete(
        &self,
        wanted: &BTreeMap<ClusterId, Version>,
        patience: Duration,
        check: impl Fn() -> Result<()> + Send + Sync,
    ) -> Result<()> {
        self.run(|runtime| {
            runtime.block_on(async {
                let end = Instant::now() + patience;
                let follow = async {
                    let mut following = self.follow(Filter::public()).await?;
                    following.wait_complete(wanted).await
                };
                tokio::pin!(follow);
                loop {
                    tokio::select! {
                        done = &mut follow => return done,
                        () = tokio::time::sleep(LOOK) => check()?,
                    }
                    ensure!(
                        Instant::now() < end,
                        "waited {patience:?} for a hub that knows everything"
                    );
                }
            })
        })
    }

    /// Follows the hub as an agent whose policies select nobody elsewhere, does `work`, and returns how many bytes of
    /// messages the hub has sent from then until it told of the one change that `work` returns, which is not counted.
    /// `before` is what there was before.
    pub(super) fn bytes_until(
        &self,
        before: &BTreeMap<ClusterId, Version>,
        work: impl FnOnce() -> Result<Written> + Send,
    ) -> Result<u64> {
        self.run(|runtime| {
            let mut following = runtime.block_on(async {
                let mut following = self.follow(used()).await?;
                following.wait_complete(before).await?;
                anyhow::Ok(following)
            })?;
            let (tell, told) = oneshot::channel();
            thread::scope(|scope| {
                scope.spawn(|| tell.send(work()));
                runtime.block_on(async {
                    let count = following.count_until(before, told);
                    let count = tokio::time::timeout(LOST, count).await;
                    count.context("the hub did not tell of the last change")?
                })
            })
        })
    }

    /// Opens connections that ask for everything and are kept alive, and reads none of them: the first never, the others
    /// not after they have heard everything that there was `before`. Tells when that is so, and holds them until it is told
    /// to stop.
    pub(super) fn hold(
        &self,
        count: usize,
        before: &BTreeMap<ClusterId, Version>,
        tell: &mpsc::Sender<()>,
        stop: oneshot::Receiver<()>,
    ) -> Result<()> {
        self.run(|runtime| {
            runtime.block_on(async {
                let mut held = Vec::new();
                for number in 0..count {
                    let mut following = self.follow(Filter::public()).await?;
                    following.speaker.speak();
                    if number > 0 {
                        following.wait_complete(before).await?;
                    }
                    held.push(following);
                }
                tell.send(()).ok();
                stop.await.ok();
                for following in &held {
                    ensure!(
                        following.speaker.is_alive(),
                        "the hub gave up who did not read"
                    );
                }
                Ok(())
            })
        })
    }

    fn run<T: Send>(&self, work: impl FnOnce(&Runtime) -> Result<T> + Send) -> Result<T> {
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("failed to make a runtime")?;
            work(&runtime)
        })?
    }

    async fn follow(&self, filter: Filter) -> Result<Following> {
        let target: Target = self.hub.to_string().parse()?;
        let expected = Expected::HubOf("east".to_owned());
        let mut dialer = Dialer::new(
            vec![target],
            Arc::clone(&self.tls),
            expected,
            Resolver::system(),
            0,
        );
        let connection = dialer.connect().await;
        let mut speaker = Speaker::new(Replica::new(Limits::default(), Box::new(AdmitAll)));
        let session = speaker.open(connection);
        let now = Instant::now();
        speaker.replica.subscribe(session, Wanted::All, filter, now);
        Ok(Following { speaker, session })
    }
}

/// A session at a hub.
struct Following {
    speaker: Speaker,
    session: SessionId,
}

impl Following {
    /// Waits for the next message.
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            self.speaker.speak();
            while self.speaker.replica.poll_event().is_some() {}
            ensure!(self.speaker.is_open(self.session), "the hub has gone");
            if let Some((_, bytes)) = self.speaker.hear().await {
                return Ok(bytes);
            }
        }
    }

    async fn wait_complete(&mut self, wanted: &BTreeMap<ClusterId, Version>) -> Result<()> {
        let has = |replica: &Replica| {
            wanted.iter().all(|(origin, version)| {
                let store = replica.store(*origin);
                store.is_some_and(|store| store.is_complete() && store.version() >= *version)
            })
        };
        while !has(&self.speaker.replica) {
            self.next().await?;
        }
        self.speaker.speak();
        Ok(())
    }

    async fn count_until(
        &mut self,
        before: &BTreeMap<ClusterId, Version>,
        mut told: oneshot::Receiver<Result<Written>>,
    ) -> Result<u64> {
        // What is heard before the work is done cannot be of its last change.
        let (mut count, mut last) = (0, None);
        loop {
            tokio::select! {
                biased;
                written = &mut told, if last.is_none() => {
                    last = Some(written.context("the work was not done")??);
                }
                bytes = self.next() => {
                    let bytes = bytes?;
                    let Some(body) = Message::parse(bytes.clone())?.body else {
                        bail!("a message says nothing");
                    };
                    let length = u64::try_from(bytes.len())?;
                    match told_of(&body, before, last.as_ref()) {
                        Told::Before => (),
                        Told::Last => return Ok(count),
                        Told::LastAndMore => return Ok(count + length),
                        Told::Else => count += length,
                    }
                }
            }
        }
    }
}

/// What a message is about.
enum Told {
    /// What there was before the work.
    Before,
    /// The last change of the work.
    Last,
    /// That, and something else.
    LastAndMore,
    /// Something else.
    Else,
}

fn told_of(body: &Body, before: &BTreeMap<ClusterId, Version>, last: Option<&Written>) -> Told {
    if let Body::Summary(summary) = body {
        let version = Version::new(summary.incarnation, summary.revision);
        let known = before
            .iter()
            .find(|(id, _)| u32::from(u16::from(**id)) == summary.origin);
        if known.is_some_and(|(_, known)| version <= *known) {
            return Told::Before;
        }
    }
    let (Body::Delta(delta), Some(last)) = (body, last) else {
        return Told::Else;
    };
    let is_last = |key: &Bytes| last.keys.iter().any(|own| own.as_bytes() == key);
    let ours = delta.origin == u32::from(u16::from(last.origin));
    if !ours || !delta.changes.iter().any(|change| is_last(&change.key)) {
        Told::Else
    } else if delta.changes.len() > 1 {
        Told::LastAndMore
    } else {
        Told::Last
    }
}

/// What every agent asks for, and the endpoints of services.
fn used() -> Filter {
    let kinds = [Kind::Node, Kind::Identity, Kind::Service];
    let kinds = kinds.into_iter().map(Prefix::kind);
    Filter::new(kinds.chain([Prefix::service_endpoints()]))
}
