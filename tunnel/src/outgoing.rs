//! Messages on their way out, by the lane of this node whose socket sends them.

use crate::batch::Datagrams;
use crate::lane::LaneNumber;
use std::net::SocketAddr;

/// Where messages are left, by the lane of this node whose socket sends them.
pub trait ByLane {
    /// Those of one lane.
    fn of(&mut self, lane: LaneNumber) -> &mut Datagrams;
}

/// For a node with one lane: all go the same way.
impl ByLane for Datagrams {
    fn of(&mut self, _: LaneNumber) -> &mut Datagrams {
        self
    }
}

/// Messages of every lane that has some.
#[derive(Debug, Default)]
pub struct PerLane(Vec<(LaneNumber, Datagrams)>);

impl ByLane for PerLane {
    fn of(&mut self, lane: LaneNumber) -> &mut Datagrams {
        // A thread carries for one lane nearly always: the first entry is the one.
        let place = self.0.iter().position(|(number, _)| *number == lane);
        let place = place.unwrap_or_else(|| {
            self.0.push((lane, Datagrams::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

impl PerLane {
    /// Each lane with its messages.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneNumber, &Datagrams)> {
        self.0.iter().map(|(lane, datagrams)| (*lane, datagrams))
    }

    /// The messages of all lanes, each with the address that it goes to.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &SocketAddr)> {
        self.0.iter().flat_map(|(_, datagrams)| datagrams.iter())
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, datagrams)| datagrams.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, datagrams)| datagrams.is_empty())
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, datagrams)| datagrams.bytes()).sum()
    }

    /// Forgets all messages and keeps the room.
    pub fn clear(&mut self) {
        self.0
            .iter_mut()
            .for_each(|(_, datagrams)| datagrams.clear());
    }
}
