//! Lanes that agents told: a file for each node, written by any replica, read by the one that writes.

use crate::hub::manifest::Content;
use crate::io::folder::{ANY, Folder};
use crate::record::LaneRecord;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

#[derive(Debug)]
pub(super) struct Announced {
    folder: Folder,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    endpoint: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key_port: Option<u16>,
}

impl Announced {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: Folder::make(path)?,
        })
    }

    /// Writes a node's lanes. Returns whether they are new.
    pub(super) fn put(&self, node: &str, lanes: &[LaneRecord]) -> io::Result<bool> {
        let line = |lane: &LaneRecord| Line {
            public_key: lane.public_key.to_string(),
            endpoint: lane.peer_endpoint,
            key_port: lane.key_port,
        };
        let lines: Vec<Line> = lanes.iter().map(line).collect();
        let text = serde_json::to_string(&lines)?;
        // Another replica may have written others since we did.
        if self.folder.get(node)?.is_some_and(|had| had == text) {
            return Ok(false);
        }
        self.folder.put(node, &text)?;
        Ok(true)
    }

    /// The lanes that are new since the last look, by node.
    pub(super) fn look(&mut self) -> io::Result<Vec<(String, Vec<LaneRecord>)>> {
        let mut news = Vec::new();
        for (node, content) in self.folder.look(ANY)?.files {
            let text = match content {
                Content::Text(text) => text,
                Content::Unchanged | Content::Unreadable(_) => continue,
            };
            let Some(lanes) = parse(&text) else {
                tracing::warn!(node, "its lanes are written in no known form; ignored");
                continue;
            };
            news.push((node, lanes));
        }
        Ok(news)
    }
}

fn parse(text: &str) -> Option<Vec<LaneRecord>> {
    let lines: Vec<Line> = serde_json::from_str(text).ok()?;
    let lane = |line: Line| {
        Some(LaneRecord {
            public_key: line.public_key.parse().ok()?,
            peer_endpoint: line.endpoint,
            key_port: line.key_port.filter(|port| *port > 0),
        })
    };
    lines.into_iter().map(lane).collect()
}
