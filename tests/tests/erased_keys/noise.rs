//! WireGuard's handshake (whitepaper, section 5.4) from the initiator's side, which tells the keys it leads to. It
//! shares no code with the product.

use anyhow::{Context as _, Result, anyhow, ensure};
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use hmac::{Mac as _, SimpleHmac};
use std::time::{SystemTime, UNIX_EPOCH};
use x25519_dalek::{PublicKey, StaticSecret};

/// 32 bytes that are a key or become one.
pub(crate) type Secret = [u8; 32];

/// TAI64 of the Unix epoch.
const TAI: u64 = (1 << 62) + 10;
const TAG: usize = 16;

/// What a handshake leads to, seen from the node: every secret that it held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    /// For what the node sends.
    pub(crate) sending: Secret,
    /// For what it receives.
    pub(crate) receiving: Secret,
    /// What both came out of.
    pub(crate) chain: Secret,
    node: u32,
}

/// A handshake that waits for its answer.
pub(crate) struct Initiator {
    private: StaticSecret,
    ephemeral: StaticSecret,
    index: u32,
    chain: Secret,
    hash: Secret,
}

fn hash(parts: &[&[u8]]) -> Secret {
    let hash = parts
        .iter()
        .fold(Blake2s256::new(), |hash, part| hash.chain_update(part));
    hash.finalize().into()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Result<Secret> {
    let mut mac = <SimpleHmac<Blake2s256> as hmac::Mac>::new_from_slice(key)?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac.finalize().into_bytes().into())
}

/// Noise's HKDF.
fn derive<const N: usize>(chain: &Secret, input: &[u8]) -> Result<[Secret; N]> {
    let extracted = hmac(chain, &[input])?;
    let (mut out, mut last) = ([[0; 32]; N], Vec::new());
    for (secret, number) in out.iter_mut().zip(1_u8..) {
        *secret = hmac(&extracted, &[&last, &[number]])?;
        last = secret.to_vec();
    }
    Ok(out)
}

impl Initiator {
    /// Writes an initiation from `private` to the node with key `node`. `random` becomes the ephemeral key, `index` ours.
    pub(crate) fn begin(
        private: Secret,
        node: Secret,
        random: Secret,
        index: u32,
    ) -> Result<(Self, Vec<u8>)> {
        let node = PublicKey::from(node);
        let mut own = Self {
            private: private.into(),
            ephemeral: random.into(),
            index,
            chain: hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]),
            hash: [0; 32],
        };
        own.hash = hash(&[&own.chain, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
        own.mix_hash(node.as_bytes());
        let mut message = vec![1, 0, 0, 0];
        message.extend_from_slice(&index.to_le_bytes());
        let ephemeral = PublicKey::from(&own.ephemeral);
        message.extend_from_slice(ephemeral.as_bytes());
        own.mix_ephemeral(&ephemeral)?;
        let public = PublicKey::from(&own.private);
        let shared = own.ephemeral.diffie_hellman(&node);
        own.seal(shared.as_bytes(), public.as_bytes(), &mut message)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut stamp = (TAI + since.as_secs()).to_be_bytes().to_vec();
        stamp.extend_from_slice(&since.subsec_nanos().to_be_bytes());
        let shared = own.private.diffie_hellman(&node);
        own.seal(shared.as_bytes(), &stamp, &mut message)?;
        let key = hash(&[b"mac1----", node.as_bytes()]);
        let mut mac = <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(&key)?;
        blake2::digest::Mac::update(&mut mac, &message);
        message.extend_from_slice(&blake2::digest::Mac::finalize(mac).into_bytes());
        message.extend_from_slice(&[0; 16]);
        Ok((own, message))
    }

    /// Reads the answer.
    pub(crate) fn finish(mut self, answer: &[u8], preshared: &Secret) -> Result<Keys> {
        ensure!(
            answer.len() == 92 && answer[0] == 2,
            "no answer: {answer:x?}"
        );
        ensure!(
            answer[8..12] == self.index.to_le_bytes(),
            "an answer to somebody else"
        );
        let ephemeral = PublicKey::from(<[u8; 32]>::try_from(&answer[12..44])?);
        self.mix_ephemeral(&ephemeral)?;
        for own in [self.ephemeral.clone(), self.private.clone()] {
            let [chain] = derive(&self.chain, own.diffie_hellman(&ephemeral).as_bytes())?;
            self.chain = chain;
        }
        let [chain, said, key] = derive(&self.chain, preshared)?;
        self.chain = chain;
        self.mix_hash(&said);
        ChaCha20Poly1305::new(&key.into())
            .decrypt_in_place_detached(
                &Nonce::default(),
                &self.hash,
                &mut [],
                Tag::from_slice(&answer[44..60]),
            )
            .map_err(|_| anyhow!("the answer does not verify"))?;
        let [receiving, sending] = derive(&self.chain, &[])?;
        let node = <[u8; 4]>::try_from(&answer[4..8]).context("index")?;
        Ok(Keys {
            sending,
            receiving,
            chain: self.chain,
            node: u32::from_le_bytes(node),
        })
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_ephemeral(&mut self, key: &PublicKey) -> Result<()> {
        self.mix_hash(key.as_bytes());
        let [chain] = derive(&self.chain, key.as_bytes())?;
        self.chain = chain;
        Ok(())
    }

    /// Mixes a shared secret in, and seals a field under the key that comes out.
    fn seal(&mut self, shared: &[u8], field: &[u8], message: &mut Vec<u8>) -> Result<()> {
        let [chain, key] = derive(&self.chain, shared)?;
        self.chain = chain;
        let mut sealed = field.to_vec();
        let tag = ChaCha20Poly1305::new(&key.into())
            .encrypt_in_place_detached(&Nonce::default(), &self.hash, &mut sealed)
            .map_err(|_| anyhow!("a field is too long"))?;
        sealed.extend_from_slice(&tag);
        self.mix_hash(&sealed);
        message.extend_from_slice(&sealed);
        Ok(())
    }
}

impl Keys {
    /// The first message of the session: it carries nothing, and shows the node that we have the keys.
    pub(crate) fn keepalive(&self) -> Result<Vec<u8>> {
        let mut message = vec![4, 0, 0, 0];
        message.extend_from_slice(&self.node.to_le_bytes());
        message.extend_from_slice(&0_u64.to_le_bytes());
        let tag: [u8; TAG] = ChaCha20Poly1305::new(&self.receiving.into())
            .encrypt_in_place_detached(&Nonce::default(), &[], &mut [])
            .map_err(|_| anyhow!("nothing is too long"))?
            .into();
        message.extend_from_slice(&tag);
        Ok(message)
    }
}
