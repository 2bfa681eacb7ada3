//! Runs a target over its corpus and mutations of it; the same seed, the same inputs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::corpus::Corpus;
use super::mutation;

/// One input takes microseconds, on a busy machine milliseconds; one that takes this long never ends.
const STUCK: Duration = Duration::from_secs(60);

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(2);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where mutations are drawn from.
    pub seed: u64,
    /// How many inputs, those of the corpus included.
    pub runs: u64,
    /// When to stop before that.
    pub time: Option<Duration>,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Which target.
    pub target: String,
    /// The seed.
    pub seed: u64,
    /// Which input of the seed.
    pub run: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What the target said, and where.
    pub message: String,
    /// Where the input was written.
    pub file: PathBuf,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target {} broke: {}", self.target, self.message)?;
        writeln!(f, "seed {}, run {}", self.seed, self.run)?;
        write!(f, "input ({} bytes): ", self.input.len())?;
        self.input
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        writeln!(f, "\nwritten to {}", self.file.display())?;
        write!(
            f,
            "replay: cargo run --release -p hawser-tests --bin fuzz -- {} --input {}",
            self.target,
            self.file.display()
        )
    }
}

/// Runs a target as planned; returns how many inputs it took. `progress` is told that number once in a while.
///
/// # Errors
/// The first input at which a promise was broken, after it was written to a file. A target that does not come back
/// ends the process after it was told the same way.
pub fn drive(
    target: &str,
    run: &dyn Fn(&[u8]),
    corpus: &Corpus,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, Box<Crash>> {
    let crash = |number: u64, message: String| {
        let input = mutation::input(corpus, plan.seed, number);
        let file = keep(target, plan.seed, number, &input);
        Crash {
            target: target.to_owned(),
            seed: plan.seed,
            run: number,
            input,
            message,
            file,
        }
    };
    let watch = Watch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(number) = watch.wait_for_a_stuck_run() {
                let message = format!("no end within {} s", STUCK.as_secs());
                writeln!(std::io::stderr(), "{}", crash(number, message)).ok();
                std::process::exit(1);
            }
        });
        let done = run_all(run, corpus, plan, &watch, progress);
        watch.end();
        done.map_err(|(number, message)| Box::new(crash(number, message)))
    })
}

fn run_all(
    run: &dyn Fn(&[u8]),
    corpus: &Corpus,
    plan: &Plan,
    watch: &Watch,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, (u64, String)> {
    let start = Instant::now();
    let mut told = start;
    for number in 0..plan.runs {
        if number % 32 == 0 {
            let now = Instant::now();
            if plan.time.is_some_and(|time| now - start >= time) {
                return Ok(number);
            }
            if now - told >= PROGRESS {
                told = now;
                progress(number);
            }
        }
        watch.run.store(number, Ordering::Relaxed);
        attempt(run, &mutation::input(corpus, plan.seed, number))
            .map_err(|message| (number, message))?;
    }
    Ok(plan.runs)
}

/// Runs a target once.
///
/// # Errors
/// What the target said when it panicked, and where.
pub fn attempt(run: &dyn Fn(&[u8]), input: &[u8]) -> Result<(), String> {
    thread_local! {
        static LISTENING: Cell<bool> = const { Cell::new(false) };
        static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
    }
    static HOOK: Once = Once::new();
    // The hook is the process's; on other threads it does what it did before.
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if LISTENING.get() {
                HEARD.set(Some(panic.to_string().replace('\n', " ")));
            } else {
                before(panic);
            }
        }));
    });
    LISTENING.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(|| run(input)));
    LISTENING.set(false);
    done.map_err(|_| HEARD.take().unwrap_or_else(|| "a panic".to_owned()))
}

/// Writes an input where it can be found again.
fn keep(target: &str, seed: u64, run: u64, input: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join("hawser-fuzz");
    let file = folder.join(format!("{target}-{seed}-{run}"));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input));
    if let Err(error) = written {
        writeln!(std::io::stderr(), "{}: {error}", file.display()).ok();
    }
    file
}

/// Sees that runs go on.
#[derive(Debug, Default)]
struct Watch {
    run: AtomicU64,
    ended: Mutex<bool>,
    news: Condvar,
}

impl Watch {
    fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.news.notify_all();
    }

    /// Returns the run that does not end; `None` once all have.
    fn wait_for_a_stuck_run(&self) -> Option<u64> {
        let mut last = u64::MAX;
        loop {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let (ended, _) = self
                .news
                .wait_timeout_while(ended, STUCK, |ended| !*ended)
                .unwrap_or_else(PoisonError::into_inner);
            if *ended {
                return None;
            }
            let run = self.run.load(Ordering::Relaxed);
            if run == last {
                return Some(run);
            }
            last = run;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks at three bytes that the corpus below does not start with: mutation must put them there.
    fn planted(input: &[u8]) {
        assert!(!input.starts_with(b"HaW"), "planted");
    }

    fn plan(seed: u64, runs: u64) -> Plan {
        Plan {
            seed,
            runs,
            time: None,
        }
    }

    #[test]
    fn a_planted_panic_is_found_reported_and_replayed_from_its_file() {
        let corpus = Corpus::of(vec![b"Ha7 is one byte away".to_vec()]);
        let drive = || drive("planted", &planted, &corpus, &plan(3, 100_000), &mut |_| ());
        let crash = drive().expect_err("the planted panic was not found");
        assert!(crash.input.starts_with(b"HaW") && crash.run > 0);
        let report = crash.to_string();
        for part in [
            "target planted broke: ",
            "planted",
            "seed 3, run ",
            "--input ",
        ] {
            assert!(report.contains(part), "{report}");
        }
        let kept = fs::read(&crash.file).unwrap();
        fs::remove_file(&crash.file).unwrap();
        assert_eq!(kept, crash.input);
        assert!(attempt(&planted, &kept).unwrap_err().contains("planted"));
        let again = drive().expect_err("the same seed finds the same");
        fs::remove_file(&again.file).unwrap();
        assert_eq!((again.run, again.input), (crash.run, crash.input));
    }

    #[test]
    fn what_breaks_no_promise_runs_to_the_end_or_until_time_is_over() {
        let corpus = Corpus::default();
        let mut seen = RefCell::new(0);
        let count = |_: &[u8]| *seen.borrow_mut() += 1;
        assert_eq!(
            drive("none", &count, &corpus, &plan(1, 777), &mut |_| ()).unwrap(),
            777
        );
        assert_eq!(*seen.get_mut(), 777);
        let timed = Plan {
            time: Some(Duration::from_millis(20)),
            ..plan(1, u64::MAX)
        };
        let runs = drive("none", &|_| (), &corpus, &timed, &mut |_| ()).unwrap();
        assert!(runs > 32 && runs < u64::MAX);
    }
}
