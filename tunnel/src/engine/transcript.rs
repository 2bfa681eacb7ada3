//! What both sides of a handshake hash and mix as it goes on: Noise's symmetric state, with WireGuard's
//! names (whitepaper, section 5.4).

use blake2::digest::{FixedOutput, Update};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use hmac::{Mac, SimpleHmac};
use zeroize::Zeroizing;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const TAG_LEN: usize = 16;

/// 32 bytes that nobody else knows; wiped when dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// The state of a handshake: a chaining key, and the hash of all that was said.
pub(super) struct Transcript {
    chain: Secret,
    hash: [u8; 32],
}

fn hash(parts: [&[u8]; 2]) -> [u8; 32] {
    Blake2s256::new()
        .chain_update(parts[0])
        .chain_update(parts[1])
        .finalize()
        .into()
}

fn hmac(key: &[u8; 32], parts: [&[u8]; 2]) -> Secret {
    let mut mac = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key)
        .expect("HMAC takes keys of any length");
    Update::update(&mut mac, parts[0]);
    Update::update(&mut mac, parts[1]);
    Zeroizing::new(mac.finalize_fixed().into())
}

/// Noise's HKDF: as many secrets as one is asked for.
fn derive<const N: usize>(chain: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let extracted = hmac(chain, [input, &[]]);
    let mut last = Secret::default();
    let mut count = 0;
    std::array::from_fn(|at| {
        count += 1;
        let before: &[u8] = if at == 0 { &[] } else { &*last };
        last = hmac(&extracted, [before, &[count]]);
        last.clone()
    })
}

impl Transcript {
    /// Before the first message to `responder`.
    pub(super) fn new(responder: &[u8; 32]) -> Self {
        let chain = hash([CONSTRUCTION, &[]]);
        let prologue = hash([&chain, IDENTIFIER]);
        Self {
            chain: Zeroizing::new(chain),
            hash: hash([&prologue, responder]),
        }
    }

    /// Takes in what stands in a message.
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash([&self.hash, data]);
    }

    /// Takes in an ephemeral key, which stands in a message; with a pre-shared key it is mixed as well.
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        let [chain] = derive(&self.chain, public);
        self.chain = chain;
    }

    /// Takes in a shared secret; the key of what is sealed next comes out.
    pub(super) fn mix_key(&mut self, shared: &[u8; 32]) -> Secret {
        let [chain, key] = derive(&self.chain, shared);
        self.chain = chain;
        key
    }

    /// Takes in the pre-shared key.
    pub(super) fn mix_preshared(&mut self, preshared: &[u8; 32]) -> Secret {
        let [chain, said, key] = derive(&self.chain, preshared);
        self.chain = chain;
        self.mix_hash(&*said);
        key
    }

    /// Seals a field of a message behind `out`.
    pub(super) fn seal(&mut self, key: &Secret, field: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(field);
        let tag = ChaCha20Poly1305::new((&**key).into())
            .encrypt_in_place_detached(&Nonce::default(), &self.hash, &mut out[start..])
            .expect("a field is shorter than the cipher's limit");
        out.extend_from_slice(&tag);
        self.mix_hash(&out[start..]);
    }

    /// Opens a field of a message, whose tag stands behind it.
    pub(super) fn open<const N: usize>(&mut self, key: &Secret, sealed: &[u8]) -> Option<[u8; N]> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let mut field: [u8; N] = text.try_into().ok()?;
        ChaCha20Poly1305::new((&**key).into())
            .decrypt_in_place_detached(
                &Nonce::default(),
                &self.hash,
                &mut field,
                Tag::from_slice(tag),
            )
            .ok()?;
        self.mix_hash(sealed);
        Some(field)
    }

    /// The keys of the session: of what the initiator sends, and of what the responder sends.
    pub(super) fn split(&self) -> [Secret; 2] {
        derive(&self.chain, &[])
    }
}

impl Clone for Transcript {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            hash: self.hash,
        }
    }
}
