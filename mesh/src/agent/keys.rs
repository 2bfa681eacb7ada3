//! The agent's end of deriving pre-shared keys with other agents: a thread of its own that listens, opens sessions, and
//! hands over keys.
//!
//! It decides nothing: [`crate::psk::Agenda`] does. It has a thread because handshakes of a large mesh that starts take
//! seconds of a processor, and nothing else shall wait for them. The keys are in its memory, in that of the node, and in
//! the data plane, which alone keeps them on disk.

mod exchange;
mod report;
mod roster;

pub(super) use report::Report;
pub(super) use roster::{Held, Keyring, Roster};

use crate::trust::{Credentials, Trust};
use exchange::Exchange;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// What a node proves who it is by, and the CA of its own cluster; `None`: it has no certificate yet.
pub(super) type Proof = Option<(Credentials, Trust)>;

/// The node's end.
#[derive(Debug)]
pub(super) struct KeyLink {
    roster: watch::Sender<Arc<Roster>>,
    keyring: watch::Receiver<Arc<Keyring>>,
    thread: JoinHandle<()>,
}

impl KeyLink {
    /// Begins, with nobody to derive keys with yet.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn open(
        port: u16,
        proof: watch::Receiver<Proof>,
        report: Arc<Report>,
    ) -> std::io::Result<Self> {
        let (roster, told) = watch::channel(Arc::new(Roster::new(port)));
        let (tell, keyring) = watch::channel(Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("hawser-keys".to_owned())
            .spawn(move || {
                let serve = async move { Exchange::new(told, proof, tell, report).serve().await };
                runtime.block_on(serve);
            })?;
        Ok(Self {
            roster,
            keyring,
            thread,
        })
    }

    /// With whom from now on.
    pub(super) fn tell(&self, roster: Roster) {
        self.roster.send_replace(Arc::new(roster));
    }

    /// Waits until there are other keys.
    pub(super) async fn changed(&mut self) -> Arc<Keyring> {
        if self.keyring.changed().await.is_err() {
            // The thread has ended, with a panic that was told. The node goes on with the keys that it has.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.keyring.borrow_and_update())
    }

    /// Ends it.
    pub(super) async fn close(self) {
        drop((self.roster, self.keyring));
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        // A thread that panicked has said so.
        let _ = joined.await;
    }
}
