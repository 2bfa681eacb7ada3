//! What a hub says of itself, on a socket for root: a line of JSON for each line with a request.
//!
//! `{"status":{}}` asks for everything but digests, which cost a look at every record: `{"status":{"digest":true}}`.
//! Anything else is answered with `{"error": "..."}`.

use super::connections::Connections;
use super::core::Core;
use crate::trust::Role;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The longest request, in bytes.
const LONGEST: u64 = 4096;
/// The most who ask at the same time.
const ASKERS: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Request {
    Status {
        #[serde(default)]
        digest: bool,
    },
}

/// Somebody asks.
#[derive(Debug)]
pub(super) struct Question {
    /// Whether for digests too.
    pub(super) digest: bool,
    reply: oneshot::Sender<String>,
}

impl Question {
    /// Answers with a line.
    pub(super) fn answer(self, line: String) {
        // Who asked, went.
        let _ = self.reply.send(line);
    }
}

/// The socket. Its file goes with it.
#[derive(Debug)]
pub(super) struct StatusSocket {
    path: PathBuf,
    questions: mpsc::Receiver<Question>,
}

impl StatusSocket {
    /// Listens at this path. A file that a dead process left there is removed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // The folder is for nobody else, so nobody comes in before the next line.
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (asked, questions) = mpsc::channel(ASKERS);
        tokio::spawn(accept(listener, asked));
        let path = path.to_owned();
        Ok(Self { path, questions })
    }

    /// The next question.
    pub(super) async fn next(&mut self) -> Option<Question> {
        self.questions.recv().await
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // What stays is removed by the next hub.
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, asked: mpsc::Sender<Question>) {
    let places = Arc::new(Semaphore::new(ASKERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    // Who asks may go at any time.
                    let _ = converse(stream, asked).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no status requests any more");
                return;
            }
        }
    }
}

async fn converse(stream: UnixStream, asked: mpsc::Sender<Question>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        (&mut read).take(LONGEST).read_line(&mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let text = match serde_json::from_str(&line) {
            Ok(Request::Status { digest }) => {
                let (reply, answer) = oneshot::channel();
                if asked.send(Question { digest, reply }).await.is_err() {
                    return Ok(());
                }
                answer.await.map_err(io::Error::other)?
            }
            Err(error) => json!({ "error": format!("no request: {error}") }).to_string(),
        };
        write.write_all(text.as_bytes()).await?;
        write.write_all(b"\n").await?;
    }
}

/// Everything, as a line.
pub(super) fn answer(
    core: &Core,
    digest: bool,
    role: &str,
    source: &(usize, Vec<String>),
    connections: &Connections,
    handshakes: &BTreeMap<&'static str, u64>,
) -> String {
    let origin = |id| {
        let store = core.store(id)?;
        Some(json!({
            "cluster": u16::from(id),
            "name": core.name_of(id),
            "version": store.version().to_string(),
            "complete": store.is_complete(),
            "records": store.len(),
            "refused": store.refused(),
            "overQuota": store.is_over_quota(),
            "digest": digest.then(|| store.public_digest().to_string()),
        }))
    };
    let sessions = core.sessions().iter().map(|(id, session)| {
        let (kind, name) = match &session.peer.role {
            Role::Node(name) => ("node", name),
            Role::Hub(name) => ("hub", name),
        };
        json!({
            "session": id,
            "cluster": session.peer.cluster,
            "role": kind,
            "name": name,
            "address": connections.address_of(*id).map(|address| address.to_string()),
            "feedsUs": session.feeds_us,
        })
    });
    let stats = core.stats();
    let refused = core.refused_by_others().iter();
    let refused = refused
        .map(|(by, key, reason)| json!({ "by": by, "key": key.to_string(), "reason": reason }));
    json!({
        "role": role,
        "cluster": core.own().name,
        "version": core.version().to_string(),
        "origins": core.origins().filter_map(origin).collect::<Vec<_>>(),
        "refusals": stats.refusals,
        "refusedByOthers": refused.collect::<Vec<_>>(),
        "refusalsByOthers": core.refused_by_others().counts(),
        "rejects": stats.rejects,
        "unwelcome": connections.refused(),
        "handshakes": handshakes,
        "bytesIn": stats.bytes_in,
        "bytesOut": stats.bytes_out,
        "sessions": sessions.collect::<Vec<_>>(),
        "source": { "objects": source.0, "complaints": source.1 },
    })
    .to_string()
}
