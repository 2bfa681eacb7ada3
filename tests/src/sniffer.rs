//! Watches every underlay link and judges each frame by an allow-list.
//!
//! It shares no parser with the product. A frame that the list does not name is foreign; a frame that holds 16 bytes of
//! a known payload, or a pod's address, is plaintext whatever else it looks like; and a sniffer that lost frames says
//! so, because it can then prove nothing.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};

use crate::io::PacketRing;
use crate::lab::Link;

pub(crate) mod checksum;
mod frame;
mod judge;
mod pattern;
mod plant;
mod report;

pub use frame::{Decoded, Transport, decode, hexdump};
pub use judge::{Allow, ControlPort, Kind, Protocol, Verdict, judge};
pub use pattern::Pattern;
pub use plant::Plant;
pub use report::{Leak, Report};

/// How long the thread rests when all rings are empty. Each ring holds 32,768 frames, so nothing is lost meanwhile.
const REST: Duration = Duration::from_millis(2);
/// Frames taken from one ring before the next one has its turn.
const TURN: usize = 4096;
/// WireGuard data frames that are kept for [`Sniffer::recent_data`].
const RECENT: usize = 4096;
/// Bytes kept of each of them.
const RECENT_BYTES: usize = 512;
/// How long the thread may take to answer. It may have four full rings to judge first.
const ANSWER: Duration = Duration::from_secs(30);

/// A WireGuard data message as it was on the wire.
#[derive(Clone, Debug)]
pub struct WireFrame {
    /// The link it was seen on.
    pub link: String,
    /// When.
    pub at: SystemTime,
    /// Its first 512 bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// How long it was.
    pub length: usize,
    /// WireGuard's receiver index.
    pub receiver: u32,
    /// WireGuard's counter.
    pub counter: u64,
}

type Change = Box<dyn FnOnce(&mut Allow) + Send>;

enum Command {
    /// The report so far; with `true` a new one begins.
    Report(bool, Sender<Result<Report>>),
    Recent(Sender<Vec<WireFrame>>),
    Allow(Change, Sender<()>),
}

/// A thread that reads and judges every frame of a set of links. Dropping it stops it.
#[derive(Debug)]
pub struct Sniffer {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    canary: [u8; 16],
}

