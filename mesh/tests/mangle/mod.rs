//! Bytes that are nearly right.

use std::fs;

/// Numbers that come out the same each time (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next().to_le_bytes()[7]).collect()
    }
}

/// What differs from `good`: in a bit, in a part that is gone, new or another, in its end, or in everything.
pub(crate) fn mangled(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    loop {
        let mut bytes = good.to_vec();
        let at = dice.below(bytes.len());
        let end = at + dice.below(bytes.len() - at + 1).min(64);
        match dice.below(7) {
            0 | 1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..end, dice.bytes(64))),
            5 => drop(bytes.splice(at..at, dice.bytes(64))),
            _ => bytes = dice.bytes(2_000),
        }
        if bytes != good {
            return bytes;
        }
    }
}

/// Bytes that a process has resident.
pub(crate) fn resident(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kibibytes << 10
}
