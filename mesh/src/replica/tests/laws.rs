//! Whatever happens, everybody ends up with what was written, and never with what was not.

use super::*;
use proptest::prelude::*;

/// What was written at a revision.
type Entry = (Revision, Vec<(Key, Option<Bytes>)>);

/// Replicas of cluster 1: a writer and one that follows its journal. Then a hub of another cluster, an agent of that
/// cluster, an agent of cluster 1.
const REPLICAS: usize = 5;
const FOLLOWING_HUB: usize = 1;
const OTHER_HUB: usize = 2;
const OTHER_AGENT: usize = 3;
const OWN_AGENT: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Keys, each with a value's number or none.
    Write(Vec<(u8, Option<u8>)>),
    /// The following hub reads the journal; one revision after the other, or as one.
    Follow {
        as_one: bool,
    },
    /// A message arrives.
    Deliver(u8),
    Settle,
    Pass(u16),
    /// Who cuts its session, and connects to which hub.
    Connect(u8, bool),
    Cut(u8),
    /// Who wants what from now on.
    Filter(u8, u8),
    /// Who starts again, with or without what it has.
    Restart(u8, bool),
    /// The source is restored from a backup that is so many writes old.
    Restore(u8),
    /// What was refused and what was taken is judged again, by another gate.
    Judge(u8),
    /// The other hub forgets cluster 1 and joins it again.
    Leave,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..24u8, prop::option::weighted(0.7, any::<u8>()));
    let step = prop_oneof![
        8 => prop::collection::vec(change, 1..6).prop_map(Step::Write),
        3 => any::<bool>().prop_map(|as_one| Step::Follow { as_one }),
        20 => any::<u8>().prop_map(Step::Deliver),
        3 => Just(Step::Settle),
        2 => (0..8000u16).prop_map(Step::Pass),
        3 => (0..3u8, any::<bool>()).prop_map(|(who, to)| Step::Connect(who, to)),
        1 => (0..3u8).prop_map(Step::Cut),
        2 => (0..3u8, 0..6u8).prop_map(|(who, what)| Step::Filter(who, what)),
        1 => (0..4u8, any::<bool>()).prop_map(|(who, keeps)| Step::Restart(who, keeps)),
        1 => (1..4u8).prop_map(Step::Restore),
        1 => (0..3u8).prop_map(Step::Judge),
        1 => Just(Step::Leave),
    ];
    prop::collection::vec(step, 1..80)
}

/// Refuses keys that end so.
struct RefuseEnding(u8);

impl Gate for RefuseEnding {
    fn admit(&self, _: ClusterId, key: &Key, _: &Bytes) -> Result<(), Refusal> {
        if key.as_bytes().last() == Some(&self.0) {
            return Err(Refusal::Grant("test_ending"));
        }
        Ok(())
    }
}

fn filter(number: u8) -> Filter {
    match number {
        0 => Filter::new([prefix("1")]),
        1 => Filter::new([prefix("2")]),
        2 => Filter::new([prefix("11"), prefix("22")]),
        3 => Filter::default(),
        _ => Filter::new([prefix("1"), prefix("2")]),
    }
}

fn limits() -> Limits {
    Limits {
        tombstones: 3,
        ..Limits::default()
    }
}

struct Story {
    world: World,
    /// All states of cluster 1, by version.
    history: BTreeMap<Version, BTreeMap<Key, Bytes>>,
    /// What was written, as the following hub reads it.
    journal: Vec<Entry>,
    version: Version,
    sessions: [Option<SessionId>; 3],
    filters: [Filter; 3],
    publishers: [usize; 3],
    seen: Vec<Version>,
    mirrors: Vec<BTreeMap<Key, Bytes>>,
    refuses: u8,
}

