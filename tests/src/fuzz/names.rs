//! Keys, nodes, clusters, digests and identities as text.

use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::{PresharedKey, PrivateKey, PublicKey};
use hawser_tunnel::node::{ClusterId, NodeId, NodeIndex};
use hawser_tunnel::state::Digest;
use hawser_tunnel::vni::Vni;

use super::source::Source;

/// Target: any text under each name; what is taken is written in one form, which is read as the same.
pub(super) fn text(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string(), text, "a key has one form");
        assert_eq!(PublicKey::new(*key.as_bytes()), key);
    }
    if let Ok(key) = PresharedKey::from_base64(&text) {
        let json = serde_json::to_string(&key).expect("a key is JSON");
        assert_eq!(json, format!("\"{}\"", text.trim()));
        assert_eq!(
            serde_json::from_str::<PresharedKey>(&json).expect("a key"),
            key
        );
        assert_eq!(format!("{key:?}"), "PresharedKey(redacted)");
    }
    if let Ok(key) = PrivateKey::from_base64(&text) {
        assert_eq!(*key.to_base64(), *text.trim());
    }
    if let Ok(digest) = Digest::try_from(text.clone().into_owned()) {
        assert_eq!(
            digest.to_string(),
            text.to_ascii_lowercase(),
            "64 hexadecimal digits"
        );
    }
    match text.parse::<NodeId>() {
        Ok(id) => {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(NodeId::from_overlay_address(id.overlay_address()), Some(id));
        }
        Err(error) => assert!(error.to_string().contains("must be ")),
    }
    numbers(input);
}

fn numbers(input: &[u8]) {
    let mut source = Source::new(input);
    let word: u16 = source.any();
    assert_eq!(ClusterId::new(word).is_ok(), (1..=2047).contains(&word));
    assert_eq!(NodeIndex::new(word).is_ok(), (1..=65534).contains(&word));
    let number: u32 = source.any();
    assert_eq!(
        Identity::new(number).map(u32::from).ok(),
        Some(number).filter(|&n| n > 0 && n >> 28 == 0)
    );
    assert_eq!(
        Vni::new(number).map(u32::from).ok(),
        Some(number).filter(|&n| n >> 24 == 0)
    );
    let address = std::net::Ipv4Addr::from(number);
    if let Some(id) = NodeId::from_overlay_address(address) {
        assert_eq!(id.overlay_address(), address);
    }
}
