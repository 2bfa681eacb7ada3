//! Replicas that talk to each other, in one thread and on virtual time.

mod laws;
mod quotas;
mod rejects;
mod sync;

use super::*;
use crate::record::Prefix;
use crate::wire::{Body, Hello};
use std::collections::VecDeque;
use std::time::Duration;

const HUB: usize = 0;

fn cluster(number: u16) -> ClusterId {
    ClusterId::new(number).unwrap()
}

fn agent() -> Audience {
    Audience::OwnAgent {
        node: NodeIndex::new(7).unwrap(),
    }
}

fn key(text: &str) -> Key {
    Key::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

/// All keys of these tests begin with one of these.
fn all() -> Filter {
    Filter::new([prefix("a"), prefix("b"), prefix("\x01"), prefix("\x04")])
}

fn set(name: &str, value: &str) -> (Key, Option<Bytes>) {
    (key(name), Some(Bytes::copy_from_slice(value.as_bytes())))
}

fn unset(name: &str) -> (Key, Option<Bytes>) {
    (key(name), None)
}

/// A session between two replicas, with what is on its way.
struct Wire {
    publisher: usize,
    subscriber: usize,
    /// To the publisher, to the subscriber; each stream in order.
    queues: [[VecDeque<Bytes>; 2]; 2],
}

/// Some replicas, sessions between them, a clock.
struct World {
    replicas: Vec<Replica>,
    wires: BTreeMap<SessionId, Wire>,
    events: Vec<Vec<Event>>,
    now: Instant,
    next: SessionId,
    /// Bytes of all messages so far.
    bytes: usize,
    rejects: Vec<Reject>,
}

impl World {
    /// The first replica owns cluster 1, the others own nothing.
    fn new(replicas: usize) -> Self {
        let replica = |_| Replica::new(Limits::default(), Box::new(AdmitAll));
        let mut world = Self {
            replicas: (0..replicas).map(replica).collect(),
            wires: BTreeMap::new(),
            events: vec![Vec::new(); replicas],
            now: Instant::now(),
            next: 1,
            bytes: 0,
            rejects: Vec::new(),
        };
        world.replicas[HUB].own(cluster(1), Version::new(1, 0));
        world
    }

    fn connect(
        &mut self,
        subscriber: usize,
        publisher: usize,
        wanted: Wanted,
        filter: Filter,
    ) -> SessionId {
        let id = self.next;
        self.next += 1;
        let to = match wanted {
            Wanted::All => agent(),
            Wanted::One(_) => Audience::OtherHub {
                cluster: cluster(99),
            },
        };
        self.replicas[publisher].publish(id, to);
        self.replicas[subscriber].subscribe(id, wanted, filter, self.now);
        let wire = Wire {
            publisher,
            subscriber,
            queues: Default::default(),
        };
        self.wires.insert(id, wire);
        id
    }

    fn follow(&mut self, subscriber: usize, publisher: usize) -> SessionId {
        self.connect(subscriber, publisher, Wanted::All, all())
    }

    fn cut(&mut self, id: SessionId) {
        if let Some(wire) = self.wires.remove(&id) {
            self.replicas[wire.publisher].close(id);
            self.replicas[wire.subscriber].close(id);
        }
    }

    /// All that replicas have to say goes onto the wires.
    fn collect(&mut self) {
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            replica.handle_timeout(self.now);
            while let Some(transmit) = replica.poll_transmit(self.now) {
                self.bytes += transmit.bytes.len();
                if let Some(wire) = self.wires.get_mut(&transmit.session) {
                    let to_subscriber = usize::from(wire.publisher == index);
                    wire.queues[to_subscriber][transmit.stream.index()].push_back(transmit.bytes);
                }
            }
            while let Some(event) = replica.poll_event() {
                self.events[index].push(event);
            }
        }
    }

    /// Delivers the oldest message of one queue. Returns whether there was one.
    fn deliver(&mut self, id: SessionId, to_subscriber: usize, stream: Stream) -> bool {
        let Some(wire) = self.wires.get_mut(&id) else {
            return false;
        };
        let Some(bytes) = wire.queues[to_subscriber][stream.index()].pop_front() else {
            return false;
        };
        let to = [wire.publisher, wire.subscriber][to_subscriber];
        if let Err(reject) = self.replicas[to].handle_message(id, stream, bytes, self.now) {
            self.rejects.push(reject);
            self.cut(id);
        }
        self.collect();
        true
    }

    /// Delivers until nothing is on its way.
    fn settle(&mut self) {
        self.collect();
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for id in self.wires.keys().copied().collect::<Vec<_>>() {
                for (side, stream) in [
                    (0, Stream::Changes),
                    (1, Stream::Changes),
                    (0, Stream::Bulk),
                    (1, Stream::Bulk),
                ] {
                    moved |= self.deliver(id, side, stream);
                }
            }
        }
    }

    /// Time passes, timer by timer.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let due = self.replicas.iter().filter_map(Replica::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
        }
        self.now = end;
        self.settle();
    }

    fn write(&mut self, revision: u64, changes: impl IntoIterator<Item = (Key, Option<Bytes>)>) {
        assert!(self.replicas[HUB].write(Revision(revision), changes));
    }

    fn records(&self, replica: usize, origin: u16) -> BTreeMap<Key, Bytes> {
        let store = self.replicas[replica].store(cluster(origin));
        let records = store.into_iter().flat_map(Store::records);
        records.map(|(_, key, value)| (key, value)).collect()
    }

    fn assert_same(&self, replica: usize) {
        let (ours, theirs) = (self.records(HUB, 1), self.records(replica, 1));
        assert_eq!(ours, theirs);
        let digest = |index: usize| self.replicas[index].store(cluster(1)).unwrap().digest();
        assert_eq!(digest(HUB), digest(replica));
        assert_eq!(self.rejects, []);
    }

    fn take_bytes(&mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }

    fn take_events(&mut self, replica: usize) -> Vec<Event> {
        let is_record = |event: &Event| !matches!(event, Event::Reached { .. });
        let events = std::mem::take(&mut self.events[replica]);
        events.into_iter().filter(is_record).collect()
    }
}
