//! `unmasq lab`: whole clusters in network namespaces.

mod keeper;
mod place;
mod render;
mod through;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use unmasq_lab::exec::Ended;
use unmasq_lab::run::{self, Report};
use unmasq_lab::scenario::{BUILTIN, Scenario};
use unmasq_lab::session::Session;
use unmasq_lab::{Namespace, privilege};

use crate::output::{self, Exit};

pub(crate) use through::Through;

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  unmasq lab list
  unmasq lab run canal-unused-pool          the loss, the remedy, the proof: a few seconds
  unmasq lab up canal-unused-pool           leaves it running, to look around
  unmasq lab exec n1 iptables-save -t nat
  unmasq lab exec laptop curl -s http://10.0.0.11:30080
  unmasq lab step                           takes the next step of the remedy
  unmasq lab matrix
  unmasq lab capture -o capture/
  unmasq lab down

Exit codes:
  0  done (run and matrix: all was as foreseen and as expected)
  1  run and matrix: something was not
  2  wrong usage, or the lab could not do it
exec ends with its command's code; see there.

Everything happens in network namespaces of its own: nothing of this machine is changed, and when
the lab ends, in whatever way, nothing is left. Works without root where users may make namespaces.";

/// What `exec --help` says at its end.
const EXEC_CODES: &str = "\
Exit codes:
  the command's own; 128+N if signal N ended it
  125  the lab could not run it: no cluster is up, it has no such host
  126  the command can't be run
  127  there is no such command";

