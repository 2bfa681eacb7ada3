//! When a certificate is renewed, and when that is tried again.

use crate::ca::EARLY;
use std::time::{Duration, SystemTime};

/// The first wait after a failure; each one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// All nodes of a cluster have a certificate of the new CA so long after it was rolled.
const SUPERSEDED: Duration = Duration::from_secs(20);

/// What somebody who has a certificate, or wants one, must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Get one by a token: there is none that a hub would take.
    First,
    /// Get the next one by showing the present one.
    Renew,
    /// Nothing until then.
    Nothing(SystemTime),
}

/// How long a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it was made; it is dated back a little.
    pub made: SystemTime,
    /// When it ends.
    pub ends: SystemTime,
}

impl Validity {
    /// Of a certificate that our own CA has dated.
    pub fn of(not_before: SystemTime, not_after: SystemTime) -> Self {
        let made = (not_before + EARLY).min(not_after);
        Self {
            made,
            ends: not_after,
        }
    }

    /// Half of its life, less up to a tenth of it by lot, so that many who began together do not come together.
    fn half(&self, lot: u64) -> SystemTime {
        let life = self.ends.duration_since(self.made).unwrap_or_default();
        let tenth = u64::try_from((life / 10).as_millis()).unwrap_or(u64::MAX);
        let early = Duration::from_millis(lot.checked_rem(tenth).unwrap_or(0));
        self.made + life / 2 - early
    }
}

/// Keeps one certificate good.
#[derive(Clone, Debug)]
pub struct Renewal {
    validity: Option<Validity>,
    lot: u64,
    failures: u32,
    /// Earlier than by its age.
    due: Option<SystemTime>,
    not_before: Option<SystemTime>,
}

impl Renewal {
    /// Begins with a certificate, or with none; `lot` is drawn by lot.
    pub fn new(validity: Option<Validity>, lot: u64) -> Self {
        Self {
            validity,
            lot,
            failures: 0,
            due: None,
            not_before: None,
        }
    }

    /// What is to be done now.
    pub fn need(&self, now: SystemTime) -> Need {
        if let Some(later) = self.not_before.filter(|later| now < *later) {
            // A clock that was set back makes nobody wait longer than that.
            if later
                .duration_since(now)
                .is_ok_and(|wait| wait <= LONGEST_WAIT)
            {
                return Need::Nothing(later);
            }
        }
        match self.validity {
            Some(validity) if now < validity.ends => {
                let half = validity.half(self.lot);
                let half = self.due.map_or(half, |due| due.min(half));
                if now < half {
                    Need::Nothing(half)
                } else {
                    Need::Renew
                }
            }
            Some(_) | None => Need::First,
        }
    }

    /// Another CA signs by now: the next certificate is due soon, by lot within [`SUPERSEDED`].
    pub fn handle_superseded(&mut self, now: SystemTime) {
        let within = u64::try_from(SUPERSEDED.as_millis()).unwrap_or(u64::MAX);
        let lot = self.lot.checked_rem(within).unwrap_or(0);
        self.due
            .get_or_insert_with(|| now + Duration::from_millis(lot));
    }

    /// There is a new certificate.
    pub fn handle_done(&mut self, validity: Validity) {
        *self = Self::new(Some(validity), self.lot);
    }

    /// It did not succeed.
    pub fn handle_failed(&mut self, now: SystemTime) {
        let wait = FIRST_WAIT * 2u32.saturating_pow(self.failures.min(6));
        let wait = wait.min(LONGEST_WAIT);
        let quarter = u64::try_from((wait / 4).as_millis()).unwrap_or(u64::MAX);
        let early = Duration::from_millis(self.lot.checked_rem(quarter).unwrap_or(0));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait - early);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn day() -> Validity {
        Validity::of(at(0) - EARLY, at(86_400))
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_and_asked_for_anew_at_its_end() {
        let renewal = Renewal::new(Some(day()), 0);
        assert_eq!(renewal.need(at(0)), Need::Nothing(at(43_200)));
        assert_eq!(renewal.need(at(43_199)), Need::Nothing(at(43_200)));
        assert_eq!(renewal.need(at(43_200)), Need::Renew);
        assert_eq!(renewal.need(at(86_399)), Need::Renew);
        assert_eq!(renewal.need(at(86_400)), Need::First);
        assert_eq!(Renewal::new(None, 0).need(at(0)), Need::First);
    }

    #[test]
    fn many_who_began_together_come_within_a_tenth_of_the_life() {
        for lot in [1, 77, u64::MAX, 8_639_999] {
            let Need::Nothing(due) = Renewal::new(Some(day()), lot).need(at(0)) else {
                panic!("not yet");
            };
            assert!(at(43_200 - 8_640) <= due && due < at(43_200), "{lot}");
        }
    }

    #[test]
    fn failures_wait_longer_and_longer_and_never_longer_than_a_minute() {
        let mut renewal = Renewal::new(Some(day()), 0);
        let mut now = at(50_000);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(renewal.need(now), Need::Renew);
            renewal.handle_failed(now);
            let Need::Nothing(later) = renewal.need(now) else {
                panic!("it waits");
            };
            waits.push(later.duration_since(now).unwrap().as_secs());
            now = later;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // The clock is set back by a day: it does not wait that long.
        assert_eq!(renewal.need(now - Duration::from_secs(3000)), Need::Renew);
        renewal.handle_done(Validity::of(now - EARLY, now + Duration::from_secs(100)));
        assert_eq!(
            renewal.need(now),
            Need::Nothing(now + Duration::from_secs(50))
        );
        renewal.handle_failed(now);
        assert_eq!(
            renewal.need(now),
            Need::Nothing(now + Duration::from_secs(1))
        );
    }

    #[test]
    fn after_a_roll_of_the_ca_all_come_within_a_short_time() {
        for lot in [0, 77, 19_999, u64::MAX] {
            let mut renewal = Renewal::new(Some(day()), lot);
            renewal.handle_superseded(at(100));
            let Need::Nothing(due) = renewal.need(at(99)) else {
                panic!("not yet");
            };
            assert!(at(100) <= due && due < at(100) + SUPERSEDED, "{lot}");
            // Told twice, it does not wait longer.
            renewal.handle_superseded(at(110));
            assert_eq!(renewal.need(due), Need::Renew);
            renewal.handle_done(Validity::of(at(120) - EARLY, at(120 + 86_400)));
            assert!(matches!(renewal.need(at(200)), Need::Nothing(_)));
        }
    }

    #[test]
    fn odd_lives_are_borne() {
        for (from, to) in [(0, 0), (100, 0), (0, 1)] {
            let validity = Validity::of(at(1000 + from), at(1000 + to));
            let renewal = Renewal::new(Some(validity), u64::MAX);
            assert_eq!(renewal.need(at(5000)), Need::First);
            let _ = renewal.need(at(0));
        }
    }
}
