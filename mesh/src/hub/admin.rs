//! The socket on which root asks a hub, and has it do something: a line of JSON for each line with a request.
//!
//! | request | answer |
//! |---|---|
//! | `{"status": {"digest": true}}` | everything; digests cost a look at every record, and may be left out |
//! | `{"clusters": {}}` | each member, and each `ClusterPeer` that is none |
//! | `{"invite": {"name": "west", ...}}` | `{"invited": {"token": ..., "expires": ...}}` |
//! | `{"look": {"token": ..., ...}}` | `{"looked": {...}}`: what the inviting side offers |
//! | `{"join": {"token": ..., "agreed": ..., ...}}` | `{"joined": {...}}` |
//! | `{"leave": {"name": "west"}}` | `{"left": {...}}` |
//! | `{"revoke": {"name": "west"}}` | `{"revoked": {...}}` |
//! | `{"readmit": {"name": "west"}}` | `{"readmitted": {...}}` |
//! | `{"rollCa": {}}` | `{"rolled": {...}}` |
//! | `{"retireCa": {}}` | `{"retired": {...}}` |
//!
//! Whatever is not done is answered with `{"error": "one line", "reason": "its name"}`.

use super::manifest::QuotaLimits;
use crate::revocation::Kind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

/// The longest request, in bytes: the longest token, and 256 namespaces of 63 letters.
const LONGEST: u64 = 64 << 10;
/// The most who ask at the same time.
const ASKERS: usize = 16;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Request {
    /// How is it?
    Status {
        /// With digests.
        #[serde(default)]
        digest: bool,
    },
    /// Who is there?
    Clusters {},
    /// Make a token for a cluster.
    Invite {
        /// Its name.
        name: String,
        /// What it may announce, and where our hubs are.
        #[serde(default)]
        terms: Wishes,
        /// How long the token is good, in seconds.
        #[serde(default = "quarter_hour")]
        ttl: u64,
    },
    /// What does the inviting side offer?
    Look {
        /// Its token.
        token: TokenText,
        /// What it may announce, and where our hubs are.
        #[serde(default)]
        terms: Wishes,
    },
    /// Take its offer.
    Join {
        /// Its token.
        token: TokenText,
        /// What it may announce, and where our hubs are.
        #[serde(default)]
        terms: Wishes,
        /// What was looked at and agreed to.
        agreed: String,
    },
    /// Forget a member that joined.
    Leave {
        /// Its name.
        name: String,
    },
    /// Cut off a member, or a node of this cluster.
    Revoke {
        /// Its name.
        name: String,
        /// Which of both, where it is not clear.
        #[serde(default)]
        kind: Option<Kind>,
    },
    /// Let it in again.
    Readmit {
        /// Its name.
        name: String,
        /// Which of both, where it is not clear.
        #[serde(default)]
        kind: Option<Kind>,
    },
    /// Let another CA sign from now on.
    RollCa {},
    /// Trust the one before it no longer.
    RetireCa {},
}

/// What an operator wants of another cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Wishes {
    /// It may announce of these namespaces only.
    pub(crate) namespaces: Option<Vec<String>>,
    /// How much.
    pub(crate) quotas: QuotaLimits,
    /// Whom it revokes is cut off here, too.
    pub(crate) may_revoke: bool,
    /// Where it is told that our hubs are; nothing: as hub.yaml says.
    pub(crate) hubs: Vec<String>,
}

fn quarter_hour() -> u64 {
    crate::token::MAX_LIFE.as_secs()
}

/// The text of a token. It is not shown, and wiped.
#[derive(Clone)]
pub(crate) struct TokenText(pub(crate) Zeroizing<String>);

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

impl Serialize for TokenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Zeroizing::new(String::deserialize(deserializer)?)))
    }
}

/// Somebody asks.
#[derive(Debug)]
pub(super) struct Question {
    /// What.
    pub(super) request: Request,
    /// Where the answer goes.
    pub(super) reply: Answering,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Answering(oneshot::Sender<Zeroizing<String>>);

impl Answering {
    /// Answers.
    pub(super) fn answer(self, value: &Value) {
        self.line(value.to_string());
    }

    /// Answers with a token, of which no copy stays. It has no signs that mean something in JSON.
    pub(super) fn token(self, token: &str, expires: u64) {
        let mut line = Zeroizing::new(String::with_capacity(token.len() + 80));
        for part in [
            "{\"invited\":{\"token\":\"",
            token,
            "\",\"expires\":",
            &expires.to_string(),
            "}}",
        ] {
            line.push_str(part);
        }
        // Who asked, went.
        let _ = self.0.send(line);
    }

    /// Answers with a line.
    pub(super) fn line(self, line: String) {
        // Who asked, went.
        let _ = self.0.send(Zeroizing::new(line));
    }

    /// Says why it was not done.
    pub(super) fn refuse(self, reason: &str, text: &str) {
        self.answer(&json!({ "error": text, "reason": reason }));
    }
}

/// The socket. Its file goes with it.
#[derive(Debug)]
pub(super) struct AdminSocket {
    path: PathBuf,
    questions: mpsc::Receiver<Question>,
}

impl AdminSocket {
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

impl Drop for AdminSocket {
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
                tracing::warn!(%error, "no requests of operators any more");
                return;
            }
        }
    }
}

async fn converse(stream: UnixStream, asked: mpsc::Sender<Question>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        // There may be a token in it.
        let mut line = Zeroizing::new(String::new());
        (&mut read).take(LONGEST).read_line(&mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let reply = Answering(reply);
        match serde_json::from_str(&line) {
            Ok(request) => {
                if asked.send(Question { request, reply }).await.is_err() {
                    return Ok(());
                }
            }
            // Its text may be a part of a token.
            Err(error) => reply.refuse(
                "request_malformed",
                &format!("no request: wrong at column {}", error.column()),
            ),
        }
        let text = answer.await.map_err(io::Error::other)?;
        write.write_all(text.as_bytes()).await?;
        write.write_all(b"\n").await?;
    }
}
