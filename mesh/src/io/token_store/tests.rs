use super::*;
use crate::token::{Purpose, Secret};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Barrier;
use std::thread;

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn kept() -> Kept {
    Kept {
        purpose: Purpose::Node,
        name: "east-1".to_owned(),
        expires: NOW + 600,
        note: String::new(),
    }
}

fn shown(by: &str) -> Shown<'_> {
    Shown {
        purpose: Purpose::Node,
        name: "east-1",
        by,
    }
}

fn made(store: &TokenStore) -> SecretHash {
    let hash = Secret::generate().unwrap().hash();
    store.add(&hash, &kept()).unwrap();
    hash
}

fn files(store: &TokenStore) -> usize {
    fs::read_dir(&store.folder).unwrap().count()
}

#[test]
fn a_token_is_used_once_and_its_user_may_come_again() {
    let state = tempfile::tempdir().unwrap();
    let store = TokenStore::open(state.path()).unwrap();
    let hash = made(&store);
    let standing = |done: Result<Consumed, TokenStoreError>| done.unwrap().standing;
    assert_eq!(
        standing(store.look(&hash, shown("one"), at(NOW))),
        Standing::Unused
    );
    assert_eq!(
        standing(store.consume(&hash, shown("one"), at(NOW))),
        Standing::Unused
    );
    assert_eq!(
        standing(store.consume(&hash, shown("one"), at(NOW))),
        Standing::Again
    );
    let name = |done: Result<Consumed, TokenStoreError>| done.unwrap_err().name();
    assert_eq!(
        name(store.consume(&hash, shown("two"), at(NOW))),
        "token_used"
    );
    assert_eq!(name(store.look(&hash, shown("two"), at(NOW))), "token_used");
    assert_eq!(
        name(store.consume(&hash, shown("one"), at(NOW + 601))),
        "token_expired"
    );
    let other = Secret::generate().unwrap().hash();
    assert_eq!(
        name(store.consume(&other, shown("one"), at(NOW))),
        "token_unknown"
    );
    assert_eq!(
        store.add(&hash, &kept()).unwrap_err().name(),
        "token_store_broken"
    );
}

#[test]
fn nobody_else_can_read_what_is_kept_and_no_secret_is_in_it() {
    let state = tempfile::tempdir().unwrap();
    let store = TokenStore::open(state.path()).unwrap();
    let secret = Secret::from_slice(&[7; 32]).unwrap();
    store.add(&secret.hash(), &kept()).unwrap();
    store
        .consume(&secret.hash(), shown("one"), at(NOW))
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&store.folder), 0o700);
    for entry in fs::read_dir(&store.folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("0707"));
        assert!(!path.to_str().unwrap().contains("0707"));
    }
    assert_eq!(files(&store), 2);
}

/// Eight guests, half of them at another replica, show one token at the same moment; a thousand times.
#[test]
fn of_many_who_race_exactly_one_is_the_first() {
    let state = tempfile::tempdir().unwrap();
    let stores = [(); 2].map(|()| TokenStore::open(state.path()).unwrap());
    let hashes: Vec<_> = (0..1000).map(|_| made(&stores[0])).collect();
    let barrier = Barrier::new(8);
    let wins: Vec<Vec<bool>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (store, hashes, barrier) = (&stores[racer % 2], &hashes, &barrier);
                scope.spawn(move || {
                    let by = format!("guest {racer}");
                    let race = |hash| {
                        barrier.wait();
                        match store.consume(hash, shown(&by), at(NOW)) {
                            Ok(consumed) => {
                                assert_eq!(consumed.standing, Standing::Unused);
                                true
                            }
                            Err(error) => {
                                assert_eq!(error.name(), "token_used");
                                false
                            }
                        }
                    };
                    hashes.iter().map(race).collect()
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    for race in 0..hashes.len() {
        assert_eq!(
            wins.iter().filter(|wins| wins[race]).count(),
            1,
            "race {race}"
        );
    }
    // Nothing is left behind.
    assert_eq!(files(&stores[0]), 2 * hashes.len());
}

/// One guest's two requests, to two replicas at once: both are its own.
#[test]
fn one_guest_that_asks_two_replicas_is_first_once_and_refused_by_none() {
    let state = tempfile::tempdir().unwrap();
    let stores = [(); 2].map(|()| TokenStore::open(state.path()).unwrap());
    let barrier = Barrier::new(2);
    for _ in 0..100 {
        let hash = made(&stores[0]);
        let standings: Vec<_> = thread::scope(|scope| {
            let ask = |store| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    TokenStore::consume(store, &hash, shown("one"), at(NOW))
                        .unwrap()
                        .standing
                })
            };
            let asked = stores.each_ref().map(ask);
            asked
                .into_iter()
                .map(|asked| asked.join().unwrap())
                .collect()
        });
        assert!(standings.contains(&Standing::Unused), "{standings:?}");
        assert!(standings.contains(&Standing::Again), "{standings:?}");
    }
}

