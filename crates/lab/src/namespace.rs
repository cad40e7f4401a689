//! Named network namespaces that go away with their owner.
//!
//! In: a name and commands. Out: their output, or an error with arguments, status and stderr.
//! Nothing here touches the namespace that the process was started in, except for listing and
//! deleting namespaces of this crate's own name prefix.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its names.
pub(crate) const NAMES: &str = "/run/netns";
/// What every namespace's name begins with; the process id follows.
const PREFIX: &str = "unmasq-";
/// Commands that the lab runs.
const TOOLS: [&str; 10] = [
    "ip",
    "bridge",
    "tc",
    "sysctl",
    "nft",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables-nft",
    "ip6tables-legacy",
    "ipset",
];

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace. Dropping it deletes it, with all devices in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Whether namespaces can be made here: the reason why not, as a sentence.
    pub fn available() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".into());
        }
        let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !installed(tool)).collect();
        if !missing.is_empty() {
            return Err(format!(
                "not installed: {} (Debian: apt-get install iproute2 procps nftables iptables \
                 ipset)",
                missing.join(", ")
            ));
        }
        match Namespace::new("probe") {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("no network namespace can be made: {error:#}")),
        }
    }

    /// Makes `unmasq-<pid>-<number>-<role>`.
    pub fn new(role: &str) -> Result<Namespace> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        Ok(Namespace { name })
    }

    /// Makes one for each role, by one command.
    pub fn several(roles: &[&str]) -> Result<Vec<Namespace>> {
        let name = |role: &&str| {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            Namespace { name: format!("{PREFIX}{}-{number}-{role}", std::process::id()) }
        };
        // What was made before a failure is deleted with them.
        let all: Vec<Namespace> = roles.iter().map(name).collect();
        let commands: String = all.iter().map(|one| format!("netns add {}\n", one.name)).collect();
        run_with(&["ip", "-batch", "-"], &commands)?;
        Ok(all)
    }

    /// Deletes namespaces of this crate whose process is gone. Gives their names.
    pub fn sweep() -> Vec<String> {
        let Ok(entries) = fs::read_dir(NAMES) else { return Vec::new() };
        let leftover = |name: &String| {
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            let number = pid.and_then(|pid| pid.parse::<u32>().ok());
            number.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(leftover)
            .filter(|name| run(Command::new("ip").args(["netns", "del", name]), "").is_ok())
            .collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Runs a closure on a thread of its own inside the namespace. `/proc/net` there is still the
    /// process's: use `/proc/thread-self/net`. Sockets stay in the namespace that they were made in.
    pub fn enter<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> Result<R> {
        enter(&self.path(), inside)
    }

    /// Runs a command inside. Gives what it wrote to stdout.
    pub fn exec(&self, arguments: &[&str]) -> Result<String> {
        self.exec_with(arguments, "")
    }

    /// Runs a command inside and gives it `input` on stdin.
    pub fn exec_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let (program, rest) = arguments.split_first().context("no command")?;
        // A child starts in the namespace of the thread that makes it.
        self.enter(|| run(Command::new(program).args(rest), input))?
    }

    /// Runs a shell script inside; the first command that fails ends it.
    pub fn script(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-ec", script])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody is left to tell; the next run's sweep tries again.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]), "");
    }
}

/// Runs a closure on a thread of its own inside the namespace that a file stands for; see
/// [`Namespace::enter`].
pub fn enter<R: Send>(path: &Path, inside: impl FnOnce() -> R + Send) -> Result<R> {
    thread::scope(|scope| {
        let worker = scope.spawn(move || -> Result<R> {
            move_into(path)?;
            Ok(inside())
        });
        worker.join().map_err(|_| anyhow!("the thread inside {} panicked", path.display()))?
    })
}

/// Moves the calling thread into the namespace that a file stands for.
pub(crate) fn move_into(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    move_into_link_name_space(file_fd(&file), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {}", path.display()))
}

fn file_fd(file: &File) -> rustix::fd::BorrowedFd<'_> {
    rustix::fd::AsFd::as_fd(file)
}

fn installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

/// Runs a command in the current namespace and gives it `input` on stdin.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> Result<String> {
    let (program, rest) = arguments.split_first().context("no command")?;
    run(Command::new(program).args(rest), input)
}

fn run(command: &mut Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    command.env("LC_ALL", "C").stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // A command that writes before it has read all would block one that is fed first.
        scope.spawn(move || {
            use std::io::Write;
            if let Some(mut stdin) = stdin {
                // A command that doesn't read its input tells by its status, not by this error.
                let _ = stdin.write_all(input.as_bytes());
            }
        });
        child.wait_with_output()
    })
    .with_context(|| format!("wait for {shown}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}: {}{input}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
