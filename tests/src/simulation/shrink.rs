//! Makes a failing story short: leaves acts out for as long as the same invariant breaks (delta debugging).

use super::story::Story;
use super::violation::Broken;
use super::{Outcome, run};

/// Stories that are tried at most.
const TRIES: u32 = 2_000;

/// The shortest story found that breaks the same invariant as `story`, and how it does.
pub(super) fn shrink(story: &Story, broken: Broken) -> (Story, Broken) {
    let name = broken.name();
    let mut best = (story.clone(), broken);
    // Nothing that comes after matters.
    let end = best.1.at;
    let mut acts = best.0.acts.clone();
    acts.retain(|act| act.at <= end);
    let mut tries = 0;
    let mut attempt = |acts: Vec<_>, best: &mut (Story, Broken)| {
        tries += 1;
        let shorter = story.of_acts(acts);
        match run(&shorter) {
            Outcome::Broken(broken) if broken.name() == name => {
                *best = (shorter, broken);
                Some(true)
            }
            Outcome::Held(_) | Outcome::Broken(_) if tries >= TRIES => None,
            Outcome::Held(_) | Outcome::Broken(_) => Some(false),
        }
    };
    if attempt(acts, &mut best).is_none() {
        return best;
    }
    let mut chunk = best.0.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shortened = false;
        while at < best.0.len() {
            let mut acts = best.0.acts.clone();
            let end = (at + chunk).min(acts.len());
            acts.drain(at..end);
            match attempt(acts, &mut best) {
                Some(true) => shortened = true,
                Some(false) => at += chunk,
                None => return best,
            }
        }
        if chunk == 1 && !shortened {
            return best;
        }
        chunk = (chunk / 2).max(1);
    }
}