/// Builds a cluster in network namespaces, with real rules and real packets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenarios that come with the lab
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a scenario's file, to read it or to begin one of your own
    Show {
        /// The scenario
        scenario: String,
    },
    /// Run a scenario: every connection before and after the remedy, foreseen and seen
    Run {
        /// A scenario of the lab, or a file
        scenario: String,
        /// As JSON (unmasq.lab-run/v1, schemas/lab-run.v1.json)
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Build a scenario's cluster and leave it running
    Up {
        /// A scenario of the lab, or a file
        scenario: String,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Try every connection of a cluster: of one that is up, or of one built for it
    Matrix {
        /// The scenario. Left out: the one that is up
        scenario: Option<String>,
        /// As JSON (unmasq.lab-run/v1, schemas/lab-run.v1.json)
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Take the next step of the remedy of a cluster that is up
    Step {
        /// The scenario. Left out: the one that is up
        scenario: Option<String>,
    },
    /// Run a command inside of a node, a pod or another host of a cluster that is up
    #[command(after_help = EXEC_CODES)]
    Exec {
        /// Of which scenario, if several are up
        #[arg(long)]
        scenario: Option<String>,
        /// The host: n1, web-1, gateway …
        host: String,
        /// The command with its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Capture the nodes, their pods and the Kubernetes objects: of a cluster that is up, or of
    /// one built for it
    Capture {
        /// The scenario. Left out: the one that is up
        scenario: Option<String>,
        /// What to write: a directory, or .tar, .tar.gz, .tar.zst by the name's end
        #[arg(short, long, value_name = "FILE|DIR")]
        output: PathBuf,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// End a cluster that is up
    Down {
        /// The scenario. Left out: the one that is up
        scenario: Option<String>,
        /// All that are up
        #[arg(long, conflicts_with = "scenario")]
        all: bool,
    },
    /// The process that a cluster lives in
    #[command(hide = true)]
    Keep {
        /// The scenario's file
        scenario: PathBuf,
        /// Where it is listed
        #[arg(long)]
        place: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct Quiet {
    /// Say nothing of how far it is
    #[arg(short, long)]
    quiet: bool,
}

impl Quiet {
    fn say(self) -> impl Fn(&str) + Sync {
        move |what: &str| {
            if !self.quiet {
                output::warn(&format!("{what} …"));
            }
        }
    }
}

/// Does what was asked.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::List { json } => list(*json),
        Command::Show { scenario } => show(&Session::text(scenario)?),
        Command::Run { scenario, json, quiet } => {
            let text = checked(scenario)?;
            isolate()?;
            let report = run::run(&text, &std::env::temp_dir(), &quiet.say())?;
            print(&report, *json)
        }
        Command::Up { scenario, quiet } => {
            let text = checked(scenario)?;
            let name = Scenario::parse(&text)?.name;
            keeper::up(&name, &text, &quiet.say())
        }
        Command::Matrix { scenario, json, quiet } => {
            let report = match (place::running(scenario.as_deref())?, scenario) {
                (Some(running), _) => running.matrix(&quiet.say())?,
                (None, Some(scenario)) => {
                    let text = checked(scenario)?;
                    isolate()?;
                    alone(&text, *quiet)?
                }
                (None, None) => bail!(NONE_UP),
            };
            print(&report, *json)
        }
        Command::Step { scenario } => step(scenario.as_deref()),
        Command::Exec { host, scenario, command } => Ok(exec(scenario.as_deref(), host, command)),
        Command::Capture { scenario, output, quiet } => {
            capture(scenario.as_deref(), output, *quiet)
        }
        Command::Down { scenario, all } => down(scenario.as_deref(), *all),
        Command::Keep { scenario, place } => {
            isolate()?;
            keeper::keep(scenario, place)
        }
    }
}

/// Where one is needed.
const NONE_UP: &str = "no cluster is up: name a scenario (unmasq lab list)";

/// A scenario's text, of which is known that it fits together.
fn checked(scenario: &str) -> anyhow::Result<String> {
    let text = Session::text(scenario)?;
    Session::check(&text).with_context(|| scenario.to_owned())?;
    Ok(text)
}

/// Runs a command inside of a host. Its own codes are told apart from the lab's as env(1) and
/// timeout(1) do it, and shells those of signals.
fn exec(scenario: Option<&str>, host: &str, command: &[OsString]) -> Exit {
    let shown = || output::clean(&command.first().map_or("".into(), |name| name.to_string_lossy()));
    let ended = place::one(scenario).and_then(|running| running.exec(host, command));
    let (code, why) = match ended {
        // A code has eight bits, and a signal seven (wait(2)).
        Ok(Ended::Exited(code)) => return Exit::Command(code as u8),
        Ok(Ended::Signalled(signal)) => return Exit::Command(128 + signal as u8),
        Ok(Ended::NotFound(error)) => (127, format!("run {}: {error}", shown())),
        Ok(Ended::NotRunnable(error)) => (126, format!("run {}: {error}", shown())),
        Err(error) => (EXEC_FAILED, format!("{error:#}")),
    };
    output::warn(&format!("error: {why}"));
    Exit::Command(code)
}

/// The code of `exec` where no command was run.
pub(crate) const EXEC_FAILED: u8 = 125;

/// Into mounts and, without root, users of its own; gives no way back where that was not so yet.
fn isolate() -> anyhow::Result<()> {
    let ready = privilege::isolate().and_then(|()| Namespace::available());
    ready.map_err(|reason| anyhow::anyhow!("the lab can't run here: {reason}"))
}

fn list(json: bool) -> anyhow::Result<Exit> {
    let scenarios: Vec<Scenario> =
        BUILTIN.iter().map(|(_, text)| Scenario::parse(text)).collect::<Result<_, _>>()?;
    let text = if json {
        let one = |scenario: &Scenario| {
            serde_json::json!({
                "name": scenario.name, "title": scenario.title, "about": scenario.about,
                "up": place::is_up(&scenario.name),
            })
        };
        let list: Vec<_> = scenarios.iter().map(one).collect();
        serde_json::to_string_pretty(&list)? + "\n"
    } else {
        let others = place::all()?.into_iter().map(|running| running.name);
        let others = others.filter(|name| scenarios.iter().all(|known| known.name != *name));
        let others: Vec<String> = others.collect();
        render::list(&scenarios, &others, place::is_up, &output::style(false))
    };
    output::write(&mut std::io::stdout(), text.as_bytes())?;
    Ok(Exit::Done)
}

fn show(text: &str) -> anyhow::Result<Exit> {
    output::write(&mut std::io::stdout(), text.as_bytes())?;
    Ok(Exit::Done)
}

/// The matrix of a cluster that is built for it.
fn alone(text: &str, quiet: Quiet) -> anyhow::Result<Report> {
    let session = Session::up(text, &quiet.say())?;
    let keep = std::env::temp_dir();
    let state = run::state(&session, "as found", &keep, &quiet.say())?;
    let mut report = Report::new(&session);
    report.states.push(state);
    Ok(report)
}

fn print(report: &Report, json: bool) -> anyhow::Result<Exit> {
    let text = if json {
        serde_json::to_string_pretty(report)? + "\n"
    } else {
        render::report(report, &output::style(false))
    };
    output::write(&mut std::io::stdout(), text.as_bytes())?;
    Ok(if report.is_good() { Exit::Done } else { Exit::NotAsExpected })
}

fn capture(scenario: Option<&str>, output: &PathBuf, quiet: Quiet) -> anyhow::Result<Exit> {
    unmasq_host::capture::check(output)?;
    // Inside, relative paths mean the same, but for those below /run.
    let output = std::path::absolute(output).context("where to write")?;
    if output.starts_with("/run") {
        bail!("the lab has a /run of its own: write somewhere else than {}", output.display());
    }
    let name = match (place::running(scenario)?, scenario) {
        (Some(running), _) => {
            running.capture(&output)?;
            running.name
        }
        (None, Some(scenario)) => {
            let text = checked(scenario)?;
            isolate()?;
            let session = Session::up(&text, &quiet.say())?;
            unmasq_host::capture::write(&output, &session.capture()?)?;
            session.cluster.scenario.name.clone()
        }
        (None, None) => bail!(NONE_UP),
    };
    output::warn(&format!("captured {name} into {}", output.display()));
    Ok(Exit::Done)
}

fn step(scenario: Option<&str>) -> anyhow::Result<Exit> {
    let told = place::one(scenario)?.step()?;
    let (title, how) = told.split_once('\n').unwrap_or((&told, ""));
    output::warn(title);
    // Commands and settings, to be copied.
    how.lines().for_each(|line| output::verbatim(&format!("  {line}")));
    Ok(Exit::Done)
}

fn down(scenario: Option<&str>, all: bool) -> anyhow::Result<Exit> {
    let ended = if all { place::all()? } else { vec![place::one(scenario)?] };
    for running in ended {
        running.down()?;
        output::warn(&format!("{} is down", running.name));
    }
    Ok(Exit::Done)
}
