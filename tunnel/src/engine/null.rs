//! The engine for benches that shows what everything but the cipher costs. Handshakes, timers and keepalives are
//! the product's; data messages have the right form and length, and carry their plaintext as it is.
//!
//! It exists only in builds with `--cfg hawser_null_cipher` in `RUSTFLAGS`, which no feature of Cargo and no release
//! sets, and such a build runs only in a lab.

use super::{DATA_OVERHEAD, Engine, Handshake, Memory, NoiseEngine, Opened, Timeout};
use crate::batch::{Batch, Datagrams};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::reject::Reject;
use crate::wireguard::data_header;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// No honest counter comes here: it marks messages in clear.
const IN_CLEAR: u64 = 1 << 62;

/// How often the peer's index is asked anew of the engine, which does not tell it but in a message.
const REFRESH: Duration = Duration::from_millis(100);

/// An engine that seals no data.
#[derive(Debug)]
pub struct NullEngine {
    inner: NoiseEngine,
    receiver: u32,
    asked: Option<Instant>,
    counter: u64,
}

impl NullEngine {
    /// See [`NoiseEngine::resume`].
    pub fn resume(
        private: &PrivateKey,
        peer: &PublicKey,
        preshared: Option<&PresharedKey>,
        memory: Memory,
    ) -> Self {
        Self {
            inner: NoiseEngine::resume(private, peer, preshared, memory),
            receiver: 0,
            asked: None,
            counter: IN_CLEAR,
        }
    }

    /// See [`NoiseEngine::memory`].
    pub fn memory(&self) -> Memory {
        self.inner.memory()
    }

    fn ask_receiver(&mut self, now: Instant) {
        let fresh = |at| now.saturating_duration_since(at) < REFRESH;
        if !self.asked.is_some_and(fresh) {
            let mut message = Vec::new();
            if self.inner.keepalive(now, &mut message) {
                self.receiver = data_header(&message).receiver;
                self.asked = Some(now);
            }
        }
    }
}

impl Engine for NullEngine {
    fn awaits(&self, receiver: u32) -> bool {
        self.inner.awaits(receiver)
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }

    fn session_age(&self, now: Instant) -> Option<Duration> {
        self.inner.session_age(now)
    }

    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) {
        self.ask_receiver(now);
        for (plaintext, _) in plaintexts.iter() {
            let sealed = out.push_with(plaintext.len() + DATA_OVERHEAD, |room| {
                let (header, rest) = room.split_at_mut(DATA_OVERHEAD / 2);
                header[..4].copy_from_slice(&[4, 0, 0, 0]);
                header[4..8].copy_from_slice(&self.receiver.to_le_bytes());
                header[8..].copy_from_slice(&self.counter.to_le_bytes());
                let (data, tag) = rest.split_at_mut(plaintext.len());
                data.copy_from_slice(plaintext);
                tag.fill(0);
                Ok::<_, Infallible>((room.len(), endpoint))
            });
            self.counter += 1;
            match sealed {
                Ok(()) => {}
            }
        }
    }

    fn keepalive(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.inner.keepalive(now, out)
    }

    fn open<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
        now: Instant,
        out: &mut Batch<Opened>,
    ) {
        for message in messages {
            if data_header(message).counter & IN_CLEAR == 0 {
                self.inner.open(std::iter::once(message), now, out);
                continue;
            }
            let plaintext = &message[DATA_OVERHEAD / 2..message.len() - DATA_OVERHEAD / 2];
            let told = plaintext.get(2..4).map_or(0, |length| {
                usize::from(u16::from_be_bytes([length[0], length[1]]))
            });
            match plaintext.get(..told) {
                Some(packet) if told > 0 => out.push(packet, Opened::Packet),
                _ => out.push(&[], Opened::Rejected(Reject::WgPlaintext)),
            }
        }
    }

    fn handle_handshake(
        &mut self,
        message: &[u8],
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Reject> {
        self.asked = None;
        self.inner.handle_handshake(message, now, reply)
    }

    fn initiate(&mut self, again: bool, now: Instant, out: &mut Vec<u8>) -> bool {
        self.inner.initiate(again, now, out)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Timeout {
        self.inner.handle_timeout(now, out)
    }
}
