use std::time::Duration;

use super::*;

#[test]
fn busy_time_leaves_out_idle_waiting_and_stolen_time() {
    let text = "cpu  100 20 30 9000 800 4 5 60 7 8\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
    assert_eq!(parse_machine(text), Some((159, 60)));
    assert_eq!(parse_machine("cpu0 1 1 1 1 1 1 1 1 1 1\n"), None);
    assert_eq!(parse_machine("cpu  1 2 3\n"), None);
}

#[test]
fn a_process_is_read_whatever_its_name() {
    let text = "42 (a) R 7 (b)) S 41 42 42 0 -1 4194560 9 9 9 9 11 22 33 44 20 0 1 0 5 6 7";
    let process = Process {
        parent: 41,
        kernel: false,
        own: 33,
        ended: 77,
    };
    assert_eq!(parse_process(text), Some(process));
    let thread = text.replace("4194560", "2129984");
    assert!(parse_process(&thread).unwrap().kernel);
    assert_eq!(parse_process("42 (short) S 41"), None);
}

#[test]
fn the_peak_is_the_high_water_mark_and_not_the_present() {
    let text = "Name:\thawser-tunnel\nVmPeak:\t  9999 kB\nVmHWM:\t    5120 kB\nVmRSS:\t  1024 kB\n";
    assert_eq!(parse_peak(text), Some(5.0));
    assert_eq!(parse_peak("Name:\tkthreadd\n"), None);
}

fn process(parent: i32, own: u64, ended: u64) -> Process {
    Process {
        parent,
        kernel: false,
        own,
        ended,
    }
}

#[test]
fn descendants_of_the_bench_and_kernel_threads_are_not_foreign() {
    let mut processes = BTreeMap::from([
        (1, process(0, 5, 0)),
        (10, process(1, 100, 1000)), // the bench
        (11, process(10, 200, 0)),   // a watched one
        (12, process(11, 400, 0)),   // its child
        (20, process(1, 7, 0)),      // somebody else
    ]);
    assert_eq!(foreign(&processes, 10), 12);
    let kernel = Process {
        kernel: true,
        ..process(2, 9999, 0)
    };
    processes.insert(30, kernel);
    assert_eq!(foreign(&processes, 10), 12);
    // A circle, as a table that changed while it was read could hold.
    processes.insert(40, process(41, 1, 0));
    processes.insert(41, process(40, 1, 0));
    assert_eq!(foreign(&processes, 10), 14);
}

#[test]
fn a_compiler_that_came_or_went_in_between_is_seen() {
    let before = BTreeMap::from([(20, process(1, 7, 0)), (21, process(20, 50, 0))]);
    // 21 used 30 more and ended; 22 began, used 40 and ended.
    let after = BTreeMap::from([(20, process(1, 7, 80 + 40))]);
    assert_eq!(foreign(&after, 10) - foreign(&before, 10), 70);
}

#[test]
fn usage_is_the_difference_and_noise_is_per_second() {
    let at = Instant::now();
    let before = Snapshot {
        at,
        watched: 100,
        busy: 1000,
        steal: 10,
        foreign: 500,
    };
    let after = Snapshot {
        at: at + Duration::from_secs(2),
        watched: 350,
        busy: 1400,
        steal: 14,
        foreign: 520,
    };
    let usage = after.since(&before);
    assert_eq!(
        usage,
        Usage {
            seconds: 2.0,
            watched: 2.5,
            machine: 4.0,
            foreign: 0.1,
            steal: 0.02
        }
    );
    assert!((usage.noise() - 0.12).abs() < 1e-9);
    // Times of a process that nobody waited for are lost; that must not become a huge number.
    assert_eq!(before.since(&before).watched, 0.0);
}

#[test]
fn a_measurement_sees_the_time_of_a_watched_process_and_its_peak() {
    let own = i32::try_from(std::process::id()).unwrap();
    let ((), usage) = Meter::new(vec![own])
        .measure(|| {
            let end = Instant::now() + Duration::from_millis(300);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            Ok(())
        })
        .unwrap();
    assert!(usage.watched > 0.0 && usage.seconds >= 0.3, "{usage:?}");
    assert!(peak_memory(own).unwrap() > 0.5);
    let gone = Meter::new(vec![i32::MAX]).measure(|| Ok(()));
    assert!(gone.unwrap_err().to_string().contains("has died"));
}
