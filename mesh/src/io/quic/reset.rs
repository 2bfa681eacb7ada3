//! How peers of a process that was killed learn that it is gone (RFC 9000, section 10.3).

use blake2::Blake2sMac256;
use blake2::digest::Mac as _;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// For an endpoint whose tokens are the same after a restart: they are made by a key that lasts.
pub(super) fn config_by(key: Zeroizing<[u8; 32]>) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Makes the tokens.
struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> Blake2sMac256 {
        let mac = Blake2sMac256::new_from_slice(&*self.0).expect("BLAKE2s takes keys of 32 bytes");
        mac.chain_update(data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = self.mac(data).finalize().into_bytes();
        signature_out.copy_from_slice(&signature);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let verified = self.mac(data).verify_slice(signature);
        verified.map_err(|_| CryptoError)
    }
}

/// Connection IDs that any process may have made: one that it does not know is answered by a reset, while what quinn
/// makes by itself would be taken for garbage.
struct RandomIds;

/// Too many to guess, and never two alike.
const ID_LENGTH: usize = 12;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LENGTH];
        getrandom::fill(&mut id).expect("the system has random numbers");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
