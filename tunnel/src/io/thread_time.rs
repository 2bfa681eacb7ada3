//! What the processors did for a thread, read by another: nothing is added to the thread's own work (proc(5), schedstat).

use crate::balance::Usage;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::time::Duration;

/// Longer than three numbers of 64 bits.
const LEN: usize = 64;

/// The times of one thread.
#[derive(Debug, Default)]
pub struct ThreadTime {
    file: OnceLock<io::Result<File>>,
}

impl ThreadTime {
    /// From now on they are those of the calling thread; whatever it called before is kept.
    pub fn attach(&self) {
        self.file
            .get_or_init(|| File::open("/proc/thread-self/schedstat"));
    }

    /// The times so far; none for a thread that has not begun.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn read(&self) -> io::Result<Usage> {
        match self.file.get() {
            None => Ok(Usage::default()),
            Some(Ok(file)) => {
                let mut text = [0; LEN];
                let length = file.read_at(&mut text, 0)?;
                parse(&text[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

/// Nanoseconds that it ran, nanoseconds that it waited to run, and how often it ran.
fn parse(text: &[u8]) -> Option<Usage> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let mut next = || numbers.next()?.parse().ok().map(Duration::from_nanos);
    Some(Usage {
        ran: next()?,
        waited: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_kernels_numbers_are_understood() {
        let read = parse(b"1500000000 20 7\n").unwrap();
        assert_eq!(read.ran, Duration::from_millis(1_500));
        assert_eq!(read.waited, Duration::from_nanos(20));
        for text in ["", "1", "1 x 2", "-1 2 3"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_thread_that_works_is_seen_from_another() {
        let (time, stop) = (Arc::new(ThreadTime::default()), AtomicBool::new(false));
        assert_eq!(time.read().unwrap(), Usage::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                time.attach();
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let deadline = clock::now() + Duration::from_secs(10);
            let ran = || time.read().unwrap().ran;
            while ran() < Duration::from_millis(20) && clock::now() < deadline {
                std::thread::yield_now();
            }
            let ran = ran();
            stop.store(true, Ordering::Relaxed);
            assert!(ran >= Duration::from_millis(20), "{ran:?}");
        });
    }
}
