//! `unmasq verify`: predictions beside real connections.

mod by_hand;
mod observed;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ArgAction;
use ipnet::IpNet;

use unmasq_audit::dependent::dependences;
use unmasq_audit::expect::Expectations;
use unmasq_audit::matrix::Row;
use unmasq_audit::matrix::change::are_comparable;
use unmasq_audit::matrix::verify::{Checks, Concern, HostOutside, Tried, Vantage, Verdict, checks};
use unmasq_audit::{Audit, Request, clients};
use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Paths;
use unmasq_eval::trace::Options;
use unmasq_fix::{FindingName, Manifests, State, Wanted, plan};
use unmasq_lab::connect::Surroundings;
use unmasq_report::audit::Subject;
use unmasq_report::verify::Words;
use unmasq_report::{json, terminal};

use crate::audit::{self, Progress};
use crate::echo::parse_duration;
use crate::fix;
use crate::lab::Through;
use crate::output::{self, Exit};
use crate::source::LoadedCluster;

/// What `-h` says at its end.
pub(crate) const EXAMPLES: &str = "\
Example:
  unmasq verify --lab canal-unused-pool

More with --help.";

/// What `--help` says at its end.
pub(crate) const MORE: &str = "\
Examples:
  In the lab: every connection of a cluster that is up, or of one built for it
    unmasq verify --lab canal-unused-pool
  Only what a finding concerns; only what expectations are about; only what has changed since
    unmasq verify --lab canal-unused-pool calico-unused-pool
    unmasq verify --lab canal-unused-pool --expect expect.yaml
    unmasq verify --lab canal-unused-pool --since before/
  On hosts: what to start where, and then what came of it
    unmasq verify calico-unused-pool capture/ --outside laptop=192.168.7.20
    unmasq verify calico-unused-pool capture/ --outside laptop=192.168.7.20 --observed observed-*.json
  After a fix, by what its plan foretold
    unmasq verify calico-unused-pool before/ --fixed --observed observed-*.json

The guide is docs/verify.md.

Exit codes:
  0  all that was tried ended as predicted; without --lab and --observed: printed what to try
  1  something ended otherwise
  2  wrong usage, input that can't be read, or the lab could not do it
  3  nothing ended otherwise, but something could not be predicted or not be seen, or there was
     nothing to try";

/// Tries new connections, and prints what was predicted beside what was observed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what these findings concern, as `unmasq audit` names them (ID, or ID/SUBJECT); then the
    /// capture that is predicted from. Left out: everything; with --lab, the cluster as it is
    #[arg(value_name = "FINDING… [CAPTURE]")]
    words: Vec<String>,
    /// Make the connections through a cluster of the lab: one that is up, or one that is built for
    /// it
    #[arg(long, value_name = "SCENARIO", conflicts_with_all = ["observed", "outside"])]
    lab: Option<String>,
    /// What `unmasq probe --json` printed on the hosts
    #[arg(long, value_name = "FILE", num_args = 1..)]
    observed: Vec<PathBuf>,
    /// A host outside of the cluster that calls and is called; several addresses with commas
    #[arg(long, value_name = "NAME=ADDR", value_parser = parse_outside)]
    outside: Vec<HostOutside>,
    /// Only what these expectations are about (docs/expectations.md); with findings, what they are
    /// judged by
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Only what ends otherwise than it did in this earlier capture
    #[arg(long, value_name = "CAPTURE", conflicts_with_all = ["fixed"])]
    since: Option<PathBuf>,
    /// Predict what is when the findings are mended as `unmasq fix` plans it, and try only what that
    /// changes
    #[arg(long)]
    fixed: bool,
    /// The remedy of the plan, by its number in the audit
    #[arg(long, value_name = "NUMBER", requires = "fixed")]
    remedy: Option<usize>,
    /// What the plan may make worse, by its name in the refusal of `unmasq fix`
    #[arg(long, value_name = "NAME", requires = "fixed")]
    accept: Vec<String>,
    /// How many connections to try at most, of each kind some
    #[arg(long, value_name = "N", default_value = "1000")]
    max: usize,
    /// How long `unmasq echo` runs in the command lines that are printed
    #[arg(long = "for", value_name = "DURATION", default_value = "15m", value_parser = parse_duration)]
    duration: Duration,
    /// The range of all pods, where it can't be found in the capture; one for each family
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Vec<IpNet>,
    /// Print as JSON (unmasq.verify/v1, schemas/verify.v1.json)
    #[arg(long)]
    json: bool,
    /// Take nothing for granted: what would be an assumption makes a prediction unknown
    #[arg(long)]
    strict: bool,
    /// Say nothing of how far the lab is
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// What is as predicted too, each connection by itself
    #[arg(short, long, action = ArgAction::SetTrue)]
    verbose: bool,
}

