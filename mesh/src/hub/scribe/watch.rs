//! Where the scribe hears that something changed.

use super::{Order, Scribe};
use crate::io::folder_watch::FolderWatch;
use std::path::Path;
use std::sync::mpsc::Sender;

impl Scribe {
    pub(super) fn watch(&mut self, orders: Sender<Order>) {
        let (source, state) = (self.source.path().to_owned(), &self.config.state_directory);
        let (journal, announced) = (state.join("journal"), state.join("announced"));
        let (ahead, peers) = (state.join("ahead"), state.join("peers"));
        let revoked = self.revoked.path().to_owned();
        let (followed, ca) = (self.followed.path().to_owned(), state.join("ca"));
        let folders = [
            source.clone(),
            announced.clone(),
            ahead.clone(),
            peers.clone(),
            revoked.clone(),
            followed.clone(),
            state.clone(),
        ];
        let heard = move |paths: &[std::path::PathBuf]| {
            let under = |folder: &Path| {
                paths.is_empty() || paths.iter().any(|path| path.starts_with(folder))
            };
            let orders = [
                (under(&source), Order::Source),
                (under(&journal), Order::Journal),
                (under(&announced), Order::Announced),
                (under(&ahead), Order::Heard),
                (under(&peers), Order::Peers),
                (under(&revoked), Order::Revoked),
                (under(&followed), Order::Followed),
                (under(&ca), Order::Ca),
            ]
            .map(|(heard, order)| heard.then(|| orders.send(order)));
            // The hub has ended.
            drop(orders);
        };
        match FolderWatch::new(heard) {
            Ok(mut watch) => {
                for folder in folders {
                    if let Err(error) = watch.add(&folder) {
                        tracing::warn!(folder = %folder.display(), %error, "changes are not told; looking every 2 s");
                    }
                }
                self._watch = Some(watch);
            }
            Err(error) => tracing::warn!(%error, "changes are not told; looking every 2 s"),
        }
    }
}
