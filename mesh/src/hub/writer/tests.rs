use super::*;
use crate::hub::manifest::{ObjectKind, Pod};
use crate::hub::protected::Protected;
use crate::record::{Cluster, Key, Kind};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: u64 = 1_800_000_000;
const REST: Duration = Duration::from_secs(600);

fn rules() -> Rules {
    Rules {
        cluster: Cluster {
            id: ClusterId::new(1).unwrap(),
            name: "east".to_owned(),
            prefixes: vec!["10.1.0.0/16".parse().unwrap()],
            ca: String::new(),
        },
        excluded_labels: BTreeSet::new(),
        protected: Protected::default(),
    }
}

/// A disk that counts down to its failure.
#[derive(Clone, Debug, Default)]
struct Memory {
    objects: Numbers,
    fails_after: Option<usize>,
    /// Each number with all claims that it ever stood for, and since when.
    given: BTreeMap<(NumberKind, u32), Vec<(String, u64)>>,
    now: u64,
}

impl Memory {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fails_after {
            Some(0) => Err(io::Error::other("full")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for Memory {
    fn create(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<Option<Existing>> {
        self.step()?;
        if let Some(existing) = self.objects.get(&(kind, number)) {
            return Ok(Some(existing.clone()));
        }
        self.objects
            .insert((kind, number), Some(allocation.clone()));
        let given = self.given.entry((kind, number)).or_default();
        given.push((allocation.claim.clone(), self.now));
        Ok(None)
    }

    fn replace(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<()> {
        self.step()?;
        self.objects
            .insert((kind, number), Some(allocation.clone()));
        Ok(())
    }

    fn remove(&mut self, kind: NumberKind, number: u32) -> io::Result<()> {
        self.step()?;
        self.objects.remove(&(kind, number));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()
    }
}

fn pod(name: &str, app: &str) -> (ObjectKey, Object) {
    let key = ObjectKey {
        kind: ObjectKind::Pod,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    let pod = Pod {
        node: "n1".to_owned(),
        attached: true,
        addresses: vec!["10.1.0.9".parse().unwrap()],
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
    };
    (key, Object::Pod(pod))
}

fn identities(live: &Live) -> BTreeSet<Key> {
    let keys = live.records.keys();
    keys.filter(|key| key.kind() == Some(Kind::Identity))
        .cloned()
        .collect()
}

#[test]
fn a_restart_without_changes_writes_nothing_and_keeps_all_numbers() {
    let mut disk = Memory::default();
    let (key, object) = pod("a", "web");
    let mut writer = Writer::new(rules(), Live::default(), Numbers::new(), REST, NOW);
    writer.apply(&key, Some(&object));
    let frame = writer.settle(&mut disk, NOW).unwrap().unwrap();
    assert_eq!(frame.version, Version::new(1, 1));
    let (live, numbers) = (writer.live().clone(), disk.objects.clone());
    let mut writer = Writer::new(rules(), live.clone(), numbers, REST, NOW);
    writer.apply(&key, Some(&object));
    assert_eq!(writer.settle(&mut disk, NOW).unwrap(), None);
    assert_eq!(writer.live(), &live);
}

#[test]
fn what_went_while_nobody_wrote_is_removed_with_the_first_frame() {
    let mut disk = Memory::default();
    let mut writer = Writer::new(rules(), Live::default(), Numbers::new(), REST, NOW);
    for (key, object) in [pod("a", "web"), pod("b", "db")] {
        writer.apply(&key, Some(&object));
    }
    writer.settle(&mut disk, NOW).unwrap();
    let live = writer.live().clone();
    let mut writer = Writer::new(rules(), live, disk.objects.clone(), REST, NOW);
    let (key, object) = pod("a", "web");
    writer.apply(&key, Some(&object));
    let frame = writer.settle(&mut disk, NOW).unwrap().unwrap();
    assert!(frame.changes.iter().all(|(_, value)| value.is_none()));
    assert_eq!(identities(writer.live()).len(), 1);
    let resting = disk
        .objects
        .values()
        .flatten()
        .filter(|a| a.released.is_some());
    assert_eq!(resting.count(), 1, "its number rests");
}

#[test]
fn a_disk_that_fails_loses_no_claim() {
    for fails_after in 0..4 {
        let mut disk = Memory {
            fails_after: Some(fails_after),
            ..Memory::default()
        };
        let mut writer = Writer::new(rules(), Live::default(), Numbers::new(), REST, NOW);
        for (key, object) in [pod("a", "web"), pod("b", "db")] {
            writer.apply(&key, Some(&object));
        }
        if fails_after < 3 {
            assert!(writer.settle(&mut disk, NOW).is_err());
            assert_eq!(writer.live(), &Live::default(), "nobody is told");
        }
        disk.fails_after = None;
        writer.settle(&mut disk, NOW).unwrap();
        assert_eq!(identities(writer.live()).len(), 2);
        assert!(
            disk.objects
                .values()
                .flatten()
                .all(|a| a.released.is_none())
        );
    }
}

#[test]
fn a_number_rests_from_when_the_journal_lets_it_go() {
    let mut disk = Memory::default();
    let (key, object) = pod("a", "web");
    let mut writer = Writer::new(rules(), Live::default(), Numbers::new(), REST, NOW);
    writer.apply(&key, Some(&object));
    writer.settle(&mut disk, NOW).unwrap();
    let told = writer.live().clone();
    // Given back, but the writer dies before its frame is in the journal.
    writer.apply(&key, None);
    writer.settle(&mut disk, NOW).unwrap();
    // The next one says so 300 s later, and it is from then that the number rests.
    let mut writer = Writer::new(rules(), told, disk.objects.clone(), REST, NOW + 300);
    writer.settle(&mut disk, NOW + 300).unwrap().unwrap();
    assert!(identities(writer.live()).is_empty());
    for (at, objects) in [(NOW + 899, 1), (NOW + 900, 0)] {
        writer.settle(&mut disk, at).unwrap();
        let identities = disk.objects.keys();
        let identities = identities.filter(|(kind, _)| *kind == NumberKind::Identity);
        assert_eq!(identities.count(), objects, "at {at}");
    }
}

#[test]
fn another_incarnation_goes_on_with_the_revisions() {
    let mut disk = Memory::default();
    let mut writer = Writer::new(rules(), Live::default(), Numbers::new(), REST, NOW);
    writer.settle(&mut disk, NOW).unwrap();
    assert_eq!(writer.bump(Incarnation(1)), None);
    let frame = writer.bump(Incarnation(4)).unwrap();
    assert_eq!(frame.version, Version::new(4, 2));
}

proptest! {
    /// I6: of two pods that are there at the same time, two have the same number only with the same labels; and a number
    /// rests before it stands for something else, whatever crashes and fails in between.
    #[test]
    fn no_number_is_given_twice(
        ops in proptest::collection::vec((0..4u8, 0..6u8, any::<bool>(), 0..400u64, 0..12u8), 1..60)
    ) {
        let mut disk = Memory { now: NOW, ..Memory::default() };
        let mut live = Live::default();
        let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        let mut writer = Writer::new(rules(), Live::default(), Numbers::new(), REST, NOW);
        for (name, app, there, passes, fault) in ops {
            disk.now += passes;
            let now = disk.now;
            let (key, object) = pod(&format!("p{name}"), &format!("a{app}"));
            if there {
                objects.insert(key.clone(), object.clone());
            } else {
                objects.remove(&key);
            }
            writer.apply(&key, objects.get(&key));
            disk.fails_after = (fault < 4).then(|| usize::from(fault));
            match writer.settle(&mut disk, now) {
                // Written, or lost before it was.
                Ok(Some(frame)) if fault != 11 => {
                    prop_assert!(frame.version > live.version);
                    live.apply(&frame);
                }
                Ok(_) | Err(_) => {}
            }
            disk.fails_after = None;
            if !(4..10).contains(&fault) {
                writer = Writer::new(rules(), live.clone(), disk.objects.clone(), REST, now);
                for (key, object) in &objects {
                    writer.apply(key, Some(object));
                }
                if let Some(frame) = writer.settle(&mut disk, now).unwrap() {
                    prop_assert!(frame.version > live.version);
                    live.apply(&frame);
                }
            }
            let kinds: BTreeSet<_> = objects.values().filter_map(|object| {
                let Object::Pod(pod) = object else { return None };
                Some(&pod.labels)
            }).collect();
            prop_assert_eq!(identities(&live).len(), kinds.len());
        }
        for given in disk.given.values() {
            for pair in given.windows(2) {
                prop_assert!(pair[1].1 - pair[0].1 >= REST.as_secs(), "{:?}", given);
            }
        }
    }
}
