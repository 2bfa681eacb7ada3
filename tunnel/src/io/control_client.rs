//! The asking side of the control socket, for agents, the CLI and tests.

use crate::control::{CaptureRequest, PROTOCOL, Request, Response, Role};
use crate::io::message;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A connection to the data plane. Calls wait for the answer.
#[derive(Debug)]
pub struct ControlClient {
    socket: UnixStream,
    version: String,
    public_keys: Vec<String>,
}

/// Why the data plane could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlClientError {
    /// Nobody listens there.
    #[error("failed to connect to {}: is hawser-tunnel running, and are you root?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("failed to talk to hawser-tunnel")]
    Talk(#[from] io::Error),
    /// It hung up.
    #[error("hawser-tunnel hung up")]
    HungUp,
    /// It answered something else.
    #[error("hawser-tunnel answered {0}")]
    Unexpected(String),
}

impl ControlClient {
    /// Connects and says hello.
    pub fn connect(path: &Path, role: Role) -> Result<Self, ControlClientError> {
        let socket = UnixStream::connect(path).map_err(|source| ControlClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        let mut client = Self {
            socket,
            version: String::new(),
            public_keys: Vec::new(),
        };
        let response = client.request(&Request::Hello {
            protocol: PROTOCOL,
            role,
        })?;
        let Response::Hello {
            version,
            public_keys,
        } = response
        else {
            return Err(unexpected(&response));
        };
        client.version = version;
        client.public_keys = public_keys;
        Ok(client)
    }

    /// The version of `hawser-tunnel`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The node's WireGuard keys in base64, one a lane.
    pub fn public_keys(&self) -> &[String] {
        &self.public_keys
    }

    /// Asks, and waits for the answer.
    pub fn request(&mut self, request: &Request) -> Result<Response, ControlClientError> {
        message::write(&self.socket, request)?;
        message::read(&self.socket)?.ok_or(ControlClientError::HungUp)
    }

    /// Starts a capture; what is read from the socket from now on is a pcapng file.
    pub fn capture(mut self, request: CaptureRequest) -> Result<UnixStream, ControlClientError> {
        let response = self.request(&Request::Capture(request))?;
        if response != Response::Capturing {
            return Err(unexpected(&response));
        }
        Ok(self.socket)
    }

    /// The socket, to notice that the other side hung up. Nothing may be read from it.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

fn unexpected(response: &Response) -> ControlClientError {
    ControlClientError::Unexpected(if let Response::Refused { reason, detail } = response {
        format!("{reason:?}: {detail}")
    } else {
        "out of order".to_owned()
    })
}
