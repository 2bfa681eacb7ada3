//! Hears of changes in folders.

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};

/// Watches folders for as long as it lives.
#[derive(Debug)]
pub(crate) struct FolderWatch(RecommendedWatcher);

impl FolderWatch {
    /// Calls `heard` on a thread of its own with each path that was touched; without any when some were missed.
    pub(crate) fn new(mut heard: impl FnMut(&[PathBuf]) + Send + 'static) -> notify::Result<Self> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            match event {
                // Looking at a file is no change; it would make us look again for ever.
                Ok(event) if event.kind.is_access() => {}
                Ok(event) => heard(&event.paths),
                Err(_) => heard(&[]),
            }
        })?;
        Ok(Self(watcher))
    }

    /// Watches one more folder, not what is below it.
    pub(crate) fn add(&mut self, folder: &Path) -> notify::Result<()> {
        self.0.watch(folder, RecursiveMode::NonRecursive)
    }
}
