//! Why a packet was dropped: one name for code, counter, log and test.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! rejects {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// The named reason of a drop.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reject { $($(#[$doc])+ $variant,)+ }

        impl Reject {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in counters and logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

rejects! {
    // Datagrams from the underlay, before decryption.
    /// Not a WireGuard message: wrong type, reserved bits or length.
    WgMalformed = "wg_malformed",
    /// A handshake message whose first MAC was not made for our key.
    WgMac1 = "wg_mac1",
    /// More handshakes in the name of one source than it may send; it was asked for a cookie, or has
    /// used up what it may send with one. Or more answers to one initiation of ours than are looked at.
    WgSourceLimit = "wg_source_limit",
    /// More handshakes than we take; a cookie went back.
    WgUnderLoad = "wg_under_load",
    /// A handshake by a key that belongs to no peer.
    WgUnknownPeer = "wg_unknown_peer",
    /// A receiver index that no session has.
    WgUnknownIndex = "wg_unknown_index",
    /// A handshake with a peer that must have a pre-shared key, and there is none yet.
    WgNoPresharedKey = "wg_no_preshared_key",
    /// A handshake that does not verify.
    WgHandshake = "wg_handshake",
    /// A handshake initiation that is not newer than the last one.
    WgTimestamp = "wg_timestamp",
    /// A data message that does not decrypt.
    WgDecrypt = "wg_decrypt",
    /// A counter that was seen already, or is too old to tell.
    WgReplay = "wg_replay",
    /// A data message for a session that is gone.
    WgNoSession = "wg_no_session",
    /// A plaintext that is neither empty nor an IP packet.
    WgPlaintext = "wg_plaintext",

    // The overlay packet.
    /// Not a plain IPv4 header that spans the plaintext.
    OverlayMalformed = "overlay_malformed",
    /// The overlay source is not the peer's.
    OverlaySource = "overlay_source",
    /// The overlay destination is not ours.
    OverlayDestination = "overlay_destination",
    /// Not UDP to Geneve's port, or a UDP length that lies.
    OverlayNotGeneve = "overlay_not_geneve",
    /// A fragment that fits no pair.
    OverlayFragment = "overlay_fragment",
    /// The other half of a fragment did not come in time, or too many wait.
    OverlayReassembly = "overlay_reassembly",

    // Geneve.
    /// Shorter than its header says.
    GeneveTruncated = "geneve_truncated",
    /// A version other than 0.
    GeneveVersion = "geneve_version",
    /// A control message that is no probe of ours.
    GeneveControl = "geneve_control",
    /// An option that runs past the options.
    GeneveOptionLength = "geneve_option_length",
    /// An unknown option marked critical.
    GeneveCriticalOption = "geneve_critical_option",
    /// Another network.
    GeneveVni = "geneve_vni",
    /// A payload that is not IPv4 or IPv6.
    GeneveProtocol = "geneve_protocol",
    /// Our option is not there.
    MissingOption = "missing_option",
    /// Our option is there twice.
    OptionTwice = "option_twice",
    /// Our option with another length.
    OptionMalformed = "option_malformed",
    /// The option names another cluster than the peer's.
    OptionCluster = "option_cluster",
    /// A checksum flag on a packet that has no transport checksum to fill.
    OptionFlags = "option_flags",
    /// A reserved identity other than the host's.
    IdentityReserved = "identity_reserved",
    /// An identity that the peer's cluster did not publish.
    IdentityUnpublished = "identity_unpublished",

    /// A reply to a probe that nobody waits for: a second one, one that took seconds, or one from before a restart.
    ProbeStale = "probe_stale",

    // The pod packet, both ways.
    /// Not an IP packet of the length that it says.
    InnerMalformed = "inner_malformed",
    /// A first fragment too short to show its ports.
    InnerTinyFragment = "inner_tiny_fragment",
    /// Geneve inside Geneve.
    NestedGeneve = "nested_geneve",
    /// From a peer that does not own the source address.
    SourceNotOwned = "source_not_owned",
    /// To an address that is not on this node.
    DestinationNotLocal = "destination_not_local",

    // Frames from the kernel.
    /// No frame, or one with an offload header that does not fit it.
    FrameMalformed = "frame_malformed",
    /// Not IPv4 or IPv6.
    FrameNotIp = "frame_not_ip",
    /// To a multicast or link-local address: the kernel's own chatter on the device.
    FrameLinkLocal = "frame_link_local",
    /// From an address that is no local endpoint.
    SourceNotLocal = "source_not_local",
    /// To an address that no peer owns.
    NoPeer = "no_peer",
    /// Larger than the path carries.
    TooBig = "too_big",
    /// The peer never said where it is.
    NoEndpoint = "no_endpoint",
    /// Too many packets wait for a handshake: the oldest went.
    QueueFull = "queue_full",
    /// A packet waited for a handshake so long that nobody wants it any more.
    QueueExpired = "queue_expired",
    /// No pre-shared key came in time for a peer that must have one, or too many packets wait for it.
    NoPresharedKey = "no_preshared_key",
    /// The peer went away while packets waited for a handshake.
    PeerRemoved = "peer_removed",
    /// No state was set yet.
    NoState = "no_state",

    // The kernel's refusals.
    /// The UDP socket refused a datagram.
    UdpSend = "udp_send",
    /// The TAP refused a frame.
    TapWrite = "tap_write",
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Drops by reason. Counts only grow.
#[derive(Debug)]
pub struct Drops([AtomicU64; Reject::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reject::ALL.len()])
    }
}

impl Drops {
    /// Counts one drop.
    pub fn count(&self, reason: Reject) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&self, reason: Reject, count: u64) {
        self.0[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How often a reason was seen.
    pub fn of(&self, reason: Reject) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// All reasons that were seen, by name.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let seen = Reject::ALL
            .iter()
            .map(|&reason| (reason.name().to_owned(), self.of(reason)));
        seen.filter(|&(_, count)| count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_name_and_slot() {
        let names: BTreeSet<_> = Reject::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reject::ALL.len());
        let drops = Drops::default();
        for (at, &reason) in Reject::ALL.iter().enumerate() {
            assert_eq!(reason as usize, at);
            drops.count(reason);
            assert_eq!(drops.of(reason), 1, "{reason}");
        }
    }
}
