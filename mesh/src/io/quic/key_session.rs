//! A session from which two agents derive keys, at the side that opens it.

use super::ask::converse;
use super::dialer::begin;
use super::handshake::{HandshakeError, established, known};
use super::{ATTEMPT, Tls, code};
use crate::psk::{Exporter, ExporterFailed, Group, MAX_MESSAGE};
use crate::trust::Expected;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::time::timeout;

/// A session with one node, made by one group. It ends when this is dropped.
#[derive(Debug)]
pub struct KeySession {
    connection: quinn::Connection,
}

impl KeySession {
    /// Opens one, by this group and no other.
    ///
    /// # Errors
    /// Nobody answers there, or not whom we expect, or not by that group ([`HandshakeError::NoneInCommon`]).
    pub async fn open(
        address: SocketAddr,
        tls: &Tls,
        expected: Expected,
        group: Group,
    ) -> Result<Self, HandshakeError> {
        let (config, found) = tls
            .key_client(expected, group)
            .map_err(|error| HandshakeError::Tls(error.to_string()))?;
        let connecting = established(begin(address, config)?, &found);
        let connection = timeout(ATTEMPT, connecting).await;
        let connection = connection.unwrap_or(Err(HandshakeError::Timeout))?;
        known(&found)?;
        Ok(Self { connection })
    }

    /// Asks the one thing that can be asked.
    ///
    /// # Errors
    /// The session ended before there was an answer, or the answer is too long.
    pub async fn ask(&self, request: Bytes) -> Result<Bytes, HandshakeError> {
        converse(&self.connection, request, MAX_MESSAGE).await
    }
}

impl Drop for KeySession {
    fn drop(&mut self) {
        self.connection.close(code::DONE, b"");
    }
}

impl Exporter for KeySession {
    fn export(
        &self,
        label: &[u8],
        context: &[u8],
        secret: &mut [u8; 32],
    ) -> Result<(), ExporterFailed> {
        export(&self.connection, label, context, secret)
    }
}

/// Derives a secret of a session.
pub(super) fn export(
    connection: &quinn::Connection,
    label: &[u8],
    context: &[u8],
    secret: &mut [u8; 32],
) -> Result<(), ExporterFailed> {
    let exported = connection.export_keying_material(secret, label, context);
    exported.map_err(|_| ExporterFailed)
}
