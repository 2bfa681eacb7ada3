//! What a lab leaves on disk about itself, for `lab exec`, `lab list` and `lab down`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::topology::Topology;

/// Where labs keep their files.
const BASE: &str = "/run/hawser-lab";

/// One lab, as written to its `lab.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its random id, part of every name.
    pub id: String,
    /// The name for people; a test's lab has none.
    pub name: Option<String>,
    /// It stays when its maker ends.
    pub kept: bool,
    /// The process that made it.
    pub owner: i32,
    /// What its payloads repeat.
    pub canary: [u8; 16],
    /// What it looks like.
    pub topology: Topology,
}

impl Record {
    /// The directory of the lab `id`.
    #[must_use]
    pub fn directory_of(id: &str) -> PathBuf {
        Path::new(BASE).join(id)
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn write(&self) -> Result<()> {
        let directory = Self::directory_of(&self.id);
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
        let text = serde_json::to_string_pretty(self).context("failed to write down the lab")?;
        let (draft, path) = (directory.join("lab.json.new"), directory.join("lab.json"));
        fs::write(&draft, text).with_context(|| format!("failed to write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// Every lab of this machine that has a record.
#[must_use]
pub fn records() -> Vec<Record> {
    let Ok(entries) = fs::read_dir(BASE) else {
        return Vec::new();
    };
    let mut records: Vec<Record> = entries
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.ok()?.path().join("lab.json")).ok()?;
            serde_json::from_str(&text).ok()
        })
        .collect();
    records.sort_by(|left, right| left.id.cmp(&right.id));
    records
}
