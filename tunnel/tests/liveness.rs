//! Hours of watching on simulated time: paths that lose, delay and reorder, ends that starve, and every kind of death.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use hawser_tunnel::liveness::{Event, State, TICK, Watch};
use hawser_tunnel::node::NodeId;
use hawser_tunnel::probe::{Kind, Probe};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Xorshift: the same seed, the same world.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn time(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(most.as_micros()).unwrap() + 1))
    }
}

/// How long a peer that starves runs between two stops at least: with less it stood still for longer.
const FAR_RUNS: Duration = Duration::from_millis(500);

/// How the world is bad.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Lost each way, in percent.
    loss: u64,
    /// Each way takes this ...
    way: Duration,
    /// ... and up to so much more, so that packets overtake each other.
    jitter: Duration,
    /// Requests, or replies, do not arrive.
    cut_there: bool,
    cut_back: bool,
    /// Nothing that is on its way when it is cut arrives either.
    cut_under_way: bool,
    /// The far process stands still; what comes waits for it.
    frozen: bool,
    /// The far host is gone; what comes is lost.
    gone: bool,
    /// Each answer takes up to so long to be made.
    slow_answers: Duration,
    /// The far process stands still for up to so long, again and again, and answers all that came in between.
    far_stops: Duration,
    /// Our process is run late by up to so much, each time ...
    late: Duration,
    /// ... and once in a while by up to so much.
    very_late: Duration,
}

/// When a probe arrives, a number that makes it unique, whether it is a reply, sequence and cookie.
type Arrival = (Instant, u64, bool, u64, u64);

/// A node that watches one peer.
struct World {
    start: Instant,
    now: Instant,
    chance: Chance,
    weather: Weather,
    watch: Watch,
    peer: NodeId,
    under_way: BinaryHeap<Reverse<Arrival>>,
    sent: u64,
    /// Requests that wait for the far process, and until when it stands still.
    waiting: Vec<Probe>,
    far_stopped: Instant,
    /// Replies that wait in our socket.
    socket: Vec<Probe>,
    next_run: Instant,
    requests: u64,
    events: Vec<(Instant, Event)>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test starts its own time somewhere"
)]
fn start() -> Instant {
    Instant::now()
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let start = start();
        let peer = "2/1".parse().unwrap();
        let mut watch = Watch::new(start, seed);
        watch.set_watched([peer], start);
        Self {
            start,
            now: start,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            weather,
            watch,
            peer,
            under_way: BinaryHeap::new(),
            sent: 0,
            waiting: Vec::new(),
            far_stopped: start,
            socket: Vec::new(),
            next_run: start,
            requests: 0,
            events: Vec::new(),
        }
    }

    fn send(&mut self, probe: Probe, work: Duration) {
        let weather = self.weather;
        let cut = match probe.kind {
            Kind::Request => weather.cut_there,
            Kind::Reply => weather.cut_back,
        };
        if cut || self.chance.below(100) < weather.loss {
            return;
        }
        let at = self.now + work + weather.way + self.chance.time(weather.jitter);
        self.sent += 1;
        let reply = probe.kind == Kind::Reply;
        let packet = (at, self.sent, reply, probe.sequence, probe.cookie);
        self.under_way.push(Reverse(packet));
    }

    fn answer(&mut self) {
        if self.weather.frozen || self.now < self.far_stopped {
            return;
        }
        for request in std::mem::take(&mut self.waiting) {
            let work = self.chance.time(self.weather.slow_answers);
            self.send(request.reply().unwrap(), work);
        }
    }

    /// What a data plane does when it gets to run: all that came, timers, events, requests.
    fn run(&mut self) {
        for reply in std::mem::take(&mut self.socket) {
            // A reply may have been seconds under way; then it is stale.
            let _ = self.watch.handle_reply(self.peer, reply, self.now);
        }
        self.watch.handle_timeout(self.now);
        while let Some((_, event)) = self.watch.poll_event() {
            self.events.push((self.now, event));
        }
        while let Some((_, request)) = self.watch.poll_transmit() {
            self.requests += 1;
            self.send(request, Duration::ZERO);
        }
        let weather = self.weather;
        let mut late = self.chance.time(weather.late);
        if !weather.very_late.is_zero() && self.chance.one_in(50) {
            late += self.chance.time(weather.very_late);
        }
        self.next_run = self.watch.poll_timeout().unwrap() + late;
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrives = self.under_way.peek().map_or(end, |Reverse(first)| first.0);
            let thaws = match self.waiting.is_empty() || self.weather.frozen {
                true => end,
                false => self.far_stopped.max(self.now),
            };
            self.now = arrives.min(thaws).min(self.next_run).min(end);
            if self.now == end {
                return;
            }
            while let Some(&Reverse((at, _, reply, sequence, cookie))) = self.under_way.peek()
                && at <= self.now
            {
                self.under_way.pop();
                let kind = if reply { Kind::Reply } else { Kind::Request };
                let probe = Probe {
                    kind,
                    sequence,
                    cookie,
                };
                let cut = match kind {
                    Kind::Request => self.weather.cut_there,
                    Kind::Reply => self.weather.cut_back,
                };
                match kind {
                    _ if cut && self.weather.cut_under_way => {}
                    Kind::Reply => self.socket.push(probe),
                    Kind::Request if self.weather.gone => {}
                    Kind::Request => self.waiting.push(probe),
                }
            }
            self.answer();
            if !self.weather.far_stops.is_zero()
                && self.far_stopped + FAR_RUNS <= self.now
                && self.chance.one_in(20)
            {
                self.far_stopped = self.now + self.chance.time(self.weather.far_stops);
            }
            if self.next_run <= self.now {
                self.run();
            }
        }
    }

    fn state(&self) -> State {
        self.watch.report(self.peer, self.now).unwrap().state
    }

    fn deaths(&self) -> u64 {
        self.watch.report(self.peer, self.now).unwrap().deaths
    }
}

