//! Running a command several times and measuring it, for the `bench-…` commands.
//!
//! In: a command. Out: the shortest and the median wall time and the peak of resident memory. The
//! peak is the kernel's own high-water mark (`VmHWM` in /proc), read every millisecond while the
//! command runs, so what is allocated in the last millisecond may be missed.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// What several runs of a command took.
#[derive(Debug)]
pub(crate) struct Runs {
    count: usize,
    min: Duration,
    median: Duration,
    peak_kib: Option<u64>,
}

impl Runs {
    /// The shortest.
    pub(crate) fn min(&self) -> Duration {
        self.min
    }
}

impl fmt::Display for Runs {
    /// `10 runs, min 279.0 ms, median 290.1 ms, peak memory 135.0 MiB`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |took: Duration| took.as_secs_f64() * 1000.0;
        let (count, min, median) = (self.count, millis(self.min), millis(self.median));
        write!(f, "{count} runs, min {min:.1} ms, median {median:.1} ms, peak memory ")?;
        match self.peak_kib {
            Some(kib) => write!(f, "{:.1} MiB", kib as f64 / 1024.0),
            None => f.write_str("not seen"),
        }
    }
}

/// Builds the release binary of `unmasq`; gives its path.
pub(crate) fn build() -> Result<PathBuf> {
    let built = workspace::cargo()
        .args(["build", "--release", "--locked", "--package", "unmasq"])
        .status()
        .context("cargo build can't be run")?;
    if !built.success() {
        bail!("cargo build failed: {built}");
    }
    Ok(workspace::root().join("target/release/unmasq"))
}

/// Runs the command so often, at least once. Its standard output is thrown away. It must end with
/// one of these exit codes.
pub(crate) fn runs(count: u32, exit_codes: &[i32], command: &mut Command) -> Result<Runs> {
    command.stdout(Stdio::null());
    let first = once(exit_codes, command)?;
    let mut runs = vec![first];
    for _ in 1..count {
        runs.push(once(exit_codes, command)?);
    }
    runs.sort_by_key(|(took, _)| *took);
    let peak_kib = runs.iter().filter_map(|(_, peak)| *peak).max();
    let (min, median) = (runs[0].0, runs[runs.len() / 2].0);
    Ok(Runs { count: runs.len(), min, median, peak_kib })
}

fn once(exit_codes: &[i32], command: &mut Command) -> Result<(Duration, Option<u64>)> {
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?} can't be run"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let sampler = thread::spawn(move || sample_peak(&status_file));
    let status = child.wait().context("waiting for unmasq")?;
    let took = start.elapsed();
    let peak = sampler.join().ok().flatten();
    if !status.code().is_some_and(|code| exit_codes.contains(&code)) {
        bail!("{command:?} failed: {status}");
    }
    Ok((took, peak))
}

/// The last high-water mark that can be read: a process that has ended has none any more.
fn sample_peak(status_file: &str) -> Option<u64> {
    let mut peak = None;
    loop {
        match fs::read_to_string(status_file).ok().and_then(|status| high_water_mark(&status)) {
            Some(kib) => peak = Some(kib),
            None => return peak,
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// `VmHWM:      1234 kB` (proc_pid_status(5)).
fn high_water_mark(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        assert_eq!(high_water_mark("Name:\tx\nVmHWM:\t  1234 kB\nVmRSS:\t 7 kB\n"), Some(1234));
        assert_eq!(high_water_mark("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn a_command_is_run_so_often_and_may_end_so() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let runs = runs(4, &[0, 3], &mut command).unwrap();
        assert_eq!(runs.count, 4);
        assert!(runs.min <= runs.median);
        let error = super::runs(1, &[0, 1], &mut command).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }
}
