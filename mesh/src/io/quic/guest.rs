//! Somebody who asks one thing; of a hub also without a certificate.

use super::admission::GuestPlace;
use super::code;
use super::handshake::HandshakeError;
use super::tls::{Found, Offered};
use crate::enrol::message::{Answer, MAX_MESSAGE};
use crate::psk::{Exporter, ExporterFailed, Group};
use crate::trust::PeerId;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::time::{Instant, timeout_at};

/// A guest: one stream, one request, one answer, three seconds in all. It ends when this is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Guest {
    /// From where it asks.
    pub address: SocketAddr,
    /// Who it is, if it has shown a certificate that we take.
    pub peer: Option<PeerId>,
    /// By which group it shook hands, where that was looked at.
    pub group: Option<Group>,
    request: Bytes,
    send: quinn::SendStream,
    connection: quinn::Connection,
    deadline: Instant,
    place: GuestPlace,
}

impl Guest {
    /// Reads what it asks.
    pub(super) async fn read(
        connection: &quinn::Connection,
        (found, offered): (&Found, Offered),
        place: GuestPlace,
        deadline: Instant,
    ) -> Result<Self, HandshakeError> {
        let peer = match found.get() {
            None => None,
            Some(Ok(peer)) => Some(peer.clone()),
            Some(Err(untrusted)) => return Err(untrusted.clone().into()),
        };
        let (send, mut receive) = connection.accept_bi().await.map_err(HandshakeError::from)?;
        let request = receive.read_to_end(MAX_MESSAGE).await;
        let request = request.map_err(|error| match error {
            quinn::ReadToEndError::TooLong => HandshakeError::RequestTooLong,
            quinn::ReadToEndError::Read(error) => HandshakeError::Ended(error.into()),
        })?;
        Ok(Self {
            address: place.address,
            peer,
            group: offered.get().copied(),
            request: request.into(),
            send,
            connection: connection.clone(),
            deadline,
            place,
        })
    }

    /// What it asks.
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// Answers it. What it does not take in its time is lost.
    pub async fn answer(mut self, answer: Bytes) {
        let send = async {
            // A guest that went misses its answer.
            if self.send.write_chunk(answer).await.is_ok() && self.send.finish().is_ok() {
                // It closes the connection once it has all of it.
                self.connection.closed().await;
            }
        };
        // Whoever is too slow asks again.
        let _ = timeout_at(self.deadline, send).await;
    }

    /// Answers that it gets nothing, and why. The reason is counted with those of other handshakes.
    pub async fn refuse(self, reason: &'static str, text: String) {
        self.note_refusal(reason, &text);
        let name = reason.to_owned();
        self.answer(Answer::Refused { name, text }.encode()).await;
    }

    /// Counts with the refusals of other handshakes that it gets nothing, which it is answered in words of its protocol.
    pub fn note_refusal(&self, reason: &'static str, text: &str) {
        let place = &self.place;
        place.shared.refuse_by_name(place.address, reason, &text);
    }

    /// Ends it without an answer. The reason is counted with those of other handshakes.
    pub fn turn_away(self, reason: &'static str) {
        let place = &self.place;
        place.shared.refuse_by_name(place.address, reason, &reason);
        self.connection.close(code::REFUSED, reason.as_bytes());
    }
}

impl Exporter for Guest {
    fn export(
        &self,
        label: &[u8],
        context: &[u8],
        secret: &mut [u8; 32],
    ) -> Result<(), ExporterFailed> {
        super::key_session::export(&self.connection, label, context, secret)
    }
}