#[test]
fn what_is_long_over_is_swept_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let store = TokenStore::open(state.path()).unwrap();
    let (used, unused) = (made(&store), made(&store));
    store.consume(&used, shown("one"), at(NOW)).unwrap();
    for (name, age) in [(".old", 3700), (".new", 100)] {
        let orphan = File::create(store.folder.join(name)).unwrap();
        orphan.set_modified(at(NOW - age)).unwrap();
    }
    assert_eq!(store.sweep(at(NOW)).unwrap(), 0);
    assert!(!store.folder.join(".old").exists());
    assert_eq!(files(&store), 4);
    assert_eq!(store.sweep(at(NOW + 600 + 86_400)).unwrap(), 0);
    assert_eq!(store.sweep(at(NOW + 601 + 86_400)).unwrap(), 2);
    assert_eq!(files(&store), 0);
    let name = |done: Result<Consumed, TokenStoreError>| done.unwrap_err().name();
    assert_eq!(
        name(store.look(&unused, shown("one"), at(NOW))),
        "token_unknown"
    );
}

#[test]
fn a_file_that_is_broken_is_told_of_and_never_taken() {
    let state = tempfile::tempdir().unwrap();
    let store = TokenStore::open(state.path()).unwrap();
    for text in [
        "",
        "{",
        "[]",
        "{\"purpose\":\"root\",\"name\":\"east-1\",\"expires\":1}",
        "\u{0}",
    ] {
        let hash = Secret::generate().unwrap().hash();
        fs::write(store.folder.join(hash.to_string()), text).unwrap();
        let error = store.consume(&hash, shown("one"), at(NOW)).unwrap_err();
        assert_eq!(error.name(), "token_store_broken", "{text}");
        assert!(error.to_string().contains("remove it"), "{error}");
    }
    // A mark that was cut off by a crash is a mark all the same.
    let hash = made(&store);
    fs::write(store.used(&hash), "").unwrap();
    assert!(store.consume(&hash, shown("one"), at(NOW)).is_err());
}

#[test]
fn tokens_of_somebody_are_revoked_used_or_not_and_those_of_others_stay() {
    let state = tempfile::tempdir().unwrap();
    let store = TokenStore::open(state.path()).unwrap();
    let (used, unused) = (made(&store), made(&store));
    store.consume(&used, shown("one"), at(NOW)).unwrap();
    let other = Secret::generate().unwrap().hash();
    let cluster = Kept {
        purpose: Purpose::Cluster,
        ..kept()
    };
    store.add(&other, &cluster).unwrap();
    store.revoke(Purpose::Node, "east-1").unwrap();
    for hash in [used, unused] {
        let refused = store.look(&hash, shown("one"), at(NOW)).unwrap_err();
        assert_eq!(refused.name(), "token_unknown");
    }
    let of_cluster = Shown {
        purpose: Purpose::Cluster,
        ..shown("one")
    };
    assert!(store.look(&other, of_cluster, at(NOW)).is_ok());
}
