use super::*;
use crate::record::Kind;
use proptest::prelude::*;
use std::sync::OnceLock;

fn cluster(id: u16) -> ClusterId {
    ClusterId::new(id).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(format!("{}{text}", char::from(Kind::Service as u8)).into()).unwrap()
}

fn set(text: &str, revision: u64, value: &str) -> (Key, Content) {
    let value = Bytes::copy_from_slice(value.as_bytes());
    (key(text), Some((Revision(revision), value)))
}

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("state/kept.redb")
}

#[test]
fn what_was_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, loaded) = Kept::open(&path(&folder)).unwrap();
    assert!(loaded.origins.is_empty() && loaded.damage.is_none());
    kept.note(
        cluster(1),
        Version::new(1, 7),
        false,
        [set("a", 6, "one"), set("b", 7, "two")],
    );
    kept.note(cluster(2), Version::new(3, 1), true, [set("a", 1, "other")]);
    kept.flush().unwrap();
    kept.note(cluster(1), Version::new(1, 8), true, [(key("a"), None)]);
    // What is left is written at the end.
    drop(kept);

    let (kept, loaded) = Kept::open(&path(&folder)).unwrap();
    let one = &loaded.origins[&cluster(1)];
    assert_eq!((one.version, one.complete), (Version::new(1, 8), true));
    assert_eq!(
        one.records,
        [(Revision(7), key("b"), Bytes::from_static(b"two"))]
    );
    assert_eq!(loaded.origins[&cluster(2)].records.len(), 1);
    kept.forget(cluster(1));
    kept.note(cluster(1), Version::new(9, 1), false, [set("c", 1, "new")]);
    kept.forget(cluster(2));
    kept.note_scope(Bytes::from_static(b"all"));
    drop(kept);

    let (_kept, loaded) = Kept::open(&path(&folder)).unwrap();
    let ids: Vec<_> = loaded.origins.keys().copied().collect();
    assert_eq!((ids, &loaded.scope[..]), (vec![cluster(1)], &b"all"[..]));
    assert_eq!(loaded.origins[&cluster(1)].records[0].1, key("c"));
}

#[test]
fn a_file_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let (_kept, _) = Kept::open(&path(&folder)).unwrap();
    assert!(matches!(
        Kept::open(&path(&folder)),
        Err(KeptError::Held(_))
    ));
}

#[test]
fn changes_under_churn_are_written_once_a_second_and_a_lone_one_at_once() {
    let start = Instant::now();
    let ms = |ms| start + Duration::from_millis(ms);
    assert_eq!(due(start, None, false), ms(200));
    assert_eq!(due(ms(5_000), Some(start), false), ms(5_200));
    assert_eq!(due(ms(10), Some(start), false), ms(1_000));
    assert_eq!(due(ms(10), Some(start), true), ms(10_000));
}

#[test]
fn a_batch_that_failed_lies_beneath_what_came_since() {
    let mut failed = Batch::default();
    failed.note(
        cluster(1),
        Version::new(1, 1),
        false,
        [set("a", 1, "old"), set("b", 1, "b")],
    );
    failed.note(cluster(2), Version::new(1, 1), true, [set("x", 1, "x")]);
    let mut batch = Batch::default();
    batch.note(cluster(1), Version::new(1, 2), true, [set("a", 2, "new")]);
    batch.forget(cluster(2));
    batch.put_back(failed);
    let one = &batch.origins[&cluster(1)];
    assert_eq!(one.head, Some((Version::new(1, 2), true)));
    let records: Vec<_> = one.records.clone().into_iter().collect();
    assert_eq!(records, [set("a", 2, "new"), set("b", 1, "b")]);
    assert!(batch.origins[&cluster(2)].forget && batch.len() == 2);
}

