//! Killed at every boundary of a step, and inside of steps: each transaction is done or not, the
//! journal says which, and `--undo` or the same command once more ends it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::node::{Node, Parts};
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("killed::around_transactions", around_transactions),
    ("killed::at_lines_of_the_journal", at_lines),
    ("killed::while_files_are_written", while_files_are_written),
    ("killed::a_long_transaction_is_read_whole", long_transaction),
];

/// Programs of the system, with one in front of them that kills who started it.
#[derive(Debug, Clone, Copy)]
enum When {
    /// Before it has read anything.
    Before,
    /// When a line of the transaction was read.
    Amid,
    /// When it is done.
    After,
}

/// What kills.
#[derive(Debug, Clone)]
enum Killer {
    /// The program that is started.
    Program(&'static str, When),
    /// We, at the so-manieth change of the folder.
    Change(&'static str, usize),
    /// We, when the journal has so many lines.
    Lines(usize),
    /// The kernel, when a file gets longer than that.
    Longer(usize),
}

const PROGRAMS: [&str; 2] = ["iptables-legacy-restore", "iptables-nft-restore"];

fn around_transactions() -> Result<()> {
    let killed = Killed::new()?;
    for program in PROGRAMS {
        for when in [When::Before, When::Amid, When::After] {
            let killer = Killer::Program(program, when);
            killed.apply_then_undo(&killer)?;
            killed.apply_then_again(&killer)?;
            killed.undo_then_again(&killer)?;
        }
    }
    Ok(())
}

fn at_lines() -> Result<()> {
    let killed = Killed::new()?;
    // Made, its line written, named; then its lines: the first, two for each deed, and the last.
    let changes = (1..=3).map(|number| Killer::Change("journals", number));
    for killer in changes.chain((1..=2 + 2 * killed.new.len()).map(Killer::Lines)) {
        killed.apply_then_undo(&killer)?;
        killed.apply_then_again(&killer)?;
    }
    // In the middle of each line.
    let mut begin = 0;
    for line in killed.journal.lines() {
        killed.apply_then_undo(&Killer::Longer(begin + line.len() / 2))?;
        killed.apply_then_again(&Killer::Longer(begin + line.len() / 2))?;
        begin += line.len() + 1;
    }
    Ok(())
}

fn while_files_are_written() -> Result<()> {
    let killed = Killed::new()?;
    for folder in ["etc/iptables", "etc/docker"] {
        // Made, written, closed, and moved to its name (two changes).
        for number in 1..=5 {
            let killer = Killer::Change(folder, number);
            killed.apply_then_undo(&killer)?;
            killed.apply_then_again(&killer)?;
            killed.undo_then_again(&killer)?;
        }
    }
    Ok(())
}

/// A node, and what its parts are before and after.
struct Killed {
    node: Node,
    old: Parts,
    new: Parts,
    /// The journal of a whole one.
    journal: String,
}

impl Killed {
    fn new() -> Result<Killed> {
        let node = Node::up()?;
        let old = node.parts()?;
        let said = node.says(&node.apply(), 0, &["done. To take it back"])?;
        let new = node.parts()?;
        for (part, text) in &new {
            ensure!(*text != old[part], "{part} did not change\n{said}");
        }
        let journal = fs::read_to_string(node.journal())?;
        node.says(&node.undo(), 0, &["taken back: all that was changed is as it was before"])?;
        ensure!(node.parts()? == old, "not as before: {:#?}", node.parts()?);
        Ok(Killed { node, old, new, journal })
    }

    fn apply_then_undo(&self, killer: &Killer) -> Result<()> {
        let killed = || format!("applying, {killer:?}, then --undo");
        self.forget()?;
        self.kill(killer, &self.node.apply()).with_context(killed)?;
        if !self.node.journal().exists() {
            ensure!(self.node.parts()? == self.old, "{}: changed without a journal", killed());
            return Ok(());
        }
        self.node.says(&self.node.undo(), 0, &["taken back"]).with_context(killed)?;
        self.is(&self.old).with_context(killed)
    }

    fn apply_then_again(&self, killer: &Killer) -> Result<()> {
        let killed = || format!("applying, {killer:?}, then again");
        self.forget()?;
        let ended = self.kill(killer, &self.node.apply()).with_context(killed)?;
        if !ended {
            self.node
                .says(&self.node.apply(), 0, &["done. To take it back"])
                .with_context(killed)?;
        }
        self.is(&self.new).with_context(killed)?;
        self.node.says(&self.node.undo(), 0, &["taken back"]).with_context(killed)?;
        self.is(&self.old).with_context(killed)
    }

    fn undo_then_again(&self, killer: &Killer) -> Result<()> {
        let killed = || format!("undoing, {killer:?}, then --undo");
        self.forget()?;
        self.node.says(&self.node.apply(), 0, &["done"])?;
        self.kill(killer, &self.node.undo()).with_context(killed)?;
        self.node.says(&self.node.undo(), 0, &["taken back"]).with_context(killed)?;
        self.is(&self.old).with_context(killed)
    }

    /// Takes the journal away, with what is beside it.
    fn forget(&self) -> Result<()> {
        for entry in fs::read_dir(self.node.path("journals"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    fn is(&self, parts: &Parts) -> Result<()> {
        let there = self.node.parts()?;
        for (part, text) in parts {
            ensure!(there[part] == *text, "{part} is\n{}\ninstead of\n{text}", there[part]);
        }
        ensure!(!self.node.is_littered(), "something is left beside a file");
        Ok(())
    }

    /// Runs it until it is killed, and looks at what is there then. Whether the journal has ended.
    fn kill(&self, killer: &Killer, arguments: &[String]) -> Result<bool> {
        let stand_ins = self.node.path("stand-ins");
        fs::create_dir_all(&stand_ins)?;
        let (status, signal) = match killer {
            Killer::Program(program, when) => {
                let path = stand_in(&stand_ins, program, *when)?;
                let child = self.node.start(&[], arguments, &stand_ins)?;
                let status = ended(child);
                fs::remove_file(path)?;
                (status?, Signal::KILL)
            }
            Killer::Change(folder, number) => {
                let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
                let wanted = inotify::WatchFlags::CREATE
                    | inotify::WatchFlags::MODIFY
                    | inotify::WatchFlags::CLOSE_WRITE
                    | inotify::WatchFlags::MOVE
                    | inotify::WatchFlags::DELETE;
                inotify::add_watch(&watch, self.node.path(folder), wanted)?;
                let child = self.node.start(&[], arguments, &stand_ins)?;
                (killed_at(child, &watch, *number)?, Signal::KILL)
            }
            Killer::Lines(count) => {
                let mut child = self.node.start(&[], arguments, &stand_ins)?;
                let lines = || {
                    let bytes = fs::read(self.node.journal()).unwrap_or_default();
                    bytes.iter().filter(|byte| **byte == b'\n').count()
                };
                while lines() < *count && child.try_wait()?.is_none() {
                    std::thread::yield_now();
                }
                kill_process(Pid::from_child(&child), Signal::KILL)?;
                (ended(child)?, Signal::KILL)
            }
            Killer::Longer(length) => {
                let limits = ["prlimit".into(), format!("--fsize={length}"), "--core=0".into()];
                (ended(self.node.start(&limits, arguments, &stand_ins)?)?, Signal::XFSZ)
            }
        };
        ensure!(status.signal() == Some(signal.as_raw()), "it was not killed: {status}");
        // What it started may still be at work.
        File::open(self.node.path("run/unmasq.lock")).and_then(|turn| turn.lock())?;
        self.looks_right()
    }

    /// Every part is old or new, and what the journal says of it.
    fn looks_right(&self) -> Result<bool> {
        let there = self.node.parts()?;
        for (part, text) in &there {
            let whole = *text == self.old[part] || *text == self.new[part];
            ensure!(whole, "{part} is neither as before nor as after:\n{text}");
        }
        let Ok(text) = fs::read_to_string(self.node.journal()) else { return Ok(false) };
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let deeds = lines[0]["deeds"].as_array().context("deeds")?;
        for (index, deed) in deeds.iter().enumerate() {
            let of_it = |line: &&Value| line["deed"] == index && line["event"] != "failed";
            let last = lines.iter().rfind(of_it);
            let said = last.and_then(|line| line["event"].as_str()).unwrap_or("not begun");
            let name = deed["program"].as_str().or(deed["path"].as_str()).unwrap_or_default();
            let (text, old, new) = (&there[name], &self.old[name], &self.new[name]);
            let right = match said {
                "not begun" | "taken-back" => text == old,
                "done" => text == new || self.is_undone_next(&lines, index),
                "begun" => true,
                other => bail!("{name}: {other}"),
            };
            ensure!(right, "the journal says {said} of {name}, which is\n{text}");
        }
        Ok(lines.last().is_some_and(|line| line["deed"].is_null() && line["event"] == "applied"))
    }

    /// While it is undone, the last deed that isn't told to be taken back is in doubt.
    fn is_undone_next(&self, lines: &[Value], index: usize) -> bool {
        let applied = lines.iter().any(|line| line["event"] == "applied");
        let back = |index: usize| {
            lines.iter().any(|line| line["deed"] == index && line["event"] == "taken-back")
        };
        applied && (index + 1..self.new.len()).all(back)
    }
}

fn ended(child: Child) -> Result<ExitStatus> {
    Ok(child.wait_with_output()?.status)
}

fn killed_at(mut child: Child, watch: &rustix::fd::OwnedFd, number: usize) -> Result<ExitStatus> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut changes = inotify::Reader::new(watch, &mut buffer);
    let mut seen = 0;
    while seen < number {
        match changes.next() {
            Ok(_) => seen += 1,
            Err(rustix::io::Errno::AGAIN) => {
                if child.try_wait()?.is_some() {
                    let output = child.wait_with_output()?;
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    bail!("it ended after {seen} changes: {}\n{said}", output.status);
                }
                std::thread::yield_now();
            }
            Err(error) => return Err(error.into()),
        }
    }
    kill_process(Pid::from_child(&child), Signal::KILL)?;
    ended(child)
}

/// A program of this name that kills who started it, and does what the real one does.
fn stand_in(folder: &std::path::Path, program: &str, when: When) -> Result<PathBuf> {
    let does = match when {
        When::Before => "kill -9 $PPID\nexec real \"$@\"",
        When::Amid => {
            "{ read -r line; echo \"$line\"; kill -9 $PPID; sleep 0.1; cat; } | real \"$@\""
        }
        When::After => "real \"$@\"\nkill -9 $PPID",
    };
    let real = format!("$(PATH=${{PATH#*:}} command -v {program})");
    let path = folder.join(program);
    fs::write(&path, format!("#!/bin/sh\n{}\n", does.replace("real", &real)))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Longer than a pipe holds: a program that reads what its starter can no longer write would do half
/// of it, which for nft is a transaction like any other.
fn long_transaction() -> Result<()> {
    let killed = Killed::new()?;
    let namespace = killed.node.namespace()?;
    // The lines that delete these come to the 65536 bytes of a pipe at the end of one.
    let rule = |number| format!("ip saddr 10.9.{}.{} accept", number / 256, number % 256);
    let rules: Vec<String> = (0..2500).map(rule).collect();
    let chain = format!("table ip long {{\nchain c {{\n{}\n}}\n}}\n", rules.join("\n"));
    namespace.exec_with(&["nft", "-f", "-"], &chain)?;
    let deed = serde_json::json!({
        "kind": "rules", "node": crate::node::NAME, "program": "nft-ip", "table": "long",
        "chain": "c", "before": rules, "after": [],
    });
    let head = serde_json::json!({
        "schema": "unmasq.journal/v1", "findings": [], "deeds": [deed],
    });
    let listed = || -> Result<Vec<String>> {
        let text = namespace.exec(&["nft", "list", "chain", "ip", "long", "c"])?;
        let rules = text.lines().map(str::trim).filter(|line| line.starts_with("ip saddr"));
        Ok(rules.map(str::to_owned).collect())
    };
    killed.forget()?;
    fs::write(killed.node.journal(), format!("{head}\n"))?;
    let journal = killed.node.journal().display().to_string();
    let stand_ins = killed.node.path("stand-ins");
    fs::create_dir_all(&stand_ins)?;
    // nft lists, too: only what loads is in its place.
    let path = stand_in(&stand_ins, "nft", When::Before)?;
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("kill", "[ \"$1\" != -f ] || kill"))?;
    let child = killed.node.start(&[], &["--resume".to_owned(), journal.clone()], &stand_ins)?;
    ensure!(ended(child)?.signal() == Some(Signal::KILL.as_raw()), "it was not killed");
    File::open(killed.node.path("run/unmasq.lock")).and_then(|turn| turn.lock())?;
    let there = listed()?;
    let whole = there == rules || there.is_empty();
    ensure!(whole, "{} rules, of which the last is {:?}", there.len(), there.last());
    killed.node.says(&killed.node.undo(), 0, &["taken back"])?;
    ensure!(listed()? == rules, "it is not as before");
    Ok(())
}