const BAD: Weather = Weather {
    loss: 5,
    way: Duration::from_millis(10),
    jitter: Duration::from_millis(50),
    cut_there: false,
    cut_back: false,
    cut_under_way: false,
    frozen: false,
    gone: false,
    slow_answers: Duration::ZERO,
    far_stops: Duration::ZERO,
    late: Duration::from_millis(2),
    very_late: Duration::ZERO,
};

/// Half an hour of each seed, in which nobody dies. Returns what there is to say of it.
fn nobody_dies(name: &str, seeds: u64, weather: Weather) -> String {
    let (mut requests, mut replies) = (0, 0_u64);
    for seed in 1..=seeds {
        let mut world = World::new(seed, weather);
        world.pass(30 * MINUTE);
        assert_eq!(world.deaths(), 0, "{name}, seed {seed}: {:?}", world.events);
        assert_eq!(world.state(), State::Alive, "{name}, seed {seed}");
        assert_eq!(world.events.len(), 1, "{name}, seed {seed}: alive once");
        requests += world.requests;
        replies += world.sent;
    }
    let rate = requests as f64 / (seeds * 30 * 60) as f64;
    format!("{name}: {seeds} half hours, {rate:.1} requests/s, {replies} packets, 0 deaths")
}

#[test]
fn loss_jitter_and_reordering_are_no_death() {
    println!(
        "{}",
        nobody_dies("5 % loss each way, 50 ms jitter", 200, BAD)
    );
    let far = Weather {
        way: 150 * MS,
        ..BAD
    };
    println!("{}", nobody_dies("the same, 150 ms each way", 100, far));
}

#[test]
fn our_own_starvation_is_no_death() {
    let stops = Weather {
        very_late: 5 * SECOND,
        ..BAD
    };
    println!("{}", nobody_dies("we stop for up to 5 s", 100, stops));
    let hog = Weather {
        late: 200 * MS,
        ..stops
    };
    println!(
        "{}",
        nobody_dies("and are up to 200 ms late each time", 100, hog)
    );
}

#[test]
fn starvation_of_the_peer_is_no_death() {
    let stops = Weather {
        far_stops: 800 * MS,
        loss: 0,
        ..BAD
    };
    let text = nobody_dies("the peer stops for up to 800 ms, no loss", 100, stops);
    println!("{text}");
    // A lost request and then a stop of 800 ms can be 1.2 s without a reply; nobody can tell that from death.
    let lossy = Weather {
        far_stops: 600 * MS,
        ..BAD
    };
    let text = nobody_dies("the peer stops for up to 600 ms, 5 % loss", 100, lossy);
    println!("{text}");
    let slow = Weather {
        slow_answers: 800 * MS,
        ..BAD
    };
    println!(
        "{}",
        nobody_dies("each answer takes up to 800 ms", 100, slow)
    );
}

/// Makes a weather that somebody dies of, or ends it.
type Change = fn(&mut Weather, bool);

