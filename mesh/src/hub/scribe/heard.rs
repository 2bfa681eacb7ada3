//! What replicas that do not write heard of newer states: a file of each, read by the one that writes.

use crate::hub::bump::{Claim, MAX_TOLD, Witness};
use crate::hub::manifest::Content;
use crate::io::folder::{ANY, Folder};
use crate::record::Version;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The longest file, in bytes: [`MAX_TOLD`] claims take less than half of it.
const LONGEST: u64 = 4096;

#[derive(Debug)]
pub(super) struct Heard {
    folder: Folder,
    /// The name of our own file.
    replica: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    who: Who,
    incarnation: u64,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Who {
    Hub(u16),
    Agent(u16),
}

impl Heard {
    /// Opens the folder.
    pub(super) fn open(path: &Path, replica: &str) -> io::Result<Self> {
        Ok(Self {
            folder: Folder::make(path)?.at_most(LONGEST),
            replica: replica.to_owned(),
        })
    }

    /// Writes what this replica heard.
    pub(super) fn put(&self, claims: &[Claim]) -> io::Result<()> {
        let lines: Vec<Line> = claims.iter().take(MAX_TOLD).map(line).collect();
        self.folder
            .put(&self.replica, &serde_json::to_string(&lines)?)
    }

    /// Begins to read. What is there by now was said to who wrote before: who still says so, says it again soon.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.look().map(drop)
    }

    /// What other replicas wrote since the last look.
    pub(super) fn look(&mut self) -> io::Result<Vec<Claim>> {
        let mut news = Vec::new();
        for (replica, content) in self.folder.look(ANY)?.files {
            if replica == self.replica {
                continue;
            }
            let claims = match &content {
                Content::Text(text) => parse(text),
                Content::Unchanged => continue,
                Content::Unreadable(reason) => {
                    tracing::warn!(replica, reason, "what it heard cannot be read");
                    continue;
                }
            };
            match claims {
                Some(claims) => news.extend(claims),
                None => {
                    tracing::warn!(replica, "what it heard is in no known form; ignored");
                }
            }
        }
        Ok(news)
    }
}

fn line(claim: &Claim) -> Line {
    Line {
        who: match claim.who {
            Witness::Hub(cluster) => Who::Hub(cluster.into()),
            Witness::Agent(node) => Who::Agent(node.into()),
        },
        incarnation: claim.seen.incarnation.0,
        revision: claim.seen.revision.0,
    }
}

fn parse(text: &str) -> Option<Vec<Claim>> {
    let lines: Vec<Line> = serde_json::from_str(text).ok()?;
    if lines.len() > MAX_TOLD {
        return None;
    }
    let claim = |line: Line| {
        let who = match line.who {
            Who::Hub(cluster) => Witness::Hub(ClusterId::new(cluster).ok()?),
            Who::Agent(node) => Witness::Agent(NodeIndex::new(node).ok()?),
        };
        let seen = Version::new(line.incarnation, line.revision);
        Some(Claim { who, seen })
    };
    lines.into_iter().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn claim(node: u16, revision: u64) -> Claim {
        let who = Witness::Agent(NodeIndex::new(node).unwrap());
        let seen = Version::new(u64::MAX, revision);
        Claim { who, seen }
    }

    #[test]
    fn what_one_replica_heard_the_other_reads_once_each_time_that_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let one = Heard::open(folder.path(), "hub-1-6082").unwrap();
        let mut other = Heard::open(folder.path(), "hub-2-6082").unwrap();
        let hub = Claim {
            who: Witness::Hub(ClusterId::new(2).unwrap()),
            seen: Version::new(1, 29),
        };
        one.put(&[claim(65534, u64::MAX), hub]).unwrap();
        assert_eq!(other.look().unwrap(), [claim(65534, u64::MAX), hub]);
        assert_eq!(other.look().unwrap(), []);
        one.put(&[hub]).unwrap();
        assert_eq!(other.look().unwrap(), [hub]);
        let mut third = Heard::open(folder.path(), "hub-3-6082").unwrap();
        third.begin().unwrap();
        assert_eq!(third.look().unwrap(), [], "that was before");
        // Not its own.
        other.put(&[claim(3, 1)]).unwrap();
        assert_eq!(other.look().unwrap(), []);
    }

    #[test]
    fn all_that_may_be_told_fits_and_what_is_longer_or_wrong_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let one = Heard::open(folder.path(), "hub-1-6082").unwrap();
        let mut other = Heard::open(folder.path(), "hub-2-6082").unwrap();
        let many: Vec<Claim> = (60_000..60_100).map(|node| claim(node, u64::MAX)).collect();
        one.put(&many).unwrap();
        assert_eq!(other.look().unwrap(), many[..MAX_TOLD]);
        let line = |who: &str| format!("{{\"who\":{who},\"incarnation\":1,\"revision\":9}}");
        for text in [
            String::new(),
            "[".to_owned(),
            format!("[{}]", line("{\"agent\":0}")),
            format!("[{}]", line("{\"hub\":2048}")),
            format!("[{}]", line("{\"node\":1}")),
            format!("[{}]", vec![line("{\"agent\":1}"); MAX_TOLD + 1].join(",")),
            format!("[{}]{}", line("{\"agent\":1}"), " ".repeat(4096)),
        ] {
            fs::write(folder.path().join("hub-1-6082"), &text).unwrap();
            assert_eq!(other.look().unwrap(), [], "{text}");
        }
    }
}
