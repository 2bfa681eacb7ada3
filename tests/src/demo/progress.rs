//! What the demo prints, with the time since it began.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Writes lines at once, so that a reader sees where the demo is.
pub(super) struct Progress<'a, W: Write> {
    out: &'a mut W,
    start: Instant,
}

impl<'a, W: Write> Progress<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self {
            out,
            start: Instant::now(),
        }
    }

    /// A line with the time in front.
    pub(super) fn step(&mut self, text: &str) -> Result<()> {
        let line = format!("[{:4.1} s] {text}", self.seconds());
        self.text(&line)
    }

    /// A line, or several.
    pub(super) fn text(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .context("failed to print")
    }

    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(super) fn out(&mut self) -> &mut W {
        self.out
    }
}
