//! When subscribers have had newer states than there are: the source was restored from a backup.

use crate::record::{Incarnation, Version};
use crate::replica::MAX_INCARNATION_STEP;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least time between two new incarnations: who lies about what it had cannot make everybody compare all the time.
const PAUSE: Duration = Duration::from_secs(60);
/// How long what somebody said counts.
const MEMORY: Duration = Duration::from_secs(60);
/// How long a replica that does not write tells on what it heard. Who still says so, is heard again by then.
const TELLING: Duration = Duration::from_secs(15);
/// The least time until the same is told again.
const TELLING_PAUSE: Duration = Duration::from_secs(1);
/// The most claims that are told at a time. Fewer are believed already.
pub const MAX_TOLD: usize = 16;
/// So many agents are believed, however many there are.
const AGENTS: usize = 3;

/// Who says that it had a newer state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// A hub of another cluster.
    Hub(ClusterId),
    /// An agent of our own cluster.
    Agent(NodeIndex),
}

/// What follows from a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing, yet.
    Wait,
    /// Go on under this incarnation.
    Bump(Incarnation),
    /// Nobody can have had that: cut it off.
    Implausible,
}

/// What somebody says to have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub who: Witness,
    /// What.
    pub seen: Version,
}

/// Believes another cluster's hub, or several agents: the credential of one stolen node is not enough.
#[derive(Debug, Default)]
pub struct Bump {
    claims: BTreeMap<Witness, (Version, Instant)>,
    last: Option<Instant>,
    told: Option<(Instant, Vec<Claim>)>,
}

impl Bump {
    /// Takes a claim against `ours`. `nodes`: how many nodes the own cluster has.
    pub fn hear(&mut self, claim: Claim, ours: Version, nodes: usize, now: Instant) -> Judgement {
        let Claim { who, seen } = claim;
        if is_implausible(seen, ours) {
            return Judgement::Implausible;
        }
        self.claims.insert(who, (seen, now));
        self.claims
            .retain(|_, (seen, at)| *seen > ours && now < *at + MEMORY);
        if self.last.is_some_and(|last| now < last + PAUSE) || !self.is_believed(nodes) {
            return Judgement::Wait;
        }
        let heard = self.claims.values().map(|(seen, _)| seen.incarnation).max();
        self.claims.clear();
        self.last = Some(now);
        let greatest = heard.unwrap_or_default().max(ours.incarnation);
        Judgement::Bump(Incarnation(greatest.0.saturating_add(1)))
    }

    /// Takes a claim where nothing is decided. Returns what the replica that writes is to be told of, the newest states
    /// first; nothing if just that was told a moment ago.
    pub fn pass_on(&mut self, claim: Claim, ours: Version, now: Instant) -> Vec<Claim> {
        self.claims.insert(claim.who, (claim.seen, now));
        self.claims
            .retain(|_, (seen, at)| *seen > ours && now < *at + TELLING);
        let claims = self.claims.iter();
        let mut claims: Vec<Claim> = claims
            .map(|(who, (seen, _))| Claim {
                who: *who,
                seen: *seen,
            })
            .collect();
        claims.sort_by_key(|claim| (std::cmp::Reverse(claim.seen), claim.who));
        claims.truncate(MAX_TOLD);
        let was_told =
            |(at, told): &(Instant, Vec<Claim>)| now < *at + TELLING_PAUSE && *told == claims;
        if claims.is_empty() || self.told.as_ref().is_some_and(was_told) {
            return Vec::new();
        }
        self.told = Some((now, claims.clone()));
        claims
    }

    fn is_believed(&self, nodes: usize) -> bool {
        let is_hub = |who: &Witness| matches!(who, Witness::Hub(_));
        let hubs = self.claims.keys().filter(|who| is_hub(who)).count();
        let agents = self.claims.len() - hubs;
        hubs > 0 || agents >= AGENTS || (agents > 0 && agents * 2 > nodes)
    }
}