/// Tries, and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (findings, capture) = fix::split(&args.words)?;
    if args.since.is_some() && !findings.is_empty() {
        bail!("name findings or say --since, not both");
    }
    if args.fixed && findings.is_empty() {
        bail!("--fixed is for findings: name them");
    }
    if args.lab.is_none() && capture.is_none() {
        bail!("name a capture to predict from, or a cluster of the lab with --lab");
    }
    let say = |what: &str| {
        if !args.quiet {
            output::warn(&format!("{what} …"));
        }
    };
    let through = args.lab.as_deref().map(|name| Through::open(name, &say)).transpose()?;
    let loaded = load(args, capture.as_deref(), through.as_ref())?;
    let vantage = match &through {
        Some(through) => of_lab(through.surroundings()?),
        None => of_hosts(args, &loaded.expectations),
    };
    let predicted = predict(args, loaded, &findings, &vantage)?;
    let Predicted { cluster, checks } = predicted;
    let words = Words::new(&cluster, &vantage);
    let (seen, strays) = match &through {
        Some(through) => (observed::through(through, &checks, &cluster, &say)?, 0),
        None if args.observed.is_empty() && !args.json => {
            let text = by_hand::text(&checks, &words, &vantage, args.duration);
            output::write(&mut io::stdout(), text.as_bytes())?;
            return Ok(if checks.checks.is_empty() { Exit::Unknown } else { Exit::Done });
        }
        None => observed::read(&args.observed, &checks, &cluster)?,
    };
    let tried = Tried { checks, seen, strays };
    let lab = through.as_ref().map(Through::name);
    let capture = capture.map(|path| path.display().to_string());
    let subject = Subject {
        cluster: &cluster,
        capture: capture.as_deref(),
        service: None,
        version: env!("CARGO_PKG_VERSION"),
    };
    let text = if args.json {
        let document = json::verified(&tried, &subject, lab, &words);
        serde_json::to_string_pretty(&document).context("writing the answer as JSON")? + "\n"
    } else {
        terminal::verified(&tried, &words, &output::style(args.verbose))
    };
    output::write(&mut io::stdout(), text.as_bytes())?;
    if through.is_none() && args.observed.is_empty() {
        return Ok(Exit::Done);
    }
    Ok(match tried.verdict() {
        Verdict::AsPredicted => Exit::Done,
        Verdict::Differs => Exit::NotAsExpected,
        Verdict::Unpredicted | Verdict::Unseen => Exit::Unknown,
    })
}

/// What is predicted from.
struct Loaded {
    state: State,
    expectations: Expectations,
}

fn load(args: &Args, capture: Option<&Path>, through: Option<&Through>) -> anyhow::Result<Loaded> {
    let kept = match (capture, through) {
        (None, Some(through)) => Some(through.capture()?),
        (Some(_), _) | (None, None) => None,
    };
    let path = kept.as_ref().map(|kept| kept.path()).or(capture);
    let LoadedCluster { cluster, expectations, manifests, connections: _ } =
        audit::load(path, args.cluster_cidr.clone())?;
    let expectations = audit::expectations(args.expect.as_deref(), expectations, &cluster)?;
    Ok(Loaded { state: State { cluster, manifests: Manifests::new(manifests) }, expectations })
}

/// What is to be tried, and of which cluster.
struct Predicted {
    cluster: Cluster,
    checks: Checks,
}

fn predict(
    args: &Args,
    loaded: Loaded,
    findings: &[FindingName],
    vantage: &Vantage,
) -> anyhow::Result<Predicted> {
    let Loaded { state, expectations } = loaded;
    let found = match findings.is_empty() {
        true => Audit::default(),
        false => audit::ask(&state.cluster, &expectations, Request { strict: args.strict }),
    };
    let rows = rows(&found, findings)?;
    let after = match args.fixed {
        true => Some(mended(args, &state, &found, &expectations, findings)?),
        false => None,
    };
    let earlier = match &args.since {
        Some(capture) => Some(audit::load(Some(capture), args.cluster_cidr.clone())?.cluster),
        None => None,
    };
    // The state that is predicted from, and the one that it is compared with.
    let (cluster, other) = match (after, earlier) {
        (Some(after), _) => (after, Some(state.cluster)),
        (None, earlier) => (state.cluster, earlier),
    };
    if other.as_ref().is_some_and(|other| !are_comparable(other, &cluster)) {
        bail!("the two captures have other nodes or Services, so they can't be compared");
    }
    let options = || Options { strict: args.strict, ..Options::default() };
    let other = other.as_ref().map(|other| Paths::new(other, options()));
    let concern = match &other {
        Some(other) => Concern::Changed(other),
        None if !findings.is_empty() => Concern::Rows(&rows),
        None if args.expect.is_some() => Concern::Expected(&expectations),
        None => Concern::Everything,
    };
    let progress = Progress::new();
    let paths = Paths::new(&cluster, options());
    let clients = clients(&cluster, &expectations, &dependences(&cluster));
    let checks = checks(&paths, &clients, concern, vantage, args.max, &|done, of| {
        progress.show(&format!("predicting: Service {done} of {of}"));
    });
    progress.clear();
    drop(paths);
    Ok(Predicted { checks, cluster })
}

