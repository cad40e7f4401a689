//! The process that a cluster lives in while it is up: its namespaces and servers end with it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::FdFlags;
use unmasq_lab::connect::{Surroundings, connect};
use unmasq_lab::pids::Pids;
use unmasq_lab::run::{self, Report};
use unmasq_lab::session::Session;

use super::place::{self, Request, Response, Running};
use crate::output::{self, Exit};

/// How long a client may take to ask, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last line of a keeper that is ready.
const READY: &str = "ready";

/// Starts a keeper, and waits until its cluster is up.
pub(super) fn up(name: &str, text: &str, say: &dyn Fn(&str)) -> Result<Exit> {
    if place::is_up(name) {
        bail!("{name} is up already: unmasq lab down {name}");
    }
    let folder = place::folder()?;
    // Held by the keeper for as long as it lives.
    let lock = File::create(folder.join(format!("{name}.lock")))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("{name} is up already, or just being built or ended");
    }
    rustix::io::fcntl_setfd(&lock, FdFlags::empty())?;
    let file = folder.join(format!("{name}.yaml"));
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let mut child = Command::new("setsid")
        .arg(std::env::current_exe().context("where is this program?")?)
        .args(["lab", "keep"])
        .arg(&file)
        .arg("--place")
        .arg(folder.join(format!("{name}.json")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start the process that the cluster lives in")?;
    let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    for line in lines {
        match line?.as_str() {
            READY => {
                output::warn(&format!("{name} is up. To look around in it, and to end it:"));
                output::verbatim(&format!("  unmasq lab exec --scenario {name} HOST COMMAND"));
                output::verbatim(&format!("  unmasq lab down {name}"));
                return Ok(Exit::Done);
            }
            what => say(what),
        }
    }
    let status = child.wait()?;
    let mut why = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        use std::io::Read as _;
        stderr.read_to_string(&mut why)?;
    }
    let why = why.trim().trim_start_matches("error: ");
    bail!("{name} did not come up ({status}): {why}")
}

/// Is the keeper: builds, tells, and answers until it is told to end.
pub(super) fn keep(scenario: &Path, place: &Path) -> Result<Exit> {
    let text =
        fs::read_to_string(scenario).with_context(|| format!("read {}", scenario.display()))?;
    let _ = fs::remove_file(scenario);
    let say = |what: &str| {
        let _told = tell(what);
    };
    let pids = Pids::new()?;
    let mut session = Session::up(&text, &say)?;
    let socket = place.with_extension("sock");
    // One of a keeper that was killed.
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).context("listen")?;
    let running = describe(&session, &pids, socket.clone())?;
    let temporary = place.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(&running)?)?;
    fs::rename(&temporary, place)?;
    if let Err(error) = tell(READY) {
        // Who started it has gone before it was ready: Ctrl-C.
        let _ = fs::remove_file(place);
        let _ = fs::remove_file(&socket);
        return Err(error).context("nobody waits for the cluster any more");
    }
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        // Who hangs up in the middle hurts nobody else.
        if matches!(serve(&mut session, stream), Ok(true)) {
            break;
        }
    }
    for file in [place, &socket] {
        let _ = fs::remove_file(file);
    }
    // First those inside of the hosts, then the hosts.
    drop(pids);
    drop(session);
    Ok(Exit::Done)
}

/// A line for who started it; who may have gone.
fn tell(what: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{what}").and_then(|()| out.flush())
}

fn describe(session: &Session, pids: &Pids, socket: std::path::PathBuf) -> Result<Running> {
    let pid = i32::try_from(std::process::id())?;
    let cluster = &session.cluster;
    let host = |(plan, namespace): (&unmasq_lab::cluster::plan::Host, &unmasq_lab::Namespace)| {
        (plan.name.clone(), namespace.name().to_owned())
    };
    Ok(Running {
        name: cluster.scenario.name.clone(),
        pid,
        began: place::began(pid).context("when did this process begin?")?,
        first: i32::try_from(pids.first())?,
        hosts: cluster.plan.hosts.iter().zip(&cluster.namespaces).map(host).collect(),
        socket,
    })
}

/// Answers one request; `true`: it was the last.
fn serve(session: &mut Session, stream: UnixStream) -> Result<bool> {
    // Who connects and says nothing, or doesn't listen, must not keep others waiting.
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let out = Mutex::new(stream);
    let send = |response: &Response| -> Result<()> {
        let text = serde_json::to_string(response)?;
        let mut out = out.lock().map_err(|_| anyhow::anyhow!("another thread panicked"))?;
        Ok(writeln!(out, "{text}")?)
    };
    let request: Request = serde_json::from_str(&line)?;
    let say = |what: &str| {
        let _hung_up = send(&Response::Progress(what.to_owned()));
    };
    let answer = match &request {
        Request::Matrix => matrix(session, &say).map(Response::Report),
        Request::Step => step(session).map(Response::Done),
        Request::Capture(output) => capture(session, output).map(Response::Done),
        Request::Surroundings => Ok(Response::Surroundings(Surroundings::of(&session.cluster))),
        Request::Connect(wanted) => {
            connect(&session.cluster, wanted, &say).map(Response::Observations)
        }
        Request::Down => Ok(Response::Done("down".to_owned())),
    };
    send(&answer.unwrap_or_else(|error| Response::Error(format!("{error:#}"))))?;
    Ok(request == Request::Down)
}

fn matrix(session: &Session, say: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    let (taken, all) = session.progress();
    let title = match taken {
        0 => "as found".to_owned(),
        taken => format!("after {taken} of {all} steps of the remedy"),
    };
    let state = run::state(session, &title, &std::env::temp_dir(), say)?;
    let mut report = Report::new(session);
    report.states.push(state);
    Ok(report)
}

fn step(session: &mut Session) -> Result<String> {
    let (taken, all) = session.progress();
    let Some(next) = session.cluster.scenario.remedy.get(taken).cloned() else {
        bail!("all {all} steps of the remedy are taken");
    };
    session.step()?;
    Ok(format!("step {} of {all}: {}\n{}", taken + 1, next.title, next.how.trim_end()))
}

fn capture(session: &Session, output: &Path) -> Result<String> {
    unmasq_host::capture::write(output, &session.capture()?)?;
    Ok(format!("{} hosts", session.cluster.plan.hosts.len()))
}
