//! A WireGuard key of this node's own, and what depends on it alone.

use crate::cookie::Cookies;
use crate::key::{OwnKeys, PrivateKey, PublicKey};
use crate::wireguard::Mac1;
use std::sync::{Arc, Mutex};

/// One key. Pairs of lanes share it with the device; it is wiped when the last of them lets go.
#[derive(Debug)]
pub(crate) struct OwnKey {
    pub(crate) private: PrivateKey,
    pub(crate) public: PublicKey,
    pub(crate) mac1: Mac1,
    pub(crate) cookies: Mutex<Cookies>,
}

impl OwnKey {
    pub(crate) fn new(private: PrivateKey) -> Self {
        let public = private.public();
        Self {
            mac1: Mac1::new(&public),
            cookies: Mutex::new(Cookies::new(&public)),
            public,
            private,
        }
    }
}

/// The keys by which one of this node's lanes can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Generations {
    /// The one that new pairs are made with.
    pub(crate) newest: Arc<OwnKey>,
    /// The one whose place it takes, as long as there may be peers that know no other.
    pub(crate) older: Option<Arc<OwnKey>>,
}

impl Generations {
    pub(crate) fn new(keys: OwnKeys) -> Self {
        let own = |private| Arc::new(OwnKey::new(private));
        Self {
            newest: own(keys.newest),
            older: keys.older.map(own),
        }
    }

    /// The key that a handshake message was made for.
    pub(crate) fn addressed(&self, message: &[u8]) -> Option<&Arc<OwnKey>> {
        let mut all = std::iter::once(&self.newest).chain(&self.older);
        all.find(|key| key.mac1.verify(message))
    }

    /// Whether this is the key whose place another takes.
    pub(crate) fn is_older(&self, key: &OwnKey) -> bool {
        let older = self.older.as_ref();
        older.is_some_and(|older| older.public == key.public)
    }

    /// Whether this key is in use at all.
    pub(crate) fn has(&self, key: &OwnKey) -> bool {
        self.newest.public == key.public || self.is_older(key)
    }
}
