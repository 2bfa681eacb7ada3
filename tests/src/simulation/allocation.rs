//! Numbers of nodes and identities, given by writers that crash, whose disk fails, and whose rival may hold that it
//! writes too (I6).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hawser_mesh::hub::allocate::Allocation;
use hawser_mesh::hub::derive::Rules;
use hawser_mesh::hub::journal::Live;
use hawser_mesh::hub::manifest::{Object, ObjectKey, ObjectKind, Pod};
use hawser_mesh::hub::protected::Protected;
use hawser_mesh::hub::writer::{Disk, Existing, NumberKind, Numbers, Writer};
use hawser_mesh::record::{Key, Record};
use hawser_mesh::wire::decode_record;

use super::dice::Dice;
use super::item;
use super::violation::Violation;

/// Things that happen.
const STEPS: u32 = 150;
/// How long a number rests, in seconds.
const REST: u64 = 600;
/// Nodes, and sets of labels, that come and go.
const NAMES: u64 = 6;

/// The state directory: what two replicas share.
struct Directory {
    numbers: Numbers,
    dice: Dice,
    /// So many in a hundred writes fail, before or after they were done.
    fails: u64,
}

impl Directory {
    /// Does something, unless the disk fails.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut Numbers) -> T) -> io::Result<T> {
        if self.dice.percent(self.fails) {
            return Err(io::Error::other("before"));
        }
        let done = act(&mut self.numbers);
        if self.dice.percent(self.fails) {
            return Err(io::Error::other("after"));
        }
        Ok(done)
    }
}