impl Story {
    fn new() -> Self {
        let mut world = World::new(REPLICAS);
        for replica in &mut world.replicas {
            *replica = Replica::new(limits(), Box::new(AdmitAll));
        }
        let version = Version::new(1, 0);
        world.replicas[HUB].own(cluster(1), version);
        world.replicas[FOLLOWING_HUB].own(cluster(1), version);
        world.replicas[OTHER_HUB].own(cluster(2), version);
        Self {
            world,
            history: BTreeMap::from([(version, BTreeMap::new())]),
            journal: Vec::new(),
            version,
            sessions: [None; 3],
            filters: [filter(9), filter(9), filter(9)],
            publishers: [HUB, OTHER_HUB, HUB],
            seen: vec![Version::NONE; REPLICAS],
            mirrors: vec![BTreeMap::new(); REPLICAS],
            refuses: b'-',
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(changes) => self.write(&changes),
            Step::Follow { as_one } => self.follow_journal(as_one),
            Step::Deliver(which) => self.deliver(which),
            Step::Settle => self.world.settle(),
            Step::Pass(ms) => self.world.pass(Duration::from_millis(ms.into())),
            Step::Connect(who, to_follower) => {
                let who = usize::from(who);
                if who != OTHER_AGENT - OTHER_HUB {
                    self.publishers[who] = usize::from(to_follower);
                }
                self.connect(who);
            }
            Step::Cut(who) => self.cut(who.into()),
            Step::Filter(who, number) => {
                let who = usize::from(who);
                // A hub takes all that it may have.
                if who != 0 {
                    self.filters[who] = filter(number);
                    if let Some(session) = self.sessions[who] {
                        let filter = self.filters[who].clone();
                        self.world.replicas[who + OTHER_HUB].set_filter(
                            session,
                            filter,
                            self.world.now,
                        );
                    }
                }
            }
            Step::Restart(0, _) => self.restart_publisher(FOLLOWING_HUB, self.follower_version()),
            Step::Restart(who, keeps) => self.restart(usize::from(who) - 1, keeps),
            Step::Restore(back) => self.restore(back.into()),
            Step::Judge(number) => {
                self.refuses = b'0' + number;
                let gate = Box::new(RefuseEnding(self.refuses));
                self.world.replicas[OTHER_HUB].set_gate(gate, self.world.now);
            }
            Step::Leave => {
                self.cut(0);
                self.world.replicas[OTHER_HUB].forget(cluster(1));
                self.world.collect();
                self.follow_events();
                self.connect(0);
            }
        }
        self.world.collect();
        self.check();
    }

    fn write(&mut self, changes: &[(u8, Option<u8>)]) {
        let revision = Revision(self.version.revision.0 + 1 + changes.len() as u64 % 3);
        let mut state = self.history[&self.version].clone();
        let mut batch = BTreeMap::new();
        for (name, value) in changes {
            let name = key(&format!(
                "{}{}",
                if name % 2 == 0 { "1" } else { "2" },
                name / 2
            ));
            // Some are long, so that snapshots have many parts.
            let value = value.map(|v| {
                let length = if v % 8 == 0 {
                    70_000
                } else {
                    usize::from(v % 7)
                };
                Bytes::from(vec![v; length])
            });
            match &value {
                Some(value) => state.insert(name.clone(), value.clone()),
                None => state.remove(&name),
            };
            batch.insert(name, value);
        }
        let batch: Vec<_> = batch.into_iter().collect();
        self.world.write(revision.0, batch.clone());
        self.journal.push((revision, batch));
        self.version.revision = revision;
        self.history.insert(self.version, state);
    }

    fn follower_version(&self) -> Version {
        let store = self.world.replicas[FOLLOWING_HUB].store(cluster(1));
        store.unwrap().version()
    }

    fn follow_journal(&mut self, as_one: bool) {
        if self.follower_version().incarnation != self.version.incarnation {
            self.restart_publisher(FOLLOWING_HUB, self.version);
            return;
        }
        let from = self.follower_version().revision;
        let behind = self.journal.iter().filter(|(revision, _)| *revision > from);
        let mut batches: Vec<_> = behind.cloned().collect();
        if as_one && let Some((last, _)) = batches.last() {
            let last = *last;
            let merged: BTreeMap<_, _> = batches.drain(..).flat_map(|(_, batch)| batch).collect();
            batches.push((last, merged.into_iter().collect()));
        }
        for (revision, batch) in batches {
            assert!(self.world.replicas[FOLLOWING_HUB].write(revision, batch));
        }
    }

