//! Which counters were seen (RFC 6479).

/// Words of the ring: those of the window, and one that the highest counter has only begun.
const WORDS: usize = 8192 / 64 + 1;

/// How many counters the window holds: one that is so far behind the highest is too old.
const DEPTH: u64 = (WORDS as u64 - 1) * 64;

/// The counters of one session that came.
pub(super) struct Window {
    /// One more than the highest.
    next: u64,
    /// A bit for each, by counter modulo the length.
    seen: [u64; WORDS],
}

fn place(counter: u64) -> (usize, u64) {
    let word = (counter / 64) % WORDS as u64;
    (
        usize::try_from(word).unwrap_or_default(),
        1 << (counter % 64),
    )
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// Whether a counter is new and not too old.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter < u64::MAX;
        }
        let (word, bit) = place(counter);
        self.next - counter <= DEPTH && self.seen[word] & bit == 0
    }

    /// Remembers a counter, whose message was opened. Returns whether it was new.
    pub(super) fn mark(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) / 64;
            for word in (newest + 1..=counter / 64).take(self.seen.len()) {
                self.seen[place(word * 64).0] = 0;
            }
            self.next = counter + 1;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The same by a list of all that came.
    #[derive(Default)]
    struct Slow {
        seen: BTreeSet<u64>,
    }

    impl Slow {
        fn mark(&mut self, counter: u64) -> bool {
            let highest = self.seen.last().copied().unwrap_or_default();
            highest.saturating_sub(counter) < DEPTH && self.seen.insert(counter)
        }
    }

    /// Numbers that differ enough: xorshift64.
    fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        }
    }

    #[test]
    fn a_million_counters_in_any_order_are_judged_as_by_a_list_of_all_that_came() {
        let (mut taken, mut refused) = (0_u64, 0_u64);
        for seed in 1..=20 {
            let mut number = numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let (mut window, mut slow) = (Window::new(), Slow::default());
            let mut highest = number(2) * number(1 << 60);
            for _ in 0..50_000 {
                let counter = match number(100) {
                    0 => highest + number(3 * DEPTH),
                    1..=40 => highest + number(3),
                    41..=60 => highest.saturating_sub(number(2 * DEPTH)),
                    61..=70 => highest.saturating_sub(DEPTH - 2 + number(5)),
                    _ => highest.saturating_sub(number(200)),
                };
                highest = highest.max(counter);
                let new = window.is_new(counter);
                assert_eq!(new, window.mark(counter), "{counter}");
                assert_eq!(
                    new,
                    slow.mark(counter),
                    "seed {seed}: {counter} of {highest}"
                );
                if new { taken += 1 } else { refused += 1 }
            }
        }
        assert!(taken > 100_000 && refused > 100_000, "{taken} {refused}");
    }

    #[test]
    fn the_window_is_as_deep_as_it_says_wherever_it_stands() {
        for start in [0, 1, 63, 64, 65, 1 << 20, u64::MAX - 2 * DEPTH] {
            let mut window = Window::new();
            assert!(window.mark(start + DEPTH));
            assert!(!window.is_new(start), "one too old");
            assert!(window.mark(start + 1), "the oldest");
            assert!(!window.is_new(start + 1), "again");
        }
    }

    #[test]
    fn the_last_numbers_overflow_nothing() {
        let mut window = Window::new();
        assert!(window.mark(u64::MAX - 1));
        assert!(!window.mark(u64::MAX));
        assert!(!window.mark(u64::MAX - 1));
        assert!(!window.mark(0));
    }
}
