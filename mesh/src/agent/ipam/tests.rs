use super::*;
use proptest::prelude::*;

const REST: u64 = 60;

/// A disk that fails when it is told to.
#[derive(Clone, Default)]
struct Memory {
    kept: BTreeMap<IpAddr, Entry>,
    fails: bool,
}

impl Disk for Memory {
    fn put(&mut self, changes: &[(IpAddr, Option<Entry>)]) -> io::Result<()> {
        if self.fails {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        for (address, entry) in changes {
            match entry {
                Some(entry) => self.kept.insert(*address, entry.clone()),
                None => self.kept.remove(address),
            };
        }
        Ok(())
    }
}

fn lessee(number: u32) -> Lessee {
    Lessee {
        network: "hawser".to_owned(),
        container_id: format!("c{number}"),
        ifname: "eth0".to_owned(),
    }
}

fn pools() -> Vec<Pool> {
    let pool =
        |prefix: &str, router: &str| Pool::new(prefix.parse().unwrap(), router.parse().unwrap());
    vec![
        pool("10.1.1.0/29", "10.1.1.1"),
        pool("10.1.2.0/30", "10.1.2.1"),
        pool("fd00::/64", "fd00::1"),
    ]
}

fn leases(disk: &Memory) -> Leases {
    let kept = disk.kept.clone();
    let mut leases = Leases::load(Duration::from_secs(REST), kept);
    leases.set_pools(pools());
    leases
}

fn texts(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn each_pod_has_one_of_each_family_until_it_gives_them_back() {
    let mut disk = Memory::default();
    let mut leases = leases(&disk);
    let first = leases.lease(&lessee(1), &[], 100, &mut disk).unwrap();
    assert_eq!(texts(&first), ["10.1.1.2", "fd00::2"]);
    // Asked again, as after an answer that was lost.
    assert_eq!(
        leases.lease(&lessee(1), &[], 100, &mut disk).unwrap(),
        first
    );
    let others: Vec<_> = (2..=6)
        .map(|n| leases.lease(&lessee(n), &[], 100, &mut disk).unwrap())
        .collect();
    assert_eq!(texts(&others[3]), ["10.1.1.6", "fd00::6"]);
    assert_eq!(
        texts(&others[4]),
        ["10.1.2.2", "fd00::7"],
        "the next prefix"
    );
    let told = leases
        .lease(&lessee(7), &[], 100, &mut disk)
        .unwrap_err()
        .to_string();
    assert_eq!(told, "no address of IPv4 is free: 6 are leased, 0 rest");
    assert_eq!(leases.held_by(&lessee(7)), None, "nor one of IPv6");

    assert_eq!(leases.release(&lessee(1), 110, &mut disk).unwrap(), first);
    assert!(
        leases
            .release(&lessee(1), 120, &mut disk)
            .unwrap()
            .is_empty(),
        "twice"
    );
    let told = leases.lease(&lessee(7), &[], 120, &mut disk).unwrap_err();
    assert!(
        matches!(
            told,
            LeaseError::Exhausted {
                resting: 1,
                rested: Some(50),
                ..
            }
        ),
        "{told:?}"
    );
    assert_eq!(leases.sweep(169, &mut disk).unwrap(), Some(170));
    assert_eq!(leases.sweep(170, &mut disk).unwrap(), None);
    assert_eq!(
        texts(&leases.lease(&lessee(7), &[], 170, &mut disk).unwrap()),
        ["10.1.1.2", "fd00::8"]
    );
    assert_eq!(
        leases.lessee_of("10.1.1.2".parse().unwrap()),
        Some(&lessee(7))
    );
    let status = leases.status();
    assert_eq!(
        (status[0].addresses, status[0].leased, status[0].resting),
        (5, 5, 0)
    );
}

#[test]
fn wishes_are_granted_where_nobody_has_them() {
    let mut disk = Memory::default();
    let mut leases = leases(&disk);
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let wished = [address("10.1.2.2"), address("fd00::99")];
    let given = leases.lease(&lessee(1), &wished, 100, &mut disk).unwrap();
    assert_eq!(texts(&given), ["10.1.2.2", "fd00::99"]);
    // One family is wished, the other is any.
    let given = leases
        .lease(&lessee(2), &[address("10.1.1.4")], 100, &mut disk)
        .unwrap();
    assert_eq!(texts(&given), ["10.1.1.4", "fd00::2"]);
    for (wish, rule) in [
        ("10.1.1.4", "another pod has it"),
        ("10.1.1.1", "must be in a pod prefix"),
        ("10.1.1.0", "must be in a pod prefix"),
        ("10.9.9.9", "must be in a pod prefix"),
    ] {
        let told = leases
            .lease(&lessee(3), &[address(wish)], 100, &mut disk)
            .unwrap_err();
        assert!(
            told.to_string()
                .starts_with(&format!("address {wish}: {rule}")),
            "{told}"
        );
    }
    leases.release(&lessee(2), 110, &mut disk).unwrap();
    assert!(
        leases
            .lease(&lessee(3), &[address("10.1.1.4")], 111, &mut disk)
            .is_ok()
    );
}

#[test]
fn what_nobody_gave_back_is_collected_by_network() {
    let mut disk = Memory::default();
    let mut leases = leases(&disk);
    let other = Lessee {
        network: "other".to_owned(),
        ..lessee(9)
    };
    for who in [lessee(1), lessee(2), other.clone()] {
        leases.lease(&who, &[], 100, &mut disk).unwrap();
    }
    let valid = BTreeSet::from([lessee(2), lessee(3)]);
    let gone = leases.retain("hawser", &valid, 100, &mut disk).unwrap();
    assert_eq!(gone.keys().collect::<Vec<_>>(), [&lessee(1)]);
    assert!(leases.held_by(&lessee(2)).is_some() && leases.held_by(&other).is_some());
}

#[test]
fn a_disk_that_fails_changes_nothing_and_no_prefix_is_told() {
    let mut disk = Memory::default();
    let mut leases = leases(&disk);
    leases.lease(&lessee(1), &[], 100, &mut disk).unwrap();
    disk.fails = true;
    let before = leases.clone();
    assert!(matches!(
        leases.lease(&lessee(2), &[], 100, &mut disk),
        Err(LeaseError::Disk(_))
    ));
    assert!(leases.release(&lessee(1), 100, &mut disk).is_err());
    assert!(
        leases
            .retain("hawser", &BTreeSet::new(), 100, &mut disk)
            .is_err()
    );
    assert_eq!(leases, before);
    let mut none = Leases::load(Duration::from_secs(REST), []);
    assert!(matches!(
        none.lease(&lessee(1), &[], 100, &mut disk),
        Err(LeaseError::NoPool)
    ));
    // Prefixes that went: who has an address of them keeps it, and gives it back.
    disk.fails = false;
    leases.set_pools(vec![Pool::new(
        "10.9.0.0/24".parse().unwrap(),
        "10.9.0.1".parse().unwrap(),
    )]);
    assert!(leases.held_by(&lessee(1)).is_some());
    assert_eq!(
        texts(&leases.lease(&lessee(2), &[], 100, &mut disk).unwrap()),
        ["10.9.0.2"]
    );
    assert_eq!(leases.release(&lessee(1), 100, &mut disk).unwrap().len(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Lease(u32),
    Release(u32),
    Retain(Vec<u32>),
    Sweep,
    Wait(u64),
    /// The agent dies and starts again.
    Crash,
    /// The disk fails from now on, or works again.
    Disk(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u32).prop_map(Step::Lease),
        4 => (0..12u32).prop_map(Step::Release),
        1 => prop::collection::vec(0..12u32, 0..12).prop_map(Step::Retain),
        2 => Just(Step::Sweep),
        3 => (0..40u64).prop_map(Step::Wait),
        2 => Just(Step::Crash),
        1 => any::<bool>().prop_map(Step::Disk),
    ]
}

proptest! {
    #[test]
    fn whatever_crashes_no_address_is_given_twice_or_too_early_and_none_is_lost(steps in prop::collection::vec(step(), 1..120)) {
        let (mut disk, mut now) = (Memory::default(), 1_000);
        let mut it = leases(&disk);
        // What each pod was told, and when each address was given back.
        let mut told: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut free_from: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Lease(n) => {
                    let given = it.lease(&lessee(n), &[], now, &mut disk);
                    let given = given.ok().filter(|given| told.get(&n) != Some(given));
                    for address in given.iter().flatten() {
                        prop_assert!(!told.contains_key(&n), "another one than before");
                        prop_assert!(!told.values().flatten().any(|other| other == address), "{} twice", address);
                        prop_assert!(free_from.get(address).is_none_or(|from| *from <= now), "{} too early", address);
                    }
                    told.extend(given.map(|given| (n, given)));
                }
                Step::Release(n) => if it.release(&lessee(n), now, &mut disk).is_ok() {
                    for address in told.remove(&n).unwrap_or_default() {
                        free_from.insert(address, now + REST);
                    }
                },
                Step::Retain(valid) => {
                    let set = valid.iter().map(|n| lessee(*n)).collect();
                    if it.retain("hawser", &set, now, &mut disk).is_ok() {
                        let gone: Vec<u32> = told.keys().copied().filter(|n| !valid.contains(n)).collect();
                        for address in gone.iter().filter_map(|n| told.remove(n)).flatten() {
                            free_from.insert(address, now + REST);
                        }
                    }
                }
                Step::Sweep => { let _ = it.sweep(now, &mut disk); }
                Step::Wait(seconds) => now += seconds,
                Step::Crash => it = leases(&disk),
                Step::Disk(fails) => disk.fails = fails,
            }
            prop_assert_eq!(&it.entries, &disk.kept, "the disk knows");
        }
        // All go, and all can be had again.
        disk.fails = false;
        it.retain("hawser", &BTreeSet::new(), now, &mut disk).unwrap();
        now += REST;
        prop_assert_eq!(it.sweep(now, &mut disk).unwrap(), None);
        prop_assert!(disk.kept.is_empty());
        for n in 0..6 {
            prop_assert!(it.lease(&lessee(n), &[], now, &mut disk).is_ok(), "{}", n);
        }
    }
}
