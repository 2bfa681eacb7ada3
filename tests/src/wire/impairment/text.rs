//! The words of an [`Impairment`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Chance, Impairment, Rate, Reorder};

/// The longest delay, jitter or hold: beyond it every handshake has given up.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest that a frame is held back for others.
const LONGEST_HOLD: Duration = Duration::from_secs(10);
/// The most frames that overtake one: more than twice what a replay window reaches back.
const DEEPEST: u32 = 20_000;
/// The slowest wire, in bits a second: a full frame takes 12 s there.
const SLOWEST: u64 = 1000;

const TIMES: [(&str, u64); 4] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
];
const RATES: [(&str, u64); 4] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
];
const SIZES: [(&str, u64); 3] = [("b", 1), ("kib", 1 << 10), ("mib", 1 << 20)];

impl fmt::Display for Chance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000_000, self.0 % 10_000_000);
        if rest == 0 {
            return write!(formatter, "{whole}%");
        }
        let rest = format!("{rest:07}");
        write!(formatter, "{whole}.{}%", rest.trim_end_matches('0'))
    }
}

impl FromStr for Chance {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let number = text.strip_suffix('%')?;
            let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            if whole.is_empty() || rest.len() > 7 || !digits(whole) || !digits(rest) {
                return None;
            }
            let parts: u32 = format!("{whole}{rest:0<7}").parse().ok()?;
            (parts <= Self::BILLION).then_some(Self(parts))
        };
        parsed()
            .with_context(|| format!("{text}: must be 0% to 100%, with 7 decimals at most: 0.5%"))
    }
}

/// A number and a unit, exactly: the largest unit that leaves no rest.
fn amount(value: u64, units: &[(&str, u64)]) -> String {
    let found = units
        .iter()
        .rev()
        .find(|(_, size)| value.is_multiple_of(*size));
    let (unit, size) = found.copied().unwrap_or(("", 1));
    format!("{}{unit}", value / size)
}

fn parse_amount(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let parsed = || {
        let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*size)
    };
    parsed().with_context(|| {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        format!(
            "{text}: must be a whole number with one of {}: {example}",
            names.join(", ")
        )
    })
}

fn time(duration: Duration) -> String {
    amount(
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
        &TIMES,
    )
}

fn parse_time(text: &str, longest: Duration) -> Result<Duration> {
    let duration = Duration::from_nanos(parse_amount(text, &TIMES, "20ms")?);
    ensure!(
        duration <= longest,
        "{text}: must be {} at most",
        time(longest)
    );
    Ok(duration)
}

impl fmt::Display for Impairment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut words, usual) = (Vec::new(), Reorder::default());
        let chance = |name: &str, chance: Chance| format!("{name} {chance}");
        if self.loss != Chance::NEVER {
            words.push(chance("loss", self.loss));
        }
        if self.duplicate != Chance::NEVER {
            words.push(chance("duplicate", self.duplicate));
        }
        if self.reorder.chance != Chance::NEVER {
            words.push(chance("reorder", self.reorder.chance));
        }
        if self.reorder.depth != usual.depth {
            words.push(format!("depth {}", self.reorder.depth));
        }
        if self.reorder.hold != usual.hold {
            words.push(format!("hold {}", time(self.reorder.hold)));
        }
        if self.corrupt != Chance::NEVER {
            words.push(chance("corrupt", self.corrupt));
        }
        if !self.delay.is_zero() {
            words.push(format!("delay {}", time(self.delay)));
        }
        if !self.jitter.is_zero() {
            words.push(format!("jitter {}", time(self.jitter)));
        }
        if let Some(rate) = self.rate {
            words.push(format!("rate {}", amount(rate.bits, &RATES)));
            if rate.queue != Rate::QUEUE {
                let queue = u64::try_from(rate.queue).unwrap_or(u64::MAX);
                words.push(format!("queue {}", amount(queue, &SIZES)));
            }
        }
        if let Some(mtu) = self.mtu {
            words.push(format!("mtu {mtu}"));
        }
        if self.cut {
            words.push("cut".to_owned());
        }
        if words.is_empty() {
            words.push("clean".to_owned());
        }
        formatter.write_str(&words.join(" "))
    }
}

impl FromStr for Impairment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().peekable();
        ensure!(
            words.peek().is_some(),
            "impairment: empty: write `clean` for a clean wire"
        );
        let (mut made, mut queue, mut seen) = (Self::default(), None, BTreeSet::new());
        while let Some(word) = words.next() {
            ensure!(seen.insert(word), "{word}: given twice: once is enough");
            match word {
                "cut" => made.cut = true,
                "clean" => ensure!(text.trim() == "clean", "clean: must stand alone"),
                "loss" | "duplicate" | "reorder" | "corrupt" | "depth" | "hold" | "delay"
                | "jitter" | "rate" | "queue" | "mtu" => {
                    let value = words
                        .next()
                        .with_context(|| format!("{word}: no value: write one behind it"))?;
                    made.read(word, value, &mut queue)
                        .map_err(|error| anyhow::anyhow!("{word}: {error:#}"))?;
                }
                _ => bail!(
                    "impairment: {word:?}: must be loss, duplicate, reorder, depth, hold, corrupt, delay, jitter, \
                     rate, queue, mtu, cut or clean"
                ),
            }
        }
        match (&mut made.rate, queue) {
            (Some(rate), Some(bytes)) => rate.queue = bytes,
            (None, Some(_)) => bail!("queue: without a rate nothing waits: name a rate as well"),
            (_, None) => {}
        }
        Ok(made)
    }
}

impl Impairment {
    fn read(&mut self, word: &str, value: &str, queue: &mut Option<usize>) -> Result<()> {
        match word {
            "loss" => self.loss = value.parse()?,
            "duplicate" => self.duplicate = value.parse()?,
            "reorder" => self.reorder.chance = value.parse()?,
            "corrupt" => self.corrupt = value.parse()?,
            "depth" => {
                let depth = value.parse().ok();
                self.reorder.depth = depth
                    .filter(|depth| (1..=DEEPEST).contains(depth))
                    .with_context(|| format!("{value}: must be 1 to {DEEPEST} frames"))?;
            }
            "hold" => self.reorder.hold = parse_time(value, LONGEST_HOLD)?,
            "delay" => self.delay = parse_time(value, LONGEST)?,
            "jitter" => self.jitter = parse_time(value, LONGEST)?,
            "rate" => {
                let bits = parse_amount(value, &RATES, "100mbit")?;
                ensure!(bits >= SLOWEST, "{value}: must be 1kbit at least");
                let queue = Rate::QUEUE;
                self.rate = Some(Rate { bits, queue });
            }
            "queue" => {
                *queue = Some(usize::try_from(parse_amount(value, &SIZES, "64kib")?)?);
            }
            _ => {
                let mtu = value.parse().ok();
                let mtu = mtu.filter(|mtu| (68..=65_535).contains(mtu));
                self.mtu =
                    Some(mtu.with_context(|| format!("{value}: must be 68 to 65535 bytes"))?);
            }
        }
        Ok(())
    }
}

impl From<Impairment> for String {
    fn from(impairment: Impairment) -> Self {
        impairment.to_string()
    }
}

impl TryFrom<String> for Impairment {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
