//! What a process has in memory that it may write to: heap, stacks of all threads, data.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};

/// Shows each such mapping: its range, the name of its file or use, and what is in it. Returns how many bytes that were.
///
/// # Errors
/// When there is no such process, or a mapping that is still there cannot be read.
pub fn writable_memory(pid: i32, mut show: impl FnMut(&str, &str, &[u8])) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut searched = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = words.next().zip(words.next()).context("a line of maps")?;
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').context("a range")?;
        let start = u64::from_str_radix(start, 16)?;
        let length = usize::try_from(u64::from_str_radix(end, 16)? - start)?;
        let mut bytes = vec![0; length];
        if let Err(error) = memory.read_exact_at(&mut bytes, start) {
            let now = fs::read_to_string(format!("/proc/{pid}/maps"))?;
            ensure!(!now.contains(range), "failed to read {line}: {error}");
            continue;
        }
        searched += length;
        // A name is that of the heap or a file; threads have stacks without one.
        let name = line.split_whitespace().nth(5).unwrap_or("no name");
        show(range, name, &bytes);
    }
    Ok(searched)
}
