//! The Geneve virtual network identifier.

use serde::{Deserialize, Serialize};

/// A 24-bit virtual network identifier (RFC 8926, section 3.4). Every clusterset has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// A number that does not fit the 24 bits of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vni {0}: must be 0 to 16777215 (24 bits)")]
pub struct VniOutOfRange(pub u32);

impl Vni {
    /// The network of a clusterset that did not choose another.
    pub const DEFAULT: Self = Self(1);
    /// The largest value of the field.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Checks the 24-bit range.
    pub fn new(value: u32) -> Result<Self, VniOutOfRange> {
        if value > Self::MAX {
            return Err(VniOutOfRange(value));
        }
        Ok(Self(value))
    }

    /// The three bytes as they stand in the header, big endian.
    pub fn to_be_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Reads the three bytes of the header; every value is legal.
    pub fn from_be_bytes([a, b, c]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, a, b, c]))
    }
}

impl Default for Vni {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniOutOfRange;
    fn try_from(value: u32) -> Result<Self, VniOutOfRange> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_four_bits_and_not_one_more() {
        assert_eq!(Vni::new(0x00ff_ffff).map(u32::from), Ok(0x00ff_ffff));
        assert_eq!(Vni::new(0x0100_0000), Err(VniOutOfRange(0x0100_0000)));
        assert_eq!(Vni::from_be_bytes([1, 2, 3]).to_be_bytes(), [1, 2, 3]);
    }
}
