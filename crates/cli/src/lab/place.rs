//! Where clusters that are up are listed, and how they are asked.
//!
//! A folder of the user's own, with a socket and a description for each cluster. A description
//! whose process is gone is removed.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use unmasq_lab::connect::{Connection, Surroundings};
use unmasq_lab::exec::{self, Ended, exec};
use unmasq_lab::privilege;
use unmasq_lab::run::Report;
use unmasq_probe::Observation;

use crate::output;

/// How long a cluster may be silent before it counts as hanging: a matrix of many hosts says now and
/// then how far it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster that is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Running {
    /// The scenario's name.
    pub(super) name: String,
    /// The process that it lives in.
    pub(super) pid: i32,
    /// When that process began, in clock ticks since boot: another process with its number is
    /// another process.
    pub(super) began: u64,
    /// The first of the processes that were started inside of its hosts.
    pub(super) first: i32,
    /// Hosts and their namespaces.
    pub(super) hosts: Vec<(String, String)>,
    /// The socket that it listens on.
    pub(super) socket: PathBuf,
}

/// What a cluster is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// Every connection.
    Matrix,
    /// The next step of the remedy.
    Step,
    /// A capture into this file or folder.
    Capture(PathBuf),
    /// What is around it.
    Surroundings,
    /// These connections.
    Connect(Vec<Connection>),
    /// The end.
    Down,
}

/// A line of its answer; all but the last say how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Response {
    /// What is being done.
    Progress(String),
    /// A matrix.
    Report(Report),
    /// What was done.
    Done(String),
    /// What is around it.
    Surroundings(Surroundings),
    /// What came of connections.
    Observations(Vec<Observation>),
    /// Why it could not be done.
    Error(String),
}

/// The folder, made if it isn't there.
pub(super) fn folder() -> Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let temporary = std::env::temp_dir();
    // The lab has a /run of its own.
    let shared = if temporary.starts_with("/run") { PathBuf::from("/tmp") } else { temporary };
    let path = shared.join(format!("unmasq-lab-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(&path)?;
            if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
                bail!("{} is not a folder of this user alone: remove it", path.display());
            }
        }
        other => other.with_context(|| format!("make {}", path.display()))?,
    }
    Ok(path)
}

