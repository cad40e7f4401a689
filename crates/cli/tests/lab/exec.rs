//! `exec`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::given::{Lab, UNMASQ};

/// The command's own codes, and the lab's.
pub(crate) fn codes() -> Result<()> {
    let lab = Lab::up()?;
    lab.file("text", "no program")?;
    for (command, code, said) in [
        (&["n1", "true"][..], 0, ""),
        (&["n1", "sh", "-c", "exit 7"], 7, ""),
        (&["n1", "sh", "-c", "exit 125"], 125, ""),
        (&["n1", "sh", "-c", "kill -KILL $$"], 137, ""),
        (&["n1", "sh", "-c", "kill -TERM $$"], 143, ""),
        (&["n1", "./text"], 126, "error: run ./text: Permission denied"),
        (&["n1", "nonsense"], 127, "error: run nonsense: No such file"),
        (&["n7", "true"], 125, "error: small has no host \"n7\"; it has "),
        (&["--scenario", "large", "n1", "true"], 125, "error: large is not up"),
        (&["n1"], 125, "error: the following required arguments were not provided"),
        (&["--nonsense", "n1", "true"], 125, "error: unexpected argument '--nonsense'"),
        (&["--help"], 0, ""),
    ] {
        let found = lab.ends(&[&["exec"], command].concat(), code)?.stderr;
        let fits = if said.is_empty() { found.is_empty() } else { found.starts_with(said) };
        ensure!(fits, "{command:?}: {found}");
    }
    Ok(())
}

/// What stands behind the host is the command's, with `--` and without.
pub(crate) fn options() -> Result<()> {
    let lab = Lab::up()?;
    for (arguments, printed) in [
        (&["n1", "echo", "-n", "--help", "-q"][..], "--help -q"),
        (&["n1", "--", "echo", "-n", "a"], "a"),
        (&["n1", "echo", "a", "--", "--scenario", "b"], "a -- --scenario b\n"),
        (&["--scenario", "small", "n1", "echo", "a"], "a\n"),
        (&["n1", "--scenario", "small", "echo", "a"], "a\n"),
        (&["n1", "--scenario", "small", "--", "echo", "a"], "a\n"),
    ] {
        let found = lab.ends(&[&["exec"], arguments].concat(), 0)?.stdout;
        ensure!(found == printed, "{arguments:?}: {found:?}");
    }
    let rules = lab.inside("n1", &["nft", "-a", "list", "ruleset"])?;
    ensure!(rules.contains("table ip kube-proxy"), "{rules}");
    Ok(())
}

/// The host's name, devices and addresses, and nobody else's processes.
pub(crate) fn host() -> Result<()> {
    let outside = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let lab = Lab::up()?;
    for host in ["n1", "web", "customer", "gateway"] {
        let found = lab.inside(host, &["cat", "/proc/sys/kernel/hostname"])?;
        ensure!(found == format!("{host}\n"), "{host}: {found}");
    }
    ensure!(std::fs::read_to_string("/proc/sys/kernel/hostname")? == outside, "it is renamed");
    let addresses = lab.inside("n1", &["ip", "-br", "-4", "address"])?;
    ensure!(addresses.contains("10.0.0.11/24"), "{addresses}");
    let devices = lab.inside("n1", &["ip", "-br", "link"])?;
    let mut names: Vec<&str> = devices.lines().filter_map(|l| l.split(['@', ' ']).next()).collect();
    names.sort_unstable();
    let files = lab.inside("n1", &["ls", "/sys/class/net"])?;
    ensure!(files.lines().collect::<Vec<_>>() == names, "{files} is not {names:?}");
    Ok(())
}

/// The folder is the same, and a path in it means the same.
pub(crate) fn folder() -> Result<()> {
    let lab = Lab::up()?;
    let found = lab.inside("n2", &["pwd", "-P"])?;
    ensure!(found.trim() == lab.folder().canonicalize()?.to_string_lossy(), "{found}");
    for output in ["collected", "below/it", "collected.tar.gz"] {
        let said = lab.ends(&["exec", "n2", UNMASQ, "collect", "-o", output], 0)?.stderr;
        ensure!(said.contains(&format!("wrote node n2 to {output}")), "{said}");
        ensure!(lab.folder().join(output).exists(), "{output} is not there");
    }
    ensure!(lab.folder().join("collected/nodes/n2/nft.json").is_file(), "another node");
    Ok(())
}

/// A command that waits, and says so.
const WAITS: &str = "trap 'exit 42' TERM; echo ready; while :; do sleep 4712 & wait $!; done";

/// A signal to `exec` is one to its command.
pub(crate) fn signals() -> Result<()> {
    let lab = Lab::up()?;
    let mut child =
        lab.command(&["exec", "n1", "sh", "-c", WAITS]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "{line}");
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(42), "{status}");
    Ok(())
}

/// What runs in the foreground, and what has left its session, end with `down`.
pub(crate) fn ends() -> Result<()> {
    let lab = Lab::up()?;
    let keeper = lab.keeper("small")?;
    let stubborn = "trap '' TERM HUP; setsid sleep 4713 >/dev/null 2>&1 &";
    lab.inside("n2", &["sh", "-c", stubborn])?;
    let mut child =
        lab.command(&["exec", "n1", "sh", "-c", WAITS]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
    ensure!(line == "ready\n" && lab.runs("sleep 4713")?, "{line}{:?}", lab.processes()?);
    lab.ends(&["down"], 0)?;
    // None may be on its way only: down waits for their ends, and ours is the one that is told.
    ensure!(!lab.runs("sleep 4713")? && !lab.runs("sleep 4712")?, "{:?}", lab.processes()?);
    let status = child.wait()?;
    ensure!(status.code() == Some(137), "{status}");
    lab.nothing_is_left(keeper)
}
