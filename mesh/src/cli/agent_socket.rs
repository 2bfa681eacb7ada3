//! Asks the agent on its socket, which is beside the data plane's.

use crate::agent_socket::{Request, Response};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An agent that is busy answers later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks one thing of the agent beside the data plane that listens at `tunnel`.
pub(super) fn ask(tunnel: &Path, request: &Request) -> io::Result<Response> {
    let mut stream = UnixStream::connect(tunnel.with_file_name("agent.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(serde_json::to_string(request)?.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
