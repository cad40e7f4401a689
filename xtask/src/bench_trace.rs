//! `cargo xtask bench-trace`: how long the whole `unmasq trace` command takes on a generated node.
//!
//! Generates a node, builds the release binary, traces the last Service several times, and
//! prints the shortest and the median wall time and the peak of resident memory. The peak is
//! the kernel's own high-water mark (`VmHWM` in /proc), read every millisecond while the command
//! runs, so what is allocated in the last millisecond may be missed.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::generate_node::{self, Size};
use crate::workspace;

/// Arguments of `cargo xtask bench-trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    size: Size,
    /// How often the command is run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Passed on to `unmasq trace`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    trace_args: Vec<String>,
}

/// One run of the command.
struct Run {
    took: Duration,
    peak_kib: Option<u64>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let folder = workspace::root().join("target/bench-trace").join(args.size.to_string());
    println!("writing {}", folder.display());
    let written = generate_node::write(&args.size, &folder)?;
    println!("{} rules", written.rules);

    let built = workspace::cargo()
        .args(["build", "--release", "--locked", "--package", "unmasq"])
        .status()
        .context("cargo build can't be run")?;
    if !built.success() {
        bail!("cargo build failed: {built}");
    }
    let program = workspace::root().join("target/release/unmasq");
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        let mut command = Command::new(&program);
        command
            .arg("trace")
            .arg(&folder)
            .args(["--from", generate_node::CLIENT, "--to", &written.last_service])
            .args(&args.trace_args)
            .stdout(Stdio::null());
        runs.push(measure(command)?);
    }
    runs.sort_by_key(|run| run.took);
    let millis = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1000.0);
    let peak = runs.iter().filter_map(|run| run.peak_kib).max();
    println!(
        "unmasq trace … --from {} --to {}: {} runs, min {}, median {}, peak memory {}",
        generate_node::CLIENT,
        written.last_service,
        runs.len(),
        millis(runs[0].took),
        millis(runs[runs.len() / 2].took),
        peak.map_or("not seen".into(), |kib| format!("{:.1} MiB", kib as f64 / 1024.0))
    );
    Ok(ExitCode::SUCCESS)
}

fn measure(mut command: Command) -> Result<Run> {
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?} can't be run"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let sampler = thread::spawn(move || sample_peak(&status_file));
    let status = child.wait().context("waiting for unmasq")?;
    let took = start.elapsed();
    let peak_kib = sampler.join().ok().flatten();
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(Run { took, peak_kib })
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
}
