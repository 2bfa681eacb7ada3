//! The committed inputs of a target: what every run starts from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The longest input, in bytes: a full packet with all its headers fits, and so does a small state as JSON.
pub const MAX_INPUT: usize = 4096;

/// The inputs of one target, in the order of their file names.
#[derive(Clone, Debug, Default)]
pub struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// Where the corpora are kept, a folder for each target.
    #[must_use]
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
    }

    /// Reads the corpus of a target; a target without a folder has none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(target: &str) -> Result<Self> {
        let folder = Self::folder().join(target);
        if !folder.exists() {
            return Ok(Self::default());
        }
        let failed = || format!("{}: failed to read the corpus", folder.display());
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).with_context(failed)? {
            paths.push(entry.with_context(failed)?.path());
        }
        paths.sort();
        let files = paths.iter().map(fs::read);
        Ok(Self(
            files.collect::<std::io::Result<_>>().with_context(failed)?,
        ))
    }

    /// A corpus of these inputs.
    #[must_use]
    pub fn of(inputs: Vec<Vec<u8>>) -> Self {
        Self(inputs)
    }

    /// The inputs.
    #[must_use]
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.0
    }
}
