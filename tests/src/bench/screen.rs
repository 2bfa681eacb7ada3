//! Where a bench is, on the terminal.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Lines with the time since the start in front.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    start: Instant,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            start: Instant::now(),
        }
    }

    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        let seconds = self.start.elapsed().as_secs_f64();
        writeln!(self.out, "[{seconds:6.1} s] {text}")
            .and_then(|()| self.out.flush())
            .context("failed to print")
    }
}