impl Sniffer {
    /// Starts to watch `links`. Returns once every link is being watched.
    ///
    /// # Errors
    /// When a link cannot be opened.
    pub fn start(links: &[Link], allow: Allow, canary: [u8; 16]) -> Result<Self> {
        let rings = links.iter().map(|link| {
            Ok((
                link.name.clone(),
                PacketRing::open(&link.netns, &link.device)?,
            ))
        });
        let rings = rings.collect::<Result<Vec<_>>>()?;
        let patterns = vec![
            Pattern::new(&canary),
            Pattern::new(crate::traffic::IPERF_PATTERN),
        ];
        let watcher = Watcher {
            rings,
            allow,
            patterns,
            report: Report::default(),
            recent: VecDeque::new(),
            lost: Ok(0),
        };
        let (commands, orders) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("sniffer".into())
            .spawn(move || watcher.watch(&orders))
            .context("failed to start the sniffer")?;
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread),
            canary,
        })
    }

    /// The payload that must never be seen.
    #[must_use]
    pub const fn canary(&self) -> [u8; 16] {
        self.canary
    }

    /// Changes what is allowed, for frames that are judged from now on.
    ///
    /// # Errors
    /// When the sniffer has died.
    pub fn allow(&self, change: impl FnOnce(&mut Allow) + Send + 'static) -> Result<()> {
        let (done, waiter) = mpsc::channel();
        self.order(Command::Allow(Box::new(change), done))?;
        waiter
            .recv_timeout(ANSWER)
            .context("the sniffer does not answer")
    }

    /// What was seen so far, after judging everything that was on the links before the call.
    ///
    /// # Errors
    /// When the sniffer has died, or the kernel does not tell how many frames were lost.
    pub fn report(&self) -> Result<Report> {
        self.ask(false)
    }

    /// The same, and what comes from now on is in another report. Frames that were lost stay lost.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn renew(&self) -> Result<Report> {
        self.ask(true)
    }

    fn ask(&self, renew: bool) -> Result<Report> {
        let (answer, waiter) = mpsc::channel();
        self.order(Command::Report(renew, answer))?;
        waiter
            .recv_timeout(ANSWER)
            .context("the sniffer does not answer")?
    }

    /// The latest WireGuard data messages, oldest first.
    ///
    /// # Errors
    /// When the sniffer has died.
    pub fn recent_data(&self) -> Result<Vec<WireFrame>> {
        let (answer, waiter) = mpsc::channel();
        self.order(Command::Recent(answer))?;
        waiter
            .recv_timeout(ANSWER)
            .context("the sniffer does not answer")
    }

    /// The last report; the sniffer ends.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn stop(self) -> Result<Report> {
        self.report()
    }

    fn order(&self, command: Command) -> Result<()> {
        let commands = self.commands.as_ref().context("the sniffer has ended")?;
        commands
            .send(command)
            .map_err(|_| anyhow!("the sniffer has died"))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The sniffer's thread.
struct Watcher {
    rings: Vec<(String, PacketRing)>,
    allow: Allow,
    patterns: Vec<Pattern>,
    report: Report,
    recent: VecDeque<WireFrame>,
    lost: Result<u64>,
}

impl Watcher {
    fn watch(mut self, orders: &Receiver<Command>) {
        loop {
            let order = orders.try_recv();
            // Whatever is asked, frames that came before the question are judged first.
            let seen = self.look();
            match order {
                Ok(Command::Report(renew, answer)) => {
                    self.count_lost();
                    let report = match &self.lost {
                        Ok(lost) => Ok(Report {
                            lost: *lost,
                            ..self.report.clone()
                        }),
                        Err(error) => Err(anyhow!("{error:#}")),
                    };
                    if renew {
                        self.report = Report::default();
                    }
                    answer.send(report).ok();
                }
                Ok(Command::Recent(answer)) => {
                    answer.send(self.recent.iter().cloned().collect()).ok();
                }
                Ok(Command::Allow(change, done)) => {
                    change(&mut self.allow);
                    done.send(()).ok();
                }
                Err(mpsc::TryRecvError::Empty) => {
                    if seen == 0 {
                        thread::sleep(REST);
                    }
                }
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
    }

    fn count_lost(&mut self) {
        self.lost = self.rings.iter_mut().map(|(_, ring)| ring.lost()).sum();
    }

    /// Judges what is in the rings now; returns how many frames that were.
    fn look(&mut self) -> usize {
        let mut seen = 0;
        let Self {
            rings,
            allow,
            patterns,
            report,
            recent,
            ..
        } = self;
        for (link, ring) in rings.iter_mut() {
            let mut turns = 0;
            loop {
                let took = ring.drain(TURN, |frame| {
                    let decoded = decode(frame.bytes, frame.length, frame.vlan);
                    let verdict = judge(&decoded, allow);
                    let canary = patterns
                        .iter()
                        .any(|pattern| pattern.occurs_in(frame.bytes));
                    report.count(link, frame, &decoded, &verdict, canary);
                    if let (Kind::WireGuardData, Some((receiver, counter))) =
                        (verdict.kind, decoded.wireguard_data())
                    {
                        let mut kept = match recent.len() {
                            RECENT => recent
                                .pop_front()
                                .map(|frame| frame.bytes)
                                .unwrap_or_default(),
                            _ => Vec::new(),
                        };
                        kept.clear();
                        kept.extend_from_slice(&frame.bytes[..frame.bytes.len().min(RECENT_BYTES)]);
                        recent.push_back(WireFrame {
                            link: link.clone(),
                            at: frame.at,
                            bytes: kept,
                            length: frame.length,
                            receiver,
                            counter,
                        });
                    }
                });
                seen += took;
                turns += 1;
                // One whole ring at most, so that a flood on one link does not hide the others.
                if took < TURN || turns == 8 {
                    break;
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests;
