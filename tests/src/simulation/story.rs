//! What happens in a world, and when: drawn from a seed, and whole without any of its parts, so that it can be
//! shortened.

use std::fmt;

use super::clock::{MS, Moment, SECOND};
use super::dice::Dice;
use super::shape::{CLUSTERS, ITEMS, Place, agents, hubs};

/// Acts end, and everything heals, so long before a round's end.
pub(super) const CALM: Moment = 30 * SECOND;
/// A world's time is cut into rounds. At the end of each everybody must agree.
pub(super) const ROUND: Moment = 200 * SECOND;
/// How many rounds a world lasts.
pub(super) const ROUNDS: u64 = 3;

/// Faults in each round.
const FAULTS: u64 = 67;
/// Changes of sources in each round that are no faults.
const CHANGES: u64 = 24;
/// How long most faults last at most.
const LASTS: Moment = 12 * SECOND;

/// A world's acts, in the order of time.
#[derive(Clone, Debug)]
pub struct Story {
    /// It was drawn from this.
    pub seed: u64,
    pub(super) acts: Vec<Act>,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    pub(super) at: Moment,
    /// What is drawn for it.
    pub(super) draw: u64,
    pub(super) deed: Deed,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A source has a new state of a thing.
    Put { cluster: usize, item: u8 },
    /// A source loses a thing.
    Remove { cluster: usize, item: u8 },
    /// A source changes many things at once, in one revision.
    Batch { cluster: usize, items: u8 },
    /// What a process has is on its disk.
    Flush { place: Place },
    /// From here on: faults. A session breaks.
    Break { place: Place },
    /// All sessions of a process break.
    BreakAll { place: Place },
    /// Packets are lost: what is sent comes late, after retransmissions.
    Loss { place: Place, lasts: Moment },
    /// Streams and sessions overtake each other.
    Reorder { place: Place, lasts: Moment },
    /// Some clusters cannot reach the others.
    Partition { sides: u16, lasts: Moment },
    /// A process is cut off from all others.
    Cut { place: Place, lasts: Moment },
    /// Nothing gets from one process to another; the other way is open.
    OneWay {
        from: Place,
        to: Place,
        lasts: Moment,
    },
    /// A process reads nothing.
    SlowReader { place: Place, lasts: Moment },
    /// A process stands still.
    Stall { place: Place, lasts: Moment },
    /// A process dies and starts again.
    Crash {
        place: Place,
        lasts: Moment,
        keeps: Keeps,
    },
    /// All processes of a cluster die and start again.
    Outage {
        cluster: usize,
        lasts: Moment,
        keeps: Keeps,
    },
    /// An agent goes to another replica.
    ChangeReplica { place: Place },
    /// A replica hears late of its source.
    Lag { place: Place, lasts: Moment },
    /// A source is restored from a backup that lacks so many of its changes.
    Restore { cluster: usize, lacks: u8 },
    /// A clock runs fast or slow.
    Skew { place: Place, percent: u8 },
    /// A clock jumps ahead.
    Jump { place: Place, by: Moment },
    /// An agent wants something else.
    Refilter { place: Place },
    /// Messages of a session are not what its honest end sent.
    Hostile { place: Place, manner: Manner },
    /// A cluster announces what it was not granted.
    Overreach { cluster: usize, item: u8 },
    /// A cluster announces more records than its quota, and takes them back in time.
    Flood { cluster: usize, lasts: Moment },
    /// A cluster changes more in a second than its quota.
    Churn { cluster: usize, lasts: Moment },
    /// Another cluster, whose ID is one that is taken, wants in.
    Impostor { cluster: usize, claims: usize },
}

/// What a process that starts again has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Everything.
    All,
    /// What was last flushed.
    Flushed,
    /// Nothing.
    Nothing,
}

/// What is done to messages of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Drop,
    Double,
    Swap,
    Truncate,
    Replay,
    Garble,
    Forge,
}

impl Manner {
    const ALL: [Self; 7] = [
        Self::Drop,
        Self::Double,
        Self::Swap,
        Self::Truncate,
        Self::Replay,
        Self::Garble,
        Self::Forge,
    ];
}