/// A file with some batches in it, and what each of them left there.
fn written() -> (Vec<u8>, Vec<KeptOrigin>) {
    let folder = tempfile::tempdir().unwrap();
    let (kept, _) = Kept::open(&path(&folder)).unwrap();
    let mut states = vec![KeptOrigin::default()];
    for round in 1..=4_u64 {
        let changes = (0..50).map(|at| set(&format!("{at}"), round, &format!("value {round}")));
        kept.note(cluster(1), Version::new(1, round), true, changes);
        kept.flush().unwrap();
        let records = (0..50).map(|at| {
            let (key, record) = set(&format!("{at}"), round, &format!("value {round}"));
            let (revision, value) = record.unwrap();
            (revision, key, value)
        });
        let mut records: Vec<_> = records.collect();
        records.sort_by(|a, b| a.1.cmp(&b.1));
        states.push(KeptOrigin {
            version: Version::new(1, round),
            complete: true,
            records,
        });
    }
    drop(kept);
    let whole = std::fs::read(path(&folder)).unwrap();
    assert_eq!(check(&whole, &states[4..]), None);
    (whole, states)
}

/// Opens a file with these bytes: it must hold one of the states in full, or be put aside by name.
#[expect(clippy::unwrap_in_result, reason = "`None` is the good end")]
fn check(bytes: &[u8], states: &[KeptOrigin]) -> Option<Damage> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(path(&folder).parent().unwrap()).unwrap();
    std::fs::write(path(&folder), bytes).unwrap();
    let (kept, mut loaded) = Kept::open(&path(&folder)).unwrap();
    let found = loaded.origins.remove(&cluster(1)).unwrap_or_default();
    assert!(loaded.origins.is_empty(), "{:?}", loaded.origins);
    assert!(states.contains(&found), "a mix: {found:?}");
    if loaded.damage.is_some() {
        assert_eq!(found, KeptOrigin::default());
        assert!(path(&folder).with_extension("redb.damaged").exists());
    }
    // Whatever was there, it takes new records.
    kept.note(cluster(1), Version::new(2, 1), true, [set("z", 1, "z")]);
    kept.flush().unwrap();
    loaded.damage
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_that_was_cut_or_garbled_anywhere_is_a_whole_state_or_none(
        cuts in proptest::collection::vec(0.0..1.0_f64, 4),
        flips in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..6),
    ) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
        fn place(at: f64, length: usize) -> usize {
            (at * length as f64) as usize
        }
        static WRITTEN: OnceLock<(Vec<u8>, Vec<KeptOrigin>)> = OnceLock::new();
        let (whole, states) = WRITTEN.get_or_init(written);
        for at in cuts {
            check(&whole[..place(at, whole.len())], states);
        }
        let mut garbled = whole.clone();
        for (at, with) in flips {
            let at = place(at, garbled.len());
            garbled[at] ^= with;
        }
        check(&garbled, states);
    }
}

#[test]
fn bytes_that_are_no_file_of_ours_are_put_aside_by_name() {
    let states = [KeptOrigin::default()];
    let damage = check(&[b'x'; 10_000], &states).unwrap();
    assert_eq!(damage.name(), "kept_torn");
}

#[test]
fn a_quarter_of_a_million_records_are_read_and_written_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, _) = Kept::open(&path(&folder)).unwrap();
    let start = Instant::now();
    for origin in 1..=250 {
        let records = (0..1_000).map(|at| set(&format!("shop-{at:0>40}"), at, &"v".repeat(60)));
        kept.note(cluster(origin), Version::new(1, 1_000), true, records);
    }
    kept.flush().unwrap();
    let writing = start.elapsed();
    drop(kept);
    let start = Instant::now();
    let (_kept, loaded) = Kept::open(&path(&folder)).unwrap();
    let reading = start.elapsed();
    assert_eq!(
        loaded
            .origins
            .values()
            .map(|origin| origin.records.len())
            .sum::<usize>(),
        250_000
    );
    let size = std::fs::metadata(path(&folder)).unwrap().len() >> 20;
    println!("250,000 records: {size} MiB, written in {writing:?}, read in {reading:?}");
    let bound = if cfg!(debug_assertions) { 15 } else { 1 };
    assert!(reading < Duration::from_secs(bound), "{reading:?}");
}
