//! Packets in bulk: what moves between the kernel and the cipher, without an allocation a packet.

use std::net::SocketAddr;
use std::ops::Range;

/// Packets one after the other in one buffer, with something known of each.
#[derive(Debug)]
pub struct Batch<T> {
    bytes: Vec<u8>,
    entries: Vec<(Range<usize>, T)>,
    /// Bytes of all packets.
    total: usize,
}

/// Datagrams, each with the address that it goes to.
pub type Datagrams = Batch<SocketAddr>;

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            entries: Vec::new(),
            total: 0,
        }
    }
}

impl<T> Batch<T> {
    /// An empty batch with room for `bytes` bytes in `packets` packets.
    pub fn with_capacity(bytes: usize, packets: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(packets),
            total: 0,
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
        let start = self.end();
        let (used, entry) = write(self.room(start, length))?;
        debug_assert!(used <= length, "wrote past its room");
        self.keep(start..start + used, entry);
        Ok(())
    }

    /// Where the next packet is appended: one past the last byte of the last one.
    pub fn end(&self) -> usize {
        self.entries.last().map_or(0, |(range, _)| range.end)
    }

    /// The bytes from `start` on, to write packets into that [`Self::keep`] then appends. Not cleared.
    pub fn room(&mut self, start: usize, length: usize) -> &mut [u8] {
        let end = start + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[start..end]
    }

    /// Appends a packet that stands in the bytes already, behind all others.
    pub fn keep(&mut self, range: Range<usize>, entry: T) {
        debug_assert!(
            self.end() <= range.start && range.end <= self.bytes.len(),
            "out of order"
        );
        self.total += range.len();
        self.entries.push((range, entry));
    }

    /// All bytes, in which the ranges of [`Self::entry`] are.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Where one packet stands, and what is known of it.
    pub fn entry(&self, at: usize) -> Option<&(Range<usize>, T)> {
        self.entries.get(at)
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

    /// All bytes, and where each packet stands in them.
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
        self.total
    }

    /// Forgets all packets and keeps the room.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.total = 0;
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
        assert_eq!((batch.end(), batch.bytes()), (0, 0));
    }

    #[test]
    fn packets_written_in_place_may_leave_gaps() {
        let mut batch = Batch::default();
        batch.push(b"one", 1);
        let start = batch.end();
        batch.room(start, 20)[10..13].copy_from_slice(b"two");
        batch.keep(start + 10..start + 13, 2);
        batch.push(b"three", 3);
        let packets: Vec<&[u8]> = batch.iter().map(|(packet, _)| packet).collect();
        assert_eq!(packets, [&b"one"[..], b"two", b"three"]);
        assert_eq!((batch.bytes(), batch.end()), (11, 21));
        assert_eq!(batch.entry(1), Some(&(13..16, 2)));
    }
}
