//! ChaCha20-Poly1305 (RFC 8439) as WireGuard's data messages use it, over many messages at once.
//!
//! The nonce is four zero bytes and the message's counter, little endian; there is no associated
//! data. All messages of a call are under one key, and are changed in place.
//!
//! [`Cipher::Ring`] takes one message after the other through ring. [`Cipher::Avx512`] computes
//! sixteen ChaCha20 blocks and eight Poly1305 tags in the lanes of one register, whatever messages
//! they belong to, so that short messages fill the registers as well as long ones. Both give the
//! same bytes and the same verdicts.
//!
//! No branch and no address depends on a key, a text or a tag; they do on lengths, on how many
//! messages there are, and on verdicts, which the network sees anyway.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod ring;
#[cfg(test)]
mod tests;

use crate::io::clock;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

/// Bytes that sealing adds to a text, behind it.
pub const TAG_LEN: usize = 16;

/// One message of a batch.
#[derive(Default)]
pub struct Message<'a> {
    /// Its number under the key. Whoever seals two texts with one number gives both away.
    pub counter: u64,
    /// The text and, behind it, [`TAG_LEN`] bytes for the tag. Fewer than [`TAG_LEN`] bytes are a
    /// mistake of the caller; they are not sealed, and are refused.
    pub bytes: &'a mut [u8],
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("counter", &self.counter)
            .field("length", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A way to compute the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// ring, one message at a time. Everywhere.
    Ring,
    /// Many messages at a time. On CPUs with AVX-512 F, BW, VL and IFMA.
    Avx512,
}

impl Cipher {
    const ALL: [Self; 2] = [Self::Ring, Self::Avx512];

    /// Those that this CPU can do.
    pub fn all_here() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|cipher| cipher.is_here())
    }

    /// The one that seals a batch of full packets in the least time, by a measurement of about a
    /// millisecond: having the instructions does not mean that they are fast.
    pub fn fastest() -> Self {
        let mut best = (Self::Ring, Duration::MAX);
        for cipher in Self::all_here() {
            let time = cipher.time();
            if time < best.1 {
                best = (cipher, time);
            }
        }
        best.0
    }

    /// [`Self::fastest`], measured once in the life of the process.
    pub fn chosen() -> Self {
        static CHOSEN: OnceLock<Cipher> = OnceLock::new();
        *CHOSEN.get_or_init(Self::fastest)
    }

    /// Its name in logs and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Avx512 => "avx512",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Self::Ring => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::Cpu::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 => false,
        }
    }

    /// The shortest of a few runs: whatever else the machine does only ever adds.
    fn time(self) -> Duration {
        // What a super-frame of a wire with 1,500 bytes is cut into, about.
        const MESSAGES: usize = 16;
        const LENGTH: usize = 1440 + TAG_LEN;
        const RUNS: usize = 24;
        let key = Key::new(&[0; 32], self);
        let mut bytes = vec![0; MESSAGES * LENGTH];
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let mut messages: Vec<Message<'_>> = (0..)
                .zip(bytes.chunks_exact_mut(LENGTH))
                .map(|(counter, bytes)| Message { counter, bytes })
                .collect();
            let start = clock::now();
            key.seal(&mut messages);
            best = best.min(clock::now().saturating_duration_since(start));
        }
        best
    }
}

/// A key and the way to use it. Wiped when dropped.
pub struct Key {
    one_by_one: ring::Key,
    #[cfg(target_arch = "x86_64")]
    at_once: avx512::Key,
    /// Whether many messages go to `at_once`. A key that is there in any case leaves no place in this type that nobody
    /// writes: what happened to be there before would move along, and be wiped by nobody.
    #[cfg(target_arch = "x86_64")]
    many: Option<avx512::Cpu>,
}

impl Key {
    /// A key for `cipher`, or for [`Cipher::Ring`] where this CPU cannot do `cipher`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "nothing is computed at once there")
    )]
    pub fn new(key: &[u8; 32], cipher: Cipher) -> Self {
        Self {
            one_by_one: ring::Key::new(key),
            #[cfg(target_arch = "x86_64")]
            at_once: avx512::Key::new(key),
            #[cfg(target_arch = "x86_64")]
            many: match cipher {
                Cipher::Ring => None,
                Cipher::Avx512 => avx512::Cpu::detect(),
            },
        }
    }

    /// Encrypts every text and writes its tag behind it.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "nothing is computed at once there")
    )]
    pub fn seal(&self, messages: &mut [Message<'_>]) {
        for message in &*messages {
            debug_assert!(message.bytes.len() >= TAG_LEN, "no room for a tag");
        }
        let many = self.at_once(messages.len());
        let (many, rest) = messages.split_at_mut(many);
        #[cfg(target_arch = "x86_64")]
        if let Some(cpu) = self.many {
            self.at_once.seal(cpu, many);
        }
        self.one_by_one.seal(rest);
    }

    /// Decrypts every text whose tag is right. `opened` hears of each message once, in any order:
    /// its index, and whether it was opened. The bytes of a refused one are worth nothing, and are
    /// never what an unauthenticated message decrypts to.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "nothing is computed at once there")
    )]
    pub fn open(&self, messages: &mut [Message<'_>], mut opened: impl FnMut(usize, bool)) {
        let count = self.at_once(messages.len());
        let (many, rest) = messages.split_at_mut(count);
        #[cfg(target_arch = "x86_64")]
        if let Some(cpu) = self.many {
            self.at_once.open(cpu, many, &mut opened);
        }
        let rest_opened = |index, good| opened(count + index, good);
        self.one_by_one.open(rest, rest_opened);
    }

    /// How many of `count` messages gain by being computed at once: a lonely one does not.
    #[cfg(target_arch = "x86_64")]
    fn at_once(&self, count: usize) -> usize {
        match (self.many, count % avx512::GROUP) {
            (None, _) => 0,
            (Some(_), 1) => count - 1,
            (Some(_), _) => count,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn at_once(&self, _count: usize) -> usize {
        0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}