impl Disk for Directory {
    fn create(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<Option<Existing>> {
        self.attempt(|numbers| {
            let existing = numbers.get(&(kind, number)).cloned();
            if existing.is_none() {
                numbers.insert((kind, number), Some(allocation.clone()));
            }
            existing
        })
    }

    fn replace(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<()> {
        self.attempt(|numbers| {
            numbers.insert((kind, number), Some(allocation.clone()));
        })
    }

    fn remove(&mut self, kind: NumberKind, number: u32) -> io::Result<()> {
        self.attempt(|numbers| {
            numbers.remove(&(kind, number));
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.attempt(|_| ())
    }
}

/// Who had a number last, and when that was seen.
#[derive(Debug, Default)]
struct Bearers(BTreeMap<Key, (String, u64)>);

impl Bearers {
    /// Holds a state that was made durable against all before.
    fn see(&mut self, live: &Live, now: u64) -> Result<(), Violation> {
        for (key, (_, value)) in &live.records {
            let Some(bearer) = bearer(key, value) else {
                continue;
            };
            let (before, at) = self
                .0
                .entry(key.clone())
                .or_insert_with(|| (bearer.clone(), now));
            if *before != bearer && now < *at + REST {
                let what = format!("{key}: {before}, and {bearer} {} s later", now - *at);
                return Err(Violation::GivenTwice { what });
            }
            (*before, *at) = (bearer, now);
        }
        Ok(())
    }
}

/// What a number stands for.
fn bearer(key: &Key, value: &Bytes) -> Option<String> {
    match decode_record(key, value).ok()? {
        Record::Node(node) => Some(node.name),
        Record::Identity(identity) => Some(format!("{:?}", identity.labels)),
        Record::Service(_)
        | Record::Endpoint(_)
        | Record::Revocations(_)
        | Record::Authorities(_)
        | Record::Policy(_)
        | Record::Namespace(_)
        | Record::Pod(_)
        | Record::Cluster(_) => None,
    }
}

/// Plays a cluster's allocations.
pub(super) fn play(seed: u64) -> Result<(), Violation> {
    let mut dice = Dice::new(seed, 6);
    let mut directory = Directory {
        numbers: Numbers::new(),
        dice: Dice::new(seed, 7),
        fails: dice.pick(&[0, 0, 5, 20]),
    };
    let mut objects = BTreeMap::new();
    let mut journal = Live::default();
    let mut bearers = Bearers::default();
    let mut now = 1_800_000_000;
    let mut writer = start(&objects, &journal, &directory, now);
    for _ in 0..STEPS {
        now += dice.pick(&[0, 1, 5, 60, 300]);
        match dice.below(10) {
            0 => writer = start(&objects, &journal, &directory, now),
            1 => rival(&mut directory, &mut dice, now),
            _ => {
                let (key, object) = thing(&mut dice);
                let object = dice.percent(55).then_some(object);
                writer.apply(&key, object.as_ref());
                match object {
                    Some(object) => objects.insert(key, object),
                    None => objects.remove(&key),
                };
            }
        }
        if let Ok(Some(frame)) = writer.settle(&mut directory, now) {
            // A writer that dies here has told nobody.
            if dice.percent(5) {
                writer = start(&objects, &journal, &directory, now);
                continue;
            }
            journal.apply(&frame);
        }
        bearers.see(&journal, now)?;
        held(&journal, &directory)?;
    }
    Ok(())
}

/// A process begins to write.
fn start(
    objects: &BTreeMap<ObjectKey, Object>,
    journal: &Live,
    directory: &Directory,
    now: u64,
) -> Writer {
    let rules = Rules {
        cluster: item::cluster(0),
        excluded_labels: BTreeSet::new(),
        protected: Protected::default(),
    };
    let rest = Duration::from_secs(REST);
    let numbers = directory.numbers.clone();
    let mut writer = Writer::new(rules, journal.clone(), numbers, rest, now);
    for (key, object) in objects {
        writer.apply(key, Some(object));
    }
    writer
}

/// Somebody else takes the number that would come next, as a replica does that holds that it writes.
fn rival(directory: &mut Directory, dice: &mut Dice, now: u64) {
    for kind in [NumberKind::Node, NumberKind::Identity] {
        let least = match kind {
            NumberKind::Node => 1,
            NumberKind::Identity => 256,
        };
        let numbers = directory.numbers.keys().filter(|(of, _)| *of == kind);
        let next = numbers.map(|(_, number)| number + 1).max().unwrap_or(least);
        let allocation = Allocation {
            claim: format!("rival {}", dice.below(1_000)),
            released: dice.percent(50).then_some(now),
        };
        let taken = directory.numbers.entry((kind, next));
        taken.or_insert(Some(allocation));
    }
}

/// A thing that needs a number.
fn thing(dice: &mut Dice) -> (ObjectKey, Object) {
    let number = dice.below(NAMES);
    let key = |kind, namespace: &str, name: String| ObjectKey {
        kind,
        namespace: namespace.to_owned(),
        name,
    };
    if dice.percent(40) {
        let node = key(ObjectKind::Node, "", format!("node-{number}"));
        return (node, Object::Node(Vec::new()));
    }
    let name = format!("pod-{}", dice.below(NAMES));
    let pod = Pod {
        node: format!("node-{}", dice.below(NAMES)),
        attached: true,
        addresses: Vec::new(),
        labels: BTreeMap::from([("app".to_owned(), format!("a{number}"))]),
    };
    let key = key(ObjectKind::Pod, item::NAMESPACE, name);
    (key, Object::Pod(pod))
}

/// Every number that is in force has its object, in use.
fn held(journal: &Live, directory: &Directory) -> Result<(), Violation> {
    for (key, (_, value)) in &journal.records {
        let number = match decode_record(key, value) {
            Ok(Record::Node(node)) => (NumberKind::Node, u16::from(node.index).into()),
            Ok(Record::Identity(identity)) => (NumberKind::Identity, identity.number.into()),
            _ => continue,
        };
        if !directory.numbers.contains_key(&number) {
            let what = format!("{key} is in force without an object");
            return Err(Violation::GivenTwice { what });
        }
    }
    Ok(())
}
