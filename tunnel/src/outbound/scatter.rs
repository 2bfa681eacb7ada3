//! Where the next frame is read to: if it is of the shape of those before it, its payload is where it is sealed from,
//! and only headers are written around it.

use super::padded;
use crate::batch::Batch;
use crate::overlay;
use crate::segment::{ETHERNET_LEN, Segments};
use crate::virtio;
use std::io::IoSliceMut;

/// Bytes of the longest packet.
const MAX_PACKET: usize = 65_536;

/// Segments that have a place of their own. With smaller segments than 1,024 bytes a frame has more; it is copied.
const SLOTS: usize = 64;

/// Offload header, Ethernet header, slots, and whatever is behind them.
const PARTS: usize = SLOTS + 3;

/// The beginning of a packet in which its headers are: IPv4 and TCP have 120 bytes at most.
const BEGINNING: usize = 128;

/// Segments shorter than this are not worth a place of their own.
const MIN_SIZE: usize = 256;

/// Frames of one packet until super-frames are expected no more: each empty slot costs the kernel a little.
const PATIENCE: u32 = 32;

/// How super-frames fall apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Bytes of the headers that each segment repeats.
    headers: usize,
    /// Bytes of payload behind them.
    size: usize,
}

/// How the next frame is expected to be.
#[derive(Debug, Default)]
pub(super) struct Scatter {
    shape: Option<Shape>,
    /// Frames since the last super-frame.
    singles: u32,
    /// What did not fit into the slots.
    spill: Vec<u8>,
    /// A frame put together.
    frame: Vec<u8>,
}

/// A frame that was read, and where its parts are.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) header: virtio::Header,
    pub(super) ethernet: [u8; ETHERNET_LEN],
    /// Bytes behind the Ethernet header.
    pub(super) length: usize,
    beginning: [u8; BEGINNING],
    shape: Option<Shape>,
    /// Of the first slot, in the bytes of the batch.
    start: usize,
}

impl Shape {
    fn stride(self) -> usize {
        padded(overlay::LEN + self.headers + self.size)
    }

    fn slots(self) -> usize {
        MAX_PACKET.div_ceil(self.size).min(SLOTS)
    }

    /// Bytes that are read in one piece: the first packet.
    fn first(self) -> usize {
        self.headers + self.size
    }
}

impl Scatter {
    /// Reads a frame behind the packets of a batch; `None` if it is too short to be one.
    pub(super) fn read<E>(
        &mut self,
        batch: &mut Batch<()>,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, E>,
    ) -> Result<Option<Found>, E> {
        let (mut header, mut ethernet) = ([0; virtio::LEN], [0; ETHERNET_LEN]);
        let start = batch.end();
        self.spill.resize(MAX_PACKET, 0);
        let mut parts: [IoSliceMut<'_>; PARTS] =
            std::array::from_fn(|_| IoSliceMut::new(Default::default()));
        parts[0] = IoSliceMut::new(&mut header);
        parts[1] = IoSliceMut::new(&mut ethernet);
        let mut count = 2;
        match self.shape {
            Some(shape) => {
                let skipped = overlay::LEN + shape.headers;
                let room = batch.room(start, shape.stride() * shape.slots());
                for (at, slot) in room.chunks_exact_mut(shape.stride()).enumerate() {
                    let from = if at == 0 { overlay::LEN } else { skipped };
                    parts[count] = IoSliceMut::new(&mut slot[from..skipped + shape.size]);
                    count += 1;
                }
                parts[count] = IoSliceMut::new(&mut self.spill);
            }
            None => {
                let room = batch.room(start, padded(overlay::LEN + MAX_PACKET));
                parts[count] = IoSliceMut::new(&mut room[overlay::LEN..][..MAX_PACKET]);
            }
        }
        let read = read(&mut parts[..=count])?;
        let Some(length) = read.checked_sub(virtio::LEN + ETHERNET_LEN) else {
            return Ok(None);
        };
        let header = virtio::Header::parse(&header);
        let mut found = Found {
            header,
            ethernet,
            length,
            beginning: [0; BEGINNING],
            shape: self.shape,
            start,
        };
        let known = found.beginning_length();
        let packet = &batch.bytes_mut()[start + overlay::LEN..];
        found.beginning[..known].copy_from_slice(&packet[..known]);
        self.note(header);
        Ok(Some(found))
    }

    fn note(&mut self, header: virtio::Header) {
        if header.gso_type != 0 {
            self.singles = 0;
        } else if self.shape.is_some() {
            self.singles += 1;
            if self.singles >= PATIENCE {
                self.shape = None;
            }
        }
    }

    /// Expects the next frames to be like this one.
    pub(super) fn expect(&mut self, segments: &Segments<'_>) {
        let shape = Shape {
            headers: segments.headers(),
            size: segments.size(),
        };
        if shape.size >= MIN_SIZE && shape.headers <= BEGINNING {
            self.shape = Some(shape);
            self.singles = 0;
        }
    }

    /// Puts a frame together that is not where it should be. [`Self::give_back`] takes the room again.
    pub(super) fn gather(&mut self, batch: &Batch<()>, found: &Found) -> Vec<u8> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.extend_from_slice(&found.ethernet);
        let (bytes, _) = batch.runs();
        let mut left = found.length;
        let mut take = |part: &[u8]| {
            let count = part.len().min(left);
            frame.extend_from_slice(&part[..count]);
            left -= count;
        };
        let room = &bytes[found.start..];
        match found.shape {
            Some(shape) => {
                let skipped = overlay::LEN + shape.headers;
                for (at, slot) in room
                    .chunks_exact(shape.stride())
                    .take(shape.slots())
                    .enumerate()
                {
                    let from = if at == 0 { overlay::LEN } else { skipped };
                    take(&slot[from..skipped + shape.size]);
                }
                take(&self.spill);
            }
            None => take(&room[overlay::LEN..]),
        }
        frame
    }

    pub(super) fn give_back(&mut self, frame: Vec<u8>) {
        self.frame = frame;
    }
}

impl Found {
    fn beginning_length(&self) -> usize {
        let first = self.shape.map_or(MAX_PACKET, Shape::first);
        self.length.min(first).min(BEGINNING)
    }

    /// The beginning of the packet: its headers, unless they are very long.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.beginning[..self.beginning_length()]
    }

    /// Where the plaintext of packet `at` begins.
    pub(super) fn slot(&self, at: usize) -> usize {
        self.start + at * self.shape.map_or(0, Shape::stride)
    }

    /// Whether every packet of the frame stands where its plaintext is to be.
    pub(super) fn is_in_place(&self, segments: &Segments<'_>) -> bool {
        let shape = Shape {
            headers: segments.headers(),
            size: segments.size(),
        };
        match self.shape {
            _ if shape.size == 0 => self.length <= self.shape.map_or(MAX_PACKET, Shape::first),
            Some(expected) => shape == expected && segments.count() <= expected.slots(),
            None => false,
        }
    }
}
