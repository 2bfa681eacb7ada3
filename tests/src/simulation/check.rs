//! What must hold after every step, and what must hold once everything has healed.

use bytes::Bytes;
use hawser_mesh::record::Key;
use hawser_mesh::replica::{Digest, Store};
use hawser_mesh::wire::{Body, Message};

use super::item;
use super::process::{Process, RECORDS};
use super::shape::{CLUSTERS, Place};
use super::source::Source;
use super::violation::{Broken, Violation};
use super::world::World;

/// After every step, at the process that took it.
pub(super) fn one(world: &mut World, place: Place) -> Result<(), Broken> {
    let process = &mut world.processes[place.index()];
    match versions(process) {
        Ok(()) => Ok(()),
        Err(violation) => Err(world.broken(place, violation)),
    }
}

/// No state goes back, and none is larger than allowed.
fn versions(process: &mut Process) -> Result<(), Violation> {
    let place = process.place;
    for origin in 0..CLUSTERS {
        if place.is_hub() && origin == place.cluster {
            continue;
        }
        let Some(store) = process.store(item::id(origin)) else {
            continue;
        };
        let (to, records) = (store.version(), store.len());
        if place.is_hub() && records > RECORDS as usize {
            return Err(Violation::Unbounded {
                what: "records of an origin",
                size: records,
            });
        }
        let watch = process.watch_mut(origin);
        let from = watch.version;
        if to < from {
            return Err(Violation::VersionWentBack { origin, from, to });
        }
        watch.version = to;
    }
    Ok(())
}

/// A comparison found what changes should have told: nobody but hostile hands and restored sources may be at fault.
pub(super) fn repair(
    process: &Process,
    sources: &[Source],
    sender: Place,
    told: &Bytes,
) -> Result<(), Violation> {
    let message = Message::parse(told.clone()).ok();
    let origin = match message.and_then(|message| message.body) {
        Some(Body::Summary(summary)) => summary.origin,
        Some(Body::Delta(delta)) => delta.origin,
        _ => u32::from(u16::from(item::id(sender.cluster))),
    };
    let Some(origin) = item::cluster_of_number(origin) else {
        return Ok(());
    };
    // What was refused is not kept on disk: who starts again has to ask once.
    let forgot = process.life > 1 && sources[origin].overreached();
    let source = &sources[origin];
    if process.watch(origin).tainted || source.unsettled || source.excessive || forgot {
        return Ok(());
    }
    Err(Violation::RepairNeeded { origin })
}

/// I5: everything has healed some time ago, and everybody has what the sources say.
pub(super) fn everybody_agrees(world: &mut World) -> Result<(), Broken> {
    let mut held = Vec::new();
    for place in Place::all() {
        match agrees(&world.processes[place.index()], &world.sources) {
            Ok(content) => held.push(content),
            Err(violation) => return Err(world.broken(place, violation)),
        }
    }
    digests(world, &held)?;
    for process in &mut world.processes {
        for origin in 0..CLUSTERS {
            process.watch_mut(origin).tainted = false;
        }
        // What is on disk from before may be a state that hostile hands made.
        process.flush();
    }
    for source in &mut world.sources {
        source.unsettled = false;
        source.excessive = false;
    }
    Ok(())
}

/// What a process holds of an origin.
type Content = Vec<(Key, Bytes)>;

fn content(store: &Store) -> Content {
    let records = store.records();
    records.map(|(_, key, value)| (key, value)).collect()
}

/// What a process must have of an origin.
fn expected<'a>(process: &Process, source: &'a Source, own: bool) -> Vec<(&'a Key, &'a Bytes)> {
    let state = source.state().iter();
    let wanted = state.filter(|(key, _)| process.wants(key));
    let granted = wanted.filter(|(key, _)| own || (!key.is_private() && source.is_granted(key)));
    granted.map(|(key, (_, value))| (key, value)).collect()
}

/// Returns what it holds of each origin.
fn agrees(process: &Process, sources: &[Source]) -> Result<Vec<Content>, Violation> {
    let place = process.place;
    let mut held = Vec::with_capacity(sources.len());
    for (origin, source) in sources.iter().enumerate() {
        let wrong = |what: String| Violation::NotConverged { origin, what };
        let store = process.store(item::id(origin));
        let Some(store) = store else {
            return Err(wrong("nothing is there".to_owned()));
        };
        let have = content(store);
        let own = origin == place.cluster;
        if !(own && place.is_hub()) {
            if !store.is_complete() {
                return Err(wrong(format!("not complete, at {}", store.version())));
            }
            let expected = expected(process, source, own);
            if let Some(what) = difference(&have, &expected) {
                let (at, of) = (store.version(), source.version());
                return Err(wrong(format!("at {at} of {of}, {what}")));
            }
            let told = process.watch(origin).content();
            if !told.eq(borrowed(&have)) {
                return Err(Violation::EventsDiffer { origin });
            }
        }
        held.push(have);
    }
    Ok(held)
}

fn borrowed(content: &Content) -> impl Iterator<Item = (&Key, &Bytes)> {
    content.iter().map(|(key, value)| (key, value))
}

/// How it differs from what it must be.
fn difference(have: &Content, expected: &[(&Key, &Bytes)]) -> Option<String> {
    if borrowed(have).eq(expected.iter().copied()) {
        return None;
    }
    let missing = expected
        .iter()
        .find(|record| borrowed(have).all(|has| has != **record));
    let extra = borrowed(have).find(|(key, _)| expected.iter().all(|(other, _)| other != key));
    Some(format!(
        "{} records of {}; lacks or has older {:?}, has too much {:?}",
        have.len(),
        expected.len(),
        missing.map(|(key, _)| key),
        extra.map(|(key, _)| key),
    ))
}

/// Digests are equal where contents are, and only there.
fn digests(world: &World, held: &[Vec<Content>]) -> Result<(), Broken> {
    for origin in 0..CLUSTERS {
        let mut seen: Vec<(Place, Digest, &Content)> = Vec::new();
        for (process, held) in world.processes.iter().zip(held) {
            let Some(store) = process.store(item::id(origin)) else {
                continue;
            };
            let (digest, content) = (store.digest(), &held[origin]);
            for (with, other, its) in &seen {
                if (*other == digest) != (*its == content) {
                    let with = *with;
                    let violation = Violation::DigestLies { origin, with };
                    return Err(world.broken(process.place, violation));
                }
            }
            if seen.iter().all(|(_, _, its)| *its != content) {
                seen.push((process.place, digest, content));
            }
        }
    }
    Ok(())
}