const DEATHS: [(&str, Change); 5] = [
    ("link", |weather, cut| {
        (weather.cut_there, weather.cut_back) = (cut, cut);
    }),
    ("one way, there", |weather, cut| weather.cut_there = cut),
    ("one way, back", |weather, cut| weather.cut_back = cut),
    ("process frozen", |weather, frozen| weather.frozen = frozen),
    ("host gone", |weather, gone| weather.gone = gone),
];

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[test]
fn every_death_is_noticed_in_time_and_every_return_at_once() {
    for (name, change) in DEATHS {
        let (mut noticed, mut healed) = (Vec::new(), Vec::new());
        for seed in 1..=1_000 {
            let mut weather = Weather {
                loss: if seed % 2 == 0 { 5 } else { 0 },
                cut_under_way: seed % 3 == 0,
                ..BAD
            };
            let mut world = World::new(seed, weather);
            weather.way = world.chance.time(60 * MS);
            world.weather = weather;
            let phase = 5 * SECOND + world.chance.time(SECOND);
            world.pass(phase);
            assert_eq!(world.state(), State::Alive, "{name}, seed {seed}");
            let died = world.now;
            change(&mut world.weather, true);
            world.pass(2 * SECOND);
            let (at, event) = world.events[1];
            assert!(matches!(event, Event::Dead { .. }), "{name}, seed {seed}");
            if weather.loss == 0 {
                let soonest = at - died;
                assert!(soonest >= 700 * MS, "{name}, seed {seed}: {soonest:?}");
            }
            noticed.push(at - died);
            let down = world.chance.time(5 * SECOND);
            world.pass(down);
            assert_eq!(world.events.len(), 2, "{name}, seed {seed}: dead once");
            // Whether the first request gets through is chance; this is about how soon one is sent.
            let returned = world.now;
            world.weather.loss = 0;
            change(&mut world.weather, false);
            world.pass(SECOND);
            let (at, event) = world.events[2];
            assert!(matches!(event, Event::Alive { .. }), "{name}, seed {seed}");
            let most = 90 * MS + 2 * (weather.way + weather.jitter) + 3 * TICK;
            let took = at - returned;
            assert!(took <= most, "{name}, seed {seed}: {took:?} of {most:?}");
            healed.push(took);
        }
        for (what, times) in [("dead", &mut noticed), ("alive", &mut healed)] {
            times.sort();
            let (half, most) = (quantile(times, 50), quantile(times, 99));
            let [first, .., last] = times[..] else {
                panic!("too few")
            };
            let [first, half, most, last] = [first, half, most, last].map(|time| time.as_millis());
            println!("{name}: {what} after min {first} p50 {half} p99 {most} max {last} ms");
        }
        let longest = *noticed.last().unwrap();
        assert!(longest <= 1_500 * MS, "{name}: {longest:?}");
    }
}

/// A death while we starve is noticed later, but it is: what we did run is enough.
#[test]
fn a_death_is_noticed_by_a_starved_node_too() {
    let hog = Weather {
        late: 200 * MS,
        ..BAD
    };
    let mut times = Vec::new();
    for seed in 1..=200 {
        let mut world = World::new(seed, hog);
        let phase = 5 * SECOND + world.chance.time(SECOND);
        world.pass(phase);
        let died = world.now;
        world.weather.gone = true;
        world.pass(20 * SECOND);
        times.push(world.events[1].0 - died);
    }
    times.sort();
    let [first, .., last] = times[..] else {
        panic!("too few")
    };
    println!("100 ms late in the mean: dead after {first:.1?} to {last:.1?}");
    assert!(last <= 5 * SECOND);
}

/// Five minutes of a link that is up and down for `time` each, then a good one.
fn flapping(time: Duration) -> World {
    let mut world = World::new(1, BAD);
    let end = world.start + 5 * MINUTE;
    while world.now < end {
        world.pass(time);
        (world.weather.cut_there, world.weather.cut_back) = (true, true);
        world.pass(time);
        (world.weather.cut_there, world.weather.cut_back) = (false, false);
    }
    world
}

#[test]
fn a_flapping_link_is_told_of_a_few_times_and_not_each_time() {
    for (time, most) in [(SECOND, 12), (1_500 * MS, 12), (3 * SECOND, 12)] {
        let mut world = flapping(time);
        let told = world.events.len();
        println!(
            "{time:?} up, {time:?} down, for 5 minutes: {told} events, {} deaths",
            world.deaths()
        );
        assert!(told <= most, "{time:?}: {:?}", world.events);
        let healed = world.now;
        world.pass(32 * SECOND);
        assert_eq!(world.state(), State::Alive, "{time:?}");
        if time > SECOND {
            let (at, _) = world.events[told];
            assert!(
                at - healed >= 29 * SECOND,
                "{time:?}: held {:?}",
                at - healed
            );
        }
        world.pass(MINUTE);
        world.weather.gone = true;
        world.pass(2 * SECOND);
        world.weather.gone = false;
        world.pass(SECOND);
        assert_eq!(
            world.state(),
            State::Alive,
            "{time:?}: the past is forgotten"
        );
    }
}
