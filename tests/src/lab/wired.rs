//! Which nodes of a lab have a wire.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Which nodes have a wire in place of a bare veth: `all`, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub enum Wired {
    /// Every node.
    All,
    /// These.
    Nodes(Vec<String>),
}

impl Default for Wired {
    fn default() -> Self {
        Self::Nodes(Vec::new())
    }
}

/// As it is in the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(String),
    Names(Vec<String>),
}

impl From<Wired> for Written {
    fn from(wired: Wired) -> Self {
        match wired {
            Wired::All => Self::Word("all".to_owned()),
            Wired::Nodes(names) => Self::Names(names),
        }
    }
}

impl TryFrom<Written> for Wired {
    type Error = anyhow::Error;

    fn try_from(written: Written) -> Result<Self> {
        match written {
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Word(word) => bail!("wired: {word:?}: must be all or a list of nodes"),
            Written::Names(names) => Ok(Self::Nodes(names)),
        }
    }
}

impl Wired {
    /// Whether no node has a wire.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the node of this name has one.
    #[must_use]
    pub fn has(&self, node: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nodes(names) => names.iter().any(|name| name == node),
        }
    }

    /// Checks that every name is a node's.
    pub(super) fn check(&self, nodes: &[String]) -> Result<()> {
        let Self::Nodes(names) = self else {
            return Ok(());
        };
        match names.iter().find(|name| !nodes.contains(name)) {
            Some(name) => bail!(
                "underlay.wired: {name}: no such node; there are {}",
                nodes.join(", ")
            ),
            None => Ok(()),
        }
    }
}
