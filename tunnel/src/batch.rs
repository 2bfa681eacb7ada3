//! Packets in bulk: what moves between the kernel and the cipher, without an allocation a packet.

use std::net::SocketAddr;
use std::ops::Range;

/// Packets one after the other in one buffer, with something known of each.
#[derive(Debug)]
pub struct Batch<T> {
    bytes: Vec<u8>,
    entries: Vec<(Range<usize>, T)>,
}

/// Datagrams, each with the address that it goes to.
pub type Datagrams = Batch<SocketAddr>;

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            entries: Vec::new(),
        }
    }
}

impl<T> Batch<T> {
    /// An empty batch with room for `bytes` bytes in `packets` packets.
    pub fn with_capacity(bytes: usize, packets: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(packets),
        }
    }

    /// Appends one packet of `length` bytes at most, which `write` fills; it returns how many bytes
    /// it used and what is known of them, or an error, after which nothing was appended.
    ///
    /// The room is not cleared: `write` sees what an earlier packet left.
    pub fn push_with<E>(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(usize, T), E>,
    ) -> Result<(), E> {
        let start = self.entries.last().map_or(0, |(range, _)| range.end);
        let end = start + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let (used, entry) = write(&mut self.bytes[start..end])?;
        debug_assert!(used <= length, "wrote past its room");
        self.entries.push((start..start + used, entry));
        Ok(())
    }

    /// Appends a copy.
    pub fn push(&mut self, packet: &[u8], entry: T) {
        let copied = self.push_with(packet.len(), |room| {
            room.copy_from_slice(packet);
            Ok::<_, std::convert::Infallible>((packet.len(), entry))
        });
        match copied {
            Ok(()) => {}
        }
    }

    /// The packets in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &T)> {
        self.entries
            .iter()
            .map(|(range, entry)| (&self.bytes[range.clone()], entry))
    }

    /// The packets from one on, as one run of bytes, and their entries with the length of each.
    pub fn runs(&self) -> (&[u8], &[(Range<usize>, T)]) {
        (&self.bytes, &self.entries)
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.entries.last().map_or(0, |(range, _)| range.end)
    }

    /// Forgets all packets and keeps the room.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_stand_one_after_the_other() {
        let mut batch = Batch::default();
        batch.push(b"one", 1);
        let refused = batch.push_with(100, |_| Err::<(usize, i32), _>("no"));
        assert_eq!(refused, Err("no"));
        batch
            .push_with(10, |room| {
                room[..3].copy_from_slice(b"two");
                Ok::<_, ()>((3, 2))
            })
            .unwrap();
        let packets: Vec<_> = batch
            .iter()
            .map(|(packet, &entry)| (packet.to_vec(), entry))
            .collect();
        assert_eq!(packets, [(b"one".to_vec(), 1), (b"two".to_vec(), 2)]);
        assert_eq!((batch.len(), batch.bytes()), (2, 6));
        batch.clear();
        assert!(batch.is_empty());
    }
}