impl Deed {
    /// Whether it is a fault, and not a part of everyday life.
    pub(super) fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Put { .. } | Self::Remove { .. } | Self::Batch { .. } | Self::Flush { .. }
        )
    }
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let mut acts = Vec::new();
        for round in 0..ROUNDS {
            let begin = round * ROUND;
            let mut restored = [false; CLUSTERS];
            for _ in 0..CHANGES {
                let at = begin + dice.below(ROUND - CALM - SECOND);
                let deed = change(&mut dice);
                acts.push(act(&mut dice, at, deed));
            }
            for _ in 0..FAULTS {
                let within = dice.below(ROUND - CALM - SECOND);
                let left = ROUND - CALM - within;
                let mut deed = fault(&mut dice, left);
                // An origin that exceeded its quota is tried again once a minute.
                let late = within > 90 * SECOND;
                if matches!(deed, Deed::Flood { .. }) && late {
                    let place = any_place(&mut dice);
                    deed = Deed::Break { place };
                }
                if let Deed::Restore { cluster, .. } = deed {
                    // The rule against bumps in a row lets one minute pass between two.
                    if within > 100 * SECOND || std::mem::replace(&mut restored[cluster], true) {
                        deed = Deed::BreakAll {
                            place: any_place(&mut dice),
                        };
                    }
                }
                acts.push(act(&mut dice, begin + within, deed));
            }
        }
        acts.sort_by_key(|act| act.at);
        Self { seed, acts }
    }

    /// How many of its acts are faults.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.acts.iter().filter(|act| act.deed.is_fault()).count()
    }

    /// How many acts it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.acts.len()
    }

    /// Whether nothing happens in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    pub(super) fn of_acts(&self, acts: Vec<Act>) -> Self {
        Self {
            seed: self.seed,
            acts,
        }
    }
}

fn act(dice: &mut Dice, at: Moment, deed: Deed) -> Act {
    Act {
        at,
        draw: dice.any(),
        deed,
    }
}

fn change(dice: &mut Dice) -> Deed {
    let cluster = dice.index(CLUSTERS);
    let item = u8::try_from(dice.below(ITEMS.into())).expect("items are few");
    match dice.below(20) {
        0..9 => Deed::Put { cluster, item },
        9..14 => Deed::Remove { cluster, item },
        14..17 => Deed::Batch {
            cluster,
            items: u8::try_from(dice.between(2, 8)).expect("it is small"),
        },
        _ => Deed::Flush {
            place: any_place(dice),
        },
    }
}

fn fault(dice: &mut Dice, left: Moment) -> Deed {
    let place = any_place(dice);
    let cluster = dice.index(CLUSTERS);
    let lasts = dice.between(50 * MS, LASTS.min(left));
    match dice.below(100) {
        0..8 => Deed::Break { place },
        8..12 => Deed::BreakAll { place },
        12..18 => Deed::Loss { place, lasts },
        18..24 => Deed::Reorder { place, lasts },
        24..27 => Deed::Partition {
            sides: u16::try_from(dice.below(1 << CLUSTERS)).expect("clusters are few"),
            lasts,
        },
        27..32 => Deed::Cut { place, lasts },
        32..37 => Deed::OneWay {
            from: place,
            to: any_place(dice),
            lasts,
        },
        37..41 => Deed::SlowReader { place, lasts },
        41..45 => Deed::Stall { place, lasts },
        45..54 => Deed::Crash {
            place,
            lasts: lasts / 2,
            keeps: keeps(dice),
        },
        54..56 => Deed::Outage {
            cluster,
            lasts,
            keeps: keeps(dice),
        },
        56..61 => Deed::ChangeReplica {
            place: any_agent(dice),
        },
        61..65 => Deed::Lag {
            place: any_hub(dice),
            lasts,
        },
        65..70 => Deed::Restore {
            cluster,
            lacks: u8::try_from(dice.between(1, 6)).expect("it is small"),
        },
        70..73 => Deed::Skew {
            place,
            percent: dice.pick(&[50, 90, 100, 110, 200]),
        },
        73..75 => Deed::Jump { place, by: lasts },
        75..79 => Deed::Refilter {
            place: any_agent(dice),
        },
        79..90 => Deed::Hostile {
            place,
            manner: dice.pick(&Manner::ALL),
        },
        90..94 => Deed::Overreach {
            cluster,
            item: u8::try_from(dice.below(ITEMS.into())).expect("items are few"),
        },
        94..96 => Deed::Flood { cluster, lasts },
        96..98 => Deed::Churn { cluster, lasts },
        _ => Deed::Impostor {
            cluster,
            claims: dice.index(CLUSTERS),
        },
    }
}