/// The rows that findings are about.
fn rows<'a>(found: &'a Audit, findings: &[FindingName]) -> anyhow::Result<Vec<&'a Row>> {
    let mut rows: Vec<usize> = Vec::new();
    for name in findings {
        let mut own = found.findings.iter().filter(|finding| name.is_of(finding)).peekable();
        if own.peek().is_none() {
            let there: Vec<String> =
                found.findings.iter().map(|one| FindingName::of(one).to_string()).collect();
            let there = match there.is_empty() {
                true => "nothing was found".to_owned(),
                false => format!("there are {}", there.join(", ")),
            };
            bail!(
                "there is no finding {name} here: {there}. What a fix has changed is tried with \
                 --since, or with --fixed and the capture from before"
            );
        }
        rows.extend(own.flat_map(|finding| finding.affected.rows.iter().copied()));
    }
    Ok(rows.into_iter().filter_map(|row| found.matrix.rows.get(row)).collect())
}

/// The cluster as `unmasq fix` foretells it.
fn mended(
    args: &Args,
    state: &State,
    found: &Audit,
    expectations: &Expectations,
    findings: &[FindingName],
) -> anyhow::Result<Cluster> {
    let wanted = Wanted {
        findings: findings.to_vec(),
        remedy: args.remedy,
        accepted: args.accept.iter().cloned().collect(),
        strict: args.strict,
    };
    match plan(state, found, expectations, &wanted, &|_, _| {}) {
        Ok(plan) => Ok(plan.after.cluster),
        Err(refusal) => bail!("unmasq fix has no plan for it: {refusal}"),
    }
}

/// What is known around the lab's cluster.
fn of_lab(surroundings: Surroundings) -> Vantage {
    let Surroundings { hosts, masquerades, knows_pods, want_header } = surroundings;
    let host = |host: unmasq_lab::connect::HostOutside| HostOutside {
        name: host.name,
        addresses: host.addresses,
        reaches: host.reaches,
    };
    Vantage {
        hosts: hosts.into_iter().map(host).collect(),
        anybody: false,
        masquerades: Some(masquerades),
        knows_pods: Some(knows_pods),
        want_header,
    }
}

/// What is said of what is around the cluster: whoever reads the command lines finds the hosts that
/// aren't named.
fn of_hosts(args: &Args, expectations: &Expectations) -> Vantage {
    let gateways = &expectations.gateways;
    let masquerades = gateways.iter().flat_map(|one| one.masquerades.iter().copied());
    Vantage {
        hosts: args.outside.clone(),
        anybody: true,
        masquerades: (!gateways.is_empty()).then(|| masquerades.collect()),
        knows_pods: match &gateways[..] {
            [only] => Some(only.knows_pods.clone()),
            [] | [_, _, ..] => None,
        },
        want_header: Vec::new(),
    }
}

/// `NAME=ADDR[,ADDR…]`.
fn parse_outside(text: &str) -> Result<HostOutside, String> {
    let (name, addresses) =
        text.split_once('=').ok_or("a name and addresses are expected: laptop=192.168.7.20")?;
    let address =
        |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no address"));
    let addresses = addresses.split(',').map(address).collect::<Result<_, _>>()?;
    Ok(HostOutside { name: name.to_owned(), addresses, reaches: None })
}

/// Where a check may arrive.
fn ends(check: &unmasq_audit::matrix::verify::Check) -> Vec<SocketAddr> {
    let at = check.predicted.iter().filter_map(|one| one.at);
    at.filter_map(|(address, port)| Some(SocketAddr::new(address, port?))).collect()
}

/// How many connections are made for a check: where chance chooses, more than one.
fn times(check: &unmasq_audit::matrix::verify::Check) -> usize {
    match check.predicted.len() {
        0 | 1 => 1,
        several => (2 * several).min(MOST_TIMES),
    }
}

const MOST_TIMES: usize = 8;