    fn deliver(&mut self, which: u8) {
        let ids: Vec<_> = self.world.wires.keys().copied().collect();
        let mut places = Vec::new();
        for id in ids {
            for side in 0..2 {
                for stream in [Stream::Changes, Stream::Bulk] {
                    if !self.world.wires[&id].queues[side][stream.index()].is_empty() {
                        places.push((id, side, stream));
                    }
                }
            }
        }
        if !places.is_empty() {
            let (id, side, stream) = places[usize::from(which) % places.len()];
            self.world.deliver(id, side, stream);
        }
    }

    fn connect(&mut self, who: usize) {
        self.cut(who);
        let (subscriber, publisher) = (who + OTHER_HUB, self.publishers[who]);
        let wanted = if who == 0 {
            Wanted::One(cluster(1))
        } else {
            Wanted::All
        };
        let filter = self.filters[who].clone();
        self.sessions[who] = Some(self.world.connect(subscriber, publisher, wanted, filter));
    }

    fn cut(&mut self, who: usize) {
        if let Some(session) = self.sessions[who].take() {
            self.world.cut(session);
        }
    }

    fn restart(&mut self, who: usize, keeps: bool) {
        let index = who + OTHER_HUB;
        self.cut(who);
        if who == 0 {
            self.cut(1);
        }
        self.world.collect();
        self.follow_events();
        let mut replica = Replica::new(limits(), Box::new(RefuseEnding(self.refuses)));
        if index != OTHER_HUB {
            replica = Replica::new(limits(), Box::new(AdmitAll));
        }
        let kept = self.world.replicas[index].store(cluster(1));
        match kept {
            Some(store) if keeps => {
                let records: Vec<_> = store.records().collect();
                let filter = &self.filters[who];
                let fits = store
                    .filter
                    .as_ref()
                    .is_some_and(|kept| kept.includes(filter));
                let complete = store.is_complete() && fits;
                replica.load(cluster(1), store.version(), complete, records);
                if let Some(kept) = &store.filter {
                    replica.loaded_under(kept);
                }
            }
            _ => {
                self.mirrors[index].clear();
                self.seen[index] = Version::NONE;
            }
        }
        if index == OTHER_HUB {
            replica.own(cluster(2), Version::new(1, 0));
        }
        self.world.replicas[index] = replica;
    }

    /// A hub of cluster 1 starts from the journal.
    fn restart_publisher(&mut self, index: usize, version: Version) {
        for who in [0, 2] {
            if self.publishers[who] == index {
                self.cut(who);
            }
        }
        let mut replica = Replica::new(limits(), Box::new(AdmitAll));
        let state = self.history[&version].clone();
        let records = state
            .into_iter()
            .map(|(key, value)| (version.revision, key, value));
        replica.load(cluster(1), version, true, records);
        replica.own(cluster(1), version);
        self.world.replicas[index] = replica;
    }

    fn restore(&mut self, back: usize) {
        let incarnation = self.version.incarnation;
        let before = self
            .history
            .keys()
            .rev()
            .filter(|v| v.incarnation == incarnation);
        let Some(&from) = before.clone().nth(back).or_else(|| before.min()) else {
            return;
        };
        self.restart_publisher(HUB, from);
        // The owner of the hub heard of it, and decides so.
        let to = Incarnation(incarnation.0 + 1);
        self.world.replicas[HUB].bump_incarnation(to);
        let state = self.history[&from].clone();
        self.version = Version {
            incarnation: to,
            revision: from.revision,
        };
        self.history.insert(self.version, state);
        self.journal
            .retain(|(revision, _)| *revision <= from.revision);
    }