fn keeps(dice: &mut Dice) -> Keeps {
    dice.pick(&[Keeps::All, Keeps::All, Keeps::Flushed, Keeps::Nothing])
}

fn any_place(dice: &mut Dice) -> Place {
    if dice.percent(60) {
        any_hub(dice)
    } else {
        any_agent(dice)
    }
}

fn any_hub(dice: &mut Dice) -> Place {
    let cluster = dice.index(CLUSTERS);
    Place::hub(cluster, dice.index(hubs(cluster)))
}

fn any_agent(dice: &mut Dice) -> Place {
    let cluster = dice.index(CLUSTERS);
    Place::agent(cluster, dice.index(agents(cluster)))
}

/// One line: when, and what.
impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at / SECOND, self.at % SECOND);
        write!(f, "{seconds:>4}.{micros:06} s  {}", self.deed)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for act in &self.acts {
            writeln!(f, "{act}")?;
        }
        Ok(())
    }
}

struct Ms(Moment);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0 / MS)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Put { cluster, item } => write!(f, "cluster {cluster} changes item {item}"),
            Self::Remove { cluster, item } => write!(f, "cluster {cluster} removes item {item}"),
            Self::Batch { cluster, items } => {
                write!(f, "cluster {cluster} changes {items} items at once")
            }
            Self::Flush { place } => write!(f, "{place} flushes"),
            Self::Break { place } => write!(f, "a session of {place} breaks"),
            Self::BreakAll { place } => write!(f, "all sessions of {place} break"),
            Self::Loss { place, lasts } => write!(f, "{place} loses packets for {}", Ms(lasts)),
            Self::Reorder { place, lasts } => {
                write!(
                    f,
                    "streams of {place} overtake each other for {}",
                    Ms(lasts)
                )
            }
            Self::Partition { sides, lasts } => {
                write!(
                    f,
                    "clusters {sides:010b} are parted from the rest for {}",
                    Ms(lasts)
                )
            }
            Self::Cut { place, lasts } => write!(f, "{place} is cut off for {}", Ms(lasts)),
            Self::OneWay { from, to, lasts } => {
                write!(f, "nothing gets from {from} to {to} for {}", Ms(lasts))
            }
            Self::SlowReader { place, lasts } => {
                write!(f, "{place} reads nothing for {}", Ms(lasts))
            }
            Self::Stall { place, lasts } => write!(f, "{place} stands still for {}", Ms(lasts)),
            Self::Crash {
                place,
                lasts,
                keeps,
            } => write!(f, "{place} dies for {} and keeps {keeps}", Ms(lasts)),
            Self::Outage {
                cluster,
                lasts,
                keeps,
            } => write!(
                f,
                "all of cluster {cluster} dies for {} and keeps {keeps}",
                Ms(lasts)
            ),
            Self::ChangeReplica { place } => write!(f, "{place} goes to the other replica"),
            Self::Lag { place, lasts } => {
                write!(f, "{place} hears nothing of its source for {}", Ms(lasts))
            }
            Self::Restore { cluster, lacks } => write!(
                f,
                "the source of cluster {cluster} is restored without its last {lacks} changes"
            ),
            Self::Skew { place, percent } => {
                write!(f, "the clock of {place} runs at {percent} %")
            }
            Self::Jump { place, by } => write!(f, "the clock of {place} jumps by {}", Ms(by)),
            Self::Refilter { place } => write!(f, "{place} wants other records"),
            Self::Hostile { place, manner } => {
                write!(f, "a session of {place} turns hostile: {manner:?}")
            }
            Self::Overreach { cluster, item } => {
                write!(f, "cluster {cluster} announces what is not its own: {item}")
            }
            Self::Flood { cluster, lasts } => {
                write!(f, "cluster {cluster} exceeds its quota for {}", Ms(lasts))
            }
            Self::Churn { cluster, lasts } => {
                write!(f, "cluster {cluster} changes too much for {}", Ms(lasts))
            }
            Self::Impostor { cluster, claims } => {
                write!(f, "somebody asks cluster {cluster} in as cluster {claims}")
            }
        }
    }
}

impl fmt::Display for Keeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Flushed => "what was flushed",
            Self::Nothing => "nothing",
        })
    }
}
