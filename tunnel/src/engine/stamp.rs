//! The stamps of initiations, TAI64N (whitepaper, section 5.1): a peer answers only to one that is newer than all that it
//! has seen, or somebody could repeat an old initiation.

use super::handshake::Stamp;
use std::time::Duration;

/// What TAI64 calls the first second of 1970, in the leap seconds of today. Others take 10 s for 37 s: each compares only
/// stamps of one peer.
const EPOCH: u64 = (1 << 62) + 37;

/// The stamps of our own initiations.
#[derive(Clone, Copy, Default)]
pub(super) struct Stamps {
    last: Duration,
}

impl Stamps {
    /// The stamp of an initiation `since_epoch`; later than the one before also where the clock was set back.
    pub(super) fn next(&mut self, since_epoch: Duration) -> Stamp {
        self.last = since_epoch.max(self.last + Duration::from_nanos(1));
        let mut stamp = Stamp::default();
        let (seconds, nanoseconds) = stamp.split_at_mut(8);
        seconds.copy_from_slice(&EPOCH.saturating_add(self.last.as_secs()).to_be_bytes());
        nanoseconds.copy_from_slice(&self.last.subsec_nanos().to_be_bytes());
        stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_whatever_the_clock_does() {
        let mut stamps = Stamps::default();
        let mut last = Stamp::default();
        for nanoseconds in [
            1_700_000_000_999_999_999_u64,
            1_700_000_000_999_999_999,
            1_600_000_000_000_000_000,
            1_700_000_002_000_000_000,
            0,
            1_700_000_003_000_000_000,
        ] {
            let stamp = stamps.next(Duration::from_nanos(nanoseconds));
            assert!(stamp > last, "{stamp:?} after {last:?}");
            last = stamp;
        }
        let expected = hex_literal::hex!("40000000 6553f128 00000000");
        assert_eq!(last, expected, "1,700,000,003 s and 37 s");
    }
}
