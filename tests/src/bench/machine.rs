//! What the figures were measured on and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One machine and the programs on it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    /// GiB that the kernel has.
    pub(super) memory: f64,
    pub(super) kernel: String,
    pub(super) system: String,
    /// First line that each program says of its version.
    pub(super) versions: Vec<String>,
}

impl Machine {
    /// Looks at this machine. The versions are those of the programs that are measured and that measure.
    pub(super) fn describe(versions: Vec<String>) -> Result<Self> {
        let processors = read("/proc/cpuinfo")?;
        Ok(Self {
            processor: processor(&processors).unwrap_or_else(|| "unknown".to_owned()),
            cores: cores(&processors),
            memory: memory(&read("/proc/meminfo")?).context("/proc/meminfo has no MemTotal")?,
            // The version counts; what a vendor appended to it says nothing to a reader.
            kernel: release(read("/proc/sys/kernel/osrelease")?.trim()).to_owned(),
            system: system(&read("/etc/os-release").unwrap_or_default())
                .unwrap_or_else(|| "unknown".to_owned()),
            versions,
        })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {path}"))
}

/// The first line of what a program says of its version. Fails when it is missing.
pub(super) fn version(program: &Path, flag: &str, package: &str) -> Result<String> {
    let output = Command::new(program).arg(flag).output();
    let output = output.with_context(|| format!("failed to start {package}: is it installed?"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| !line.trim().is_empty());
    let line = line.with_context(|| format!("{package} does not say its version"))?;
    Ok(line.trim().to_owned())
}

/// The model of the first processor. Not every architecture says one.
fn processor(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    let (_, model) = line.split_once(':')?;
    Some(model.trim().to_owned())
}

fn cores(cpuinfo: &str) -> usize {
    let lines = cpuinfo.lines();
    let words = lines.filter_map(|line| line.split_once(':'));
    words.filter(|(key, _)| key.trim() == "processor").count()
}

fn memory(meminfo: &str) -> Option<f64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0 / 1024.0)
}

fn system(release: &str) -> Option<String> {
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The numbers in front of a kernel release.
fn release(text: &str) -> &str {
    text.split('-').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A B: C\nflags\t: x\n\nprocessor\t: 1\nmodel name\t: A B: C\n";
        assert_eq!(processor(cpuinfo).as_deref(), Some("A B: C"));
        assert_eq!(cores(cpuinfo), 2);
        assert_eq!(processor("processor\t: 0\n"), None);
        assert_eq!(
            memory("MemTotal:       4194304 kB\nMemFree: 1 kB\n"),
            Some(4.0)
        );
        let release = "ID=x\nPRETTY_NAME=\"Some Linux 1\"\n";
        assert_eq!(system(release).as_deref(), Some("Some Linux 1"));
    }
}