/// All that are up.
pub(super) fn all() -> Result<Vec<Running>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()?)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let read = match fs::read(&path) {
            Ok(read) => read,
            // It ended just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let running: Running = serde_json::from_slice(&read).with_context(|| {
            format!("{} is of another version: end its cluster with that one", path.display())
        })?;
        if began(running.pid) == Some(running.began) {
            found.push(running);
        } else {
            // Its process has ended without a word. What can't be removed is tried again by the
            // next command.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(path.with_extension("sock"));
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// The one of that name, or the only one. `name` may be a scenario's file.
pub(super) fn running(name: Option<&str>) -> Result<Option<Running>> {
    // Inside, the question was asked before the program went there.
    if privilege::inside() {
        return Ok(None);
    }
    let mut all = all()?;
    let Some(name) = name else {
        if all.len() > 1 {
            let names: Vec<&str> = all.iter().map(|running| running.name.as_str()).collect();
            bail!("several clusters are up, say which: {}", names.join(", "));
        }
        return Ok(all.pop());
    };
    let by_file = Path::new(name).file_stem().and_then(|stem| stem.to_str());
    Ok(all.into_iter().find(|one| one.name == name || by_file == Some(&one.name)))
}

/// The same; it is a failure if it isn't up.
pub(super) fn one(name: Option<&str>) -> Result<Running> {
    running(name)?.with_context(|| match name {
        Some(name) => format!("{name} is not up (unmasq lab list)"),
        None => "no cluster is up (unmasq lab list; unmasq lab up SCENARIO)".to_owned(),
    })
}

/// Whether a scenario is up.
pub(super) fn is_up(name: &str) -> bool {
    running(Some(name)).is_ok_and(|running| running.is_some())
}

/// When a process began; `None`: there is none of that number. Field 22 of /proc/PID/stat, counted
/// behind the program's name, which may have blanks in it (proc_pid_stat(5)).
pub(super) fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // A zombie runs no more.
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Running {
    /// Every connection.
    pub(super) fn matrix(&self, progress: &dyn Fn(&str)) -> Result<Report> {
        match self.ask(&Request::Matrix, progress)? {
            Response::Report(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// The next step of the remedy: its title, and in further lines how it is done.
    pub(super) fn step(&self) -> Result<String> {
        self.done(&Request::Step)
    }

    /// A capture.
    pub(super) fn capture(&self, output: &Path) -> Result<String> {
        self.done(&Request::Capture(output.to_owned()))
    }

    /// What is around it.
    pub(super) fn surroundings(&self) -> Result<Surroundings> {
        match self.ask(&Request::Surroundings, &|_| {})? {
            Response::Surroundings(surroundings) => Ok(surroundings),
            other => Err(unexpected(&other)),
        }
    }

    /// What comes of connections.
    pub(super) fn connect(
        &self,
        wanted: &[Connection],
        progress: &dyn Fn(&str),
    ) -> Result<Vec<Observation>> {
        match self.ask(&Request::Connect(wanted.to_vec()), progress)? {
            Response::Observations(observations) => Ok(observations),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends it, and waits until it is gone.
    pub(super) fn down(&self) -> Result<()> {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let pid = Pid::from_raw(self.pid).context("a process without a number")?;
        let process = pidfd_open(pid, PidfdFlags::empty());
        // One that is busy ends when it has answered; one that hangs is ended.
        if let (Err(_), Ok(process)) = (self.ask(&Request::Down, &|_| {}), &process)
            && began(self.pid) == Some(self.began)
        {
            let _gone = pidfd_send_signal(process, Signal::KILL);
        }
        // It can be read when the process has ended (pidfd_open(2)).
        if let Ok(process) = process {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            if poll(&mut ended, Some(&patience)).context("wait for its end")? == 0 {
                bail!("{} did not end: process {}", self.name, self.pid);
            }
        }
        Ok(())
    }

    fn done(&self, request: &Request) -> Result<String> {
        match self.ask(request, &|_| {})? {
            Response::Done(what) => Ok(what),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request, progress: &dyn Fn(&str)) -> Result<Response> {
        let place = || format!("ask {}", self.name);
        let mut stream = UnixStream::connect(&self.socket).with_context(place)?;
        stream.set_read_timeout(Some(PATIENCE)).with_context(place)?;
        writeln!(stream, "{}", serde_json::to_string(request)?).with_context(place)?;
        for line in BufReader::new(stream).lines() {
            match serde_json::from_str(&line.with_context(place)?).with_context(place)? {
                Response::Progress(what) => progress(&what),
                Response::Error(why) => bail!("{why}"),
                answer @ (Response::Report(_)
                | Response::Done(_)
                | Response::Surroundings(_)
                | Response::Observations(_)) => return Ok(answer),
            }
        }
        bail!("{} ended before it answered", self.name)
    }

    /// Runs a command inside of a host, and waits for its end.
    pub(super) fn exec(&self, host: &str, command: &[OsString]) -> Result<Ended> {
        let found = self.hosts.iter().find(|(name, _)| name == host);
        let (_, namespace) = found.with_context(|| {
            let all: Vec<&str> = self.hosts.iter().map(|(name, _)| name.as_str()).collect();
            format!("{} has no host {host:?}; it has {}", self.name, all.join(", "))
        })?;
        let place = exec::Place { keeper: self.pid, first: self.first, namespace, host };
        exec(&place, command, &output::warn)
    }
}

fn unexpected(response: &Response) -> anyhow::Error {
    match response {
        Response::Error(why) => anyhow!("{why}"),
        Response::Progress(_)
        | Response::Report(_)
        | Response::Done(_)
        | Response::Surroundings(_)
        | Response::Observations(_) => anyhow!("the cluster gave an answer to another question"),
    }
}
