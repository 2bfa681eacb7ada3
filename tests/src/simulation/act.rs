//! Performs the acts of a story.

use bytes::Bytes;
use hawser_mesh::record::Key;

use super::clock::{MS, Moment, SECOND};
use super::dice::Dice;
use super::item;
use super::network::Way;
use super::shape::{CLUSTERS, ITEMS, Place};
use super::source::Source;
use super::story::{Deed, Keeps, Manner, Story};
use super::violation::Broken;
use super::world::{Happening, World};

/// How long hostile hands stay at a session.
const HOSTILE: Moment = 3 * SECOND;
/// Records of a flood. More than [`super::process::RECORDS`] allows.
const FLOOD: u8 = 56;
/// The first item of a flood; those before are everyday things.
const FLOOD_FIRST: u8 = 7 * 12;

/// A cluster's source as it is in the beginning.
pub(super) fn first_source(cluster: usize) -> Source {
    let mut source = Source::new();
    let mut changes = Vec::new();
    // Without its node an agent is nobody.
    let items = (0..ITEMS).step_by(2).chain(item::NODES.into_iter().skip(1));
    for (ordinal, item) in (source.next_ordinal()..).zip(items) {
        let (key, value) = item::record(cluster, item, ordinal);
        changes.push((key, Some(value)));
    }
    source.commit(0, true, changes);
    source
}

/// Performs one act.
pub(super) fn perform(world: &mut World, story: &Story, number: usize) -> Result<(), Broken> {
    let act = story.acts[number];
    let mut dice = Dice::new(act.draw, 4);
    let now = world.now;
    match act.deed {
        Deed::Put { cluster, item } => put(world, cluster, &[item], &mut dice),
        Deed::Batch { cluster, items } => {
            let items: Vec<_> = (0..items).map(|_| any_item(&mut dice)).collect();
            put(world, cluster, &items, &mut dice);
        }
        Deed::Remove { cluster, item } => remove(world, cluster, &[item], &mut dice),
        Deed::Flush { place } => world.process(place).flush(),
        Deed::Break { place } => {
            let sessions: Vec<_> = world.process(place).sessions().collect();
            if !sessions.is_empty() {
                world.break_session(sessions[dice.index(sessions.len())]);
            }
        }
        Deed::BreakAll { place } => {
            let sessions: Vec<_> = world.process(place).sessions().collect();
            for session in sessions {
                world.break_session(session);
            }
        }
        Deed::Loss { place, lasts } => world.network.lose(place, now + lasts),
        Deed::Reorder { place, lasts } => world.network.shuffle(place, now + lasts),
        Deed::Partition { sides, lasts } => partition(world, sides, now + lasts),
        Deed::Cut { place, lasts } => {
            for other in Place::all().filter(|other| *other != place) {
                world.network.cut(place, other, now + lasts);
                world.network.cut(other, place, now + lasts);
            }
            world.doubt(place, |_| true);
        }
        Deed::OneWay { from, to, lasts } => {
            world.network.cut(from, to, now + lasts);
            world.doubt(from, |other| other == to);
        }
        Deed::SlowReader { place, lasts } => {
            let process = world.process(place);
            process.deaf = process.deaf.max(now + lasts);
        }
        Deed::Stall { place, lasts } => {
            let process = world.process(place);
            process.stalled = process.stalled.max(now + lasts);
            world.doubt(place, |_| true);
        }
        Deed::Crash {
            place,
            lasts,
            keeps,
        } => crash(world, place, lasts, keeps),
        Deed::Outage {
            cluster,
            lasts,
            keeps,
        } => {
            for place in Place::all_of(cluster) {
                let sooner = dice.below(SECOND).min(lasts);
                crash(world, place, lasts - sooner, keeps);
            }
        }
        Deed::ChangeReplica { place } => {
            let sessions: Vec<_> = world.process(place).sessions().collect();
            for session in sessions {
                world.break_session(session);
            }
        }
        Deed::Lag { place, lasts } => {
            let process = world.process(place);
            process.lag = process.lag.max(now + lasts);
            world.after(lasts, Happening::Follow { place });
        }
        Deed::Restore { cluster, lacks } => {
            let source = &mut world.sources[cluster];
            source.restore(lacks.into());
            // A flood that had been taken back may be there again.
            source.excessive = true;
            world.after(SECOND, Happening::Drain { cluster });
            // Whoever follows a source that goes back begins anew.
            for place in Place::hubs_of(cluster) {
                crash(world, place, dice.below(SECOND), Keeps::All);
            }
        }
        Deed::Skew { place, percent } => {
            let process = world.process(place);
            process.clock.skew(now, percent.into());
            return world.settle(place);
        }
        Deed::Jump { place, by } => {
            let process = world.process(place);
            process.clock.jump(now, by);
            return world.settle(place);
        }
        Deed::Refilter { place } => {
            let filter = 1 + dice.index(item::FILTERS - 1);
            let process = world.process(place);
            process.refilter(filter, now);
            return world.settle(place);
        }
        Deed::Hostile { place, manner } => hostile(world, place, manner, dice),
        Deed::Overreach { cluster, item } => {
            let source = &mut world.sources[cluster];
            let (key, value) = item::overreach(cluster, item, source.next_ordinal());
            source.commit(0, false, vec![(key, Some(value))]);
            tell_followers(world, cluster);
        }
        Deed::Flood { cluster, lasts } => {
            let items: Vec<_> = (0..FLOOD).map(|at| FLOOD_FIRST + at).collect();
            world.sources[cluster].excessive = true;
            put(world, cluster, &items, &mut dice);
            world.after(lasts, Happening::Drain { cluster });
        }
        Deed::Churn { cluster, lasts } => {
            // Some changes each 100 ms, many times what the quota allows.
            let times = (lasts / (100 * MS)).clamp(1, 20);
            for _ in 0..times {
                let items = [any_item(&mut dice), any_item(&mut dice)];
                put(world, cluster, &items, &mut dice);
            }
        }
        Deed::Impostor { cluster, claims } => {
            for place in Place::hubs_of(cluster) {
                let asked = world.process(place).ask_in(claims);
                asked.map_err(|violation| world.broken(place, violation))?;
                world.settle(place)?;
            }
        }
    }
    Ok(())
}