/// Whether nobody can have had that.
pub fn is_implausible(seen: Version, ours: Version) -> bool {
    seen.incarnation.0 > ours.incarnation.0.saturating_add(MAX_INCARNATION_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Version = Version::new(2, 50);

    fn agent(number: u16) -> Witness {
        Witness::Agent(NodeIndex::new(number).unwrap())
    }

    fn hub() -> Witness {
        Witness::Hub(ClusterId::new(9).unwrap())
    }

    fn claim(who: Witness, seen: Version) -> Claim {
        Claim { who, seen }
    }

    #[test]
    fn one_agent_of_many_is_not_believed_and_three_are() {
        let (mut bump, now) = (Bump::default(), Instant::now());
        let seen = Version::new(2, 60);
        for _ in 0..5 {
            assert_eq!(
                bump.hear(claim(agent(1), seen), OURS, 10, now),
                Judgement::Wait
            );
        }
        assert_eq!(
            bump.hear(claim(agent(2), seen), OURS, 10, now),
            Judgement::Wait
        );
        let judged = bump.hear(claim(agent(3), seen), OURS, 10, now);
        assert_eq!(judged, Judgement::Bump(Incarnation(3)));
    }

    #[test]
    fn another_clusters_hub_is_believed_once_a_minute() {
        let (mut bump, now) = (Bump::default(), Instant::now());
        let judged = bump.hear(claim(hub(), Version::new(7, 1)), OURS, 10, now);
        assert_eq!(judged, Judgement::Bump(Incarnation(8)));
        let ours = Version::new(8, 51);
        let seen = Version::new(9, 1);
        let soon = now + Duration::from_secs(59);
        assert_eq!(
            bump.hear(claim(hub(), seen), ours, 10, soon),
            Judgement::Wait
        );
        let later = now + PAUSE;
        let judged = bump.hear(claim(hub(), seen), ours, 10, later);
        assert_eq!(judged, Judgement::Bump(Incarnation(10)));
    }

    #[test]
    fn what_nobody_can_have_had_is_implausible() {
        let (mut bump, now) = (Bump::default(), Instant::now());
        let judged = bump.hear(claim(hub(), Version::new(1003, 1)), OURS, 10, now);
        assert_eq!(judged, Judgement::Implausible);
    }

    #[test]
    fn what_a_follower_hears_is_told_on_in_small_numbers_and_not_again_and_again() {
        let (mut bump, now) = (Bump::default(), Instant::now());
        let claim = |number, revision| claim(agent(number), Version::new(2, revision));
        assert_eq!(bump.pass_on(claim(9, 50), OURS, now), [], "we have that");
        assert_eq!(bump.pass_on(claim(1, 60), OURS, now), [claim(1, 60)]);
        assert_eq!(bump.pass_on(claim(1, 60), OURS, now), []);
        for number in 2..40 {
            let claim = claim(number, 60 + u64::from(number));
            let told = bump.pass_on(claim, OURS, now);
            assert_eq!((told.len(), told[0]), (MAX_TOLD.min(number.into()), claim));
        }
        assert_eq!(bump.pass_on(claim(1, 60), OURS, now), []);
        let later = now + TELLING_PAUSE;
        let told = bump.pass_on(claim(1, 60), OURS, later);
        assert_eq!((told.len(), told[0]), (MAX_TOLD, claim(39, 99)));
        let later = now + TELLING;
        let told = bump.pass_on(claim(2, 62), OURS, later);
        assert_eq!(told, [claim(2, 62), claim(1, 60)]);
    }

    #[test]
    fn claims_that_we_reached_meanwhile_do_not_count() {
        let (mut bump, now) = (Bump::default(), Instant::now());
        bump.hear(claim(agent(1), Version::new(2, 60)), OURS, 10, now);
        bump.hear(claim(agent(2), Version::new(2, 60)), OURS, 10, now);
        let ours = Version::new(2, 61);
        let judged = bump.hear(claim(agent(3), Version::new(2, 62)), ours, 10, now);
        assert_eq!(judged, Judgement::Wait);
    }
}