    fn follow_events(&mut self) {
        let mirrors = self.world.events.iter_mut().zip(&mut self.mirrors);
        for ((events, mirror), seen) in mirrors.zip(&mut self.seen).skip(OTHER_HUB) {
            for event in events.drain(..) {
                match event {
                    Event::InitApply { origin, key, value }
                    | Event::Apply { origin, key, value } => {
                        assert_eq!(origin, cluster(1));
                        mirror.insert(key, value);
                    }
                    Event::Delete { key, .. } => {
                        assert!(mirror.remove(&key).is_some(), "deleted what was not there");
                    }
                    Event::Forgotten { .. } => {
                        mirror.clear();
                        *seen = Version::NONE;
                    }
                    Event::Init { .. }
                    | Event::InitDone { .. }
                    | Event::Reached { .. }
                    | Event::Ahead { .. }
                    | Event::Announced { .. }
                    | Event::Refused { .. }
                    | Event::Synced { .. } => {}
                }
            }
        }
    }

    fn wants(&self, index: usize, key: &Key) -> bool {
        let refused = self.refuses;
        let filter = &self.filters[index - OTHER_HUB];
        let taken = index == OWN_AGENT || key.as_bytes().last() != Some(&refused);
        taken && filter.covers(key)
    }

    /// What holds at any time.
    fn check(&mut self) {
        assert_eq!(self.world.rejects, []);
        self.follow_events();
        for index in OTHER_HUB..REPLICAS {
            let Some(store) = self.world.replicas[index].store(cluster(1)) else {
                assert!(self.mirrors[index].is_empty());
                continue;
            };
            let version = store.version();
            assert!(version >= self.seen[index], "went back");
            self.seen[index] = version;
            let records = self.world.records(index, 1);
            assert_eq!(records, self.mirrors[index], "events tell another story");
            let filter = &self.filters[index - OTHER_HUB];
            if index == OWN_AGENT && store.is_complete() && store.filter.as_ref() == Some(filter) {
                self.check_state(version, &records, filter);
            }
        }
    }

    /// A complete state is that of its version.
    fn check_state(&self, version: Version, records: &BTreeMap<Key, Bytes>, filter: &Filter) {
        if version == Version::NONE {
            return;
        }
        let state = self.history[&version]
            .iter()
            .filter(|(key, _)| filter.covers(key));
        let state: BTreeMap<_, _> = state.map(|(k, v)| (k.clone(), v.clone())).collect();
        assert!(*records == state, "the state of {version} is another one");
    }

    /// All connect again, and time passes.
    fn heal(&mut self) {
        self.follow_journal(false);
        for who in 0..3 {
            self.connect(who);
        }
        self.world.pass(Duration::from_secs(60));
        self.check();
        let state = &self.history[&self.version];
        for index in OTHER_HUB..REPLICAS {
            let wanted = state.iter().filter(|(key, _)| self.wants(index, key));
            let wanted: BTreeMap<_, _> = wanted.map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(self.mirrors[index], wanted, "replica {index}");
            let store = self.world.replicas[index].store(cluster(1)).unwrap();
            assert!(store.is_complete());
            assert_eq!(store.version().incarnation, self.version.incarnation);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_story_ends_with_what_was_written(steps in steps()) {
        let mut story = Story::new();
        for step in steps {
            story.step(step);
        }
        story.heal();
    }
}

/// What was kept was taken under another filter than the one that is wanted by the time of the first session.
#[test]
fn who_wants_something_else_after_a_restart_gets_it() {
    let mut story = Story::new();
    for step in [
        Step::Write(vec![(0, Some(0))]),
        Step::Filter(2, 1),
        Step::Follow { as_one: false },
        Step::Connect(2, false),
        Step::Settle,
        Step::Restart(3, true),
        Step::Filter(2, 4),
        Step::Connect(2, false),
    ] {
        story.step(step);
    }
    story.heal();
}