fn any_item(dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(ITEMS.into())).expect("items are few")
}

fn put(world: &mut World, cluster: usize, items: &[u8], dice: &mut Dice) {
    let source = &mut world.sources[cluster];
    let mut changes: Vec<(Key, Option<Bytes>)> = Vec::new();
    for item in items {
        let ordinal = source.next_ordinal() + u64::try_from(changes.len()).expect("it is small");
        let (key, value) = item::record(cluster, *item, ordinal);
        if changes.iter().all(|(other, _)| *other != key) {
            changes.push((key, Some(value)));
        }
    }
    source.commit(dice.below(3), true, changes);
    tell_followers(world, cluster);
}

fn remove(world: &mut World, cluster: usize, items: &[u8], dice: &mut Dice) {
    let source = &mut world.sources[cluster];
    let items = items.iter().filter(|item| !item::NODES.contains(item));
    let keys = items.map(|item| item::record(cluster, *item, 0).0);
    let changes: Vec<_> = keys
        .filter(|key| source.state().contains_key(key))
        .map(|key| (key, None))
        .collect();
    if !changes.is_empty() {
        source.commit(dice.below(3), true, changes);
        tell_followers(world, cluster);
    }
}

/// Sources that were restored say something new, and pass every revision that they had before: one agent alone is not
/// believed that there was a later state.
pub(super) fn move_on(world: &mut World) {
    for cluster in 0..CLUSTERS {
        let source = &mut world.sources[cluster];
        if source.unsettled {
            let (key, value) = item::record(cluster, item::NODES[0], source.next_ordinal());
            source.commit(100, true, vec![(key, Some(value))]);
            tell_followers(world, cluster);
        }
    }
}

/// Takes a flood back.
pub(super) fn drain(world: &mut World, cluster: usize) {
    let items: Vec<_> = (0..FLOOD).map(|at| FLOOD_FIRST + at).collect();
    let mut dice = Dice::new(world.now, 5);
    remove(world, cluster, &items, &mut dice);
}

/// Replicas hear of a change, each in its own time.
pub(super) fn tell_followers(world: &mut World, cluster: usize) {
    for place in Place::hubs_of(cluster) {
        let wait = world.dice.between(MS, 40 * MS);
        world.after(wait, Happening::Follow { place });
    }
}

fn crash(world: &mut World, place: Place, lasts: Moment, keeps: Keeps) {
    if !world.process(place).is_up() {
        return;
    }
    world.process(place).keep(keeps);
    world.kill(place);
    world.after(lasts, Happening::Start { place });
}

fn partition(world: &mut World, sides: u16, until: Moment) {
    let side = |place: Place| sides >> place.cluster & 1;
    for from in Place::all() {
        for to in Place::all() {
            if side(from) != side(to) {
                world.network.cut(from, to, until);
            }
        }
    }
    for place in Place::all().filter(|place| side(*place) == 1) {
        world.doubt(place, |other| side(other) != 1);
    }
}

/// Hostile hands get at a session of a process, on one way.
fn hostile(world: &mut World, place: Place, manner: Manner, mut dice: Dice) {
    let sessions: Vec<_> = world.process(place).sessions().collect();
    if sessions.is_empty() {
        return;
    }
    let session = sessions[dice.index(sessions.len())];
    let way = if dice.percent(70) { Way::Down } else { Way::Up };
    let (subscriber, publisher, before) = {
        let session = world.network.session(session);
        (
            session.subscriber,
            session.publisher,
            session.hostile.is_some(),
        )
    };
    // An agent's own hub is no enemy of its agent; but its session is as good as any for the rest.
    let forges = manner == Manner::Forge && way == Way::Down && !subscriber.is_hub();
    if before || forges {
        return;
    }
    if way == Way::Down {
        let origin = subscriber.is_hub().then_some(publisher.cluster);
        world.process(subscriber).taint(origin);
        if subscriber.is_hub() {
            for agent in Place::agents_of(subscriber.cluster) {
                world.process(agent).taint(origin);
            }
        }
    }
    world.network.turn(session, way, manner, dice);
    world.after(HOSTILE, Happening::Release { session });
}
