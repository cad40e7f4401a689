//! `unmasq audit`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, anyhow, bail};
use clap::{ArgAction, ValueEnum};
use ipnet::IpNet;

use unmasq_audit::expect::{self, Expectations};
use unmasq_audit::{Audit, Request, Severity};
use unmasq_cluster::Cluster;
use unmasq_host::capture::Source;
use unmasq_report::audit::{Subject, of_service};
use unmasq_report::terminal::Extent;
use unmasq_report::{json, terminal};

use crate::output::{self, Exit};
use crate::source::LoadedCluster;
use crate::{endpoint, source};

/// What `-h` says at its end.
pub(crate) const EXAMPLES: &str = "\
Example:
  unmasq audit examples/canal-rke

More with --help.";

/// What `--help` says at its end.
pub(crate) const MORE: &str = "\
Examples:
  Where are sources lost, and what mends it? One screen, then everything:
    unmasq audit examples/canal-rke
  What concerns one Service:
    unmasq audit examples/canal-rke --service default/web
  The same for a script, which fails if something contradicts the settings:
    unmasq audit examples/canal-rke --json --fail-on error

Exit codes:
  0  answered (with --fail-on: nothing so bad was found, and nothing could hide it)
  1  --fail-on: something so bad was found
  2  wrong usage, input that can't be read, or a --cluster-cidr or an expect.yaml that
     contradicts the cluster
  3  --fail-on: nothing so bad was found, and what is unknown could hide it";

/// Audits a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A capture with the cluster's nodes: a directory, .tar, .tar.gz or .tar.zst. Left out: this
    /// host alone (needs root)
    capture: Option<PathBuf>,
    /// What must hold, as YAML (docs/expectations.md). Left out: the capture's own expect.yaml, if
    /// it has one
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The range of all pods, where it can't be found in the capture; one for each family
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Vec<IpNet>,
    /// Only what concerns this Service
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Print everything as JSON (unmasq.audit/v1, schemas/audit.v1.json)
    #[arg(long)]
    json: bool,
    /// Exit with 1 if something as bad was found, and with 3 if what is unknown could hide it
    #[arg(long, value_enum, value_name = "SEVERITY")]
    fail_on: Option<FailOn>,
    /// Take nothing for granted: what would be an assumption makes an answer unknown
    #[arg(long)]
    strict: bool,
    /// One screen only: the verdict, the worst findings, and what was not seen
    #[arg(short, long, visible_alias = "brief", action = ArgAction::SetTrue)]
    quiet: bool,
    /// Everything in full: all names, and the command that asks each answer again
    #[arg(short, long, action = ArgAction::SetTrue, conflicts_with = "quiet")]
    verbose: bool,
}

/// How bad something must be to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// An expectation or a promise is broken
    Error,
    /// Or something is likely unwanted
    Warning,
}

/// Audits and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let LoadedCluster { cluster, expectations, .. } =
        load(args.capture.as_deref(), args.cluster_cidr.clone())?;
    let expectations = self::expectations(args.expect.as_deref(), expectations, &cluster)?;
    let service = args.service.as_deref().map(endpoint::without_kind);
    if let Some(service) = service {
        check_service(&cluster, service)?;
    }
    let whole = ask(&cluster, &expectations, Request { strict: args.strict });
    let audit = match service {
        Some(service) => of_service(&whole, &cluster, service),
        None => whole,
    };
    let capture = args.capture.as_ref().map(|path| path.display().to_string());
    let subject = Subject {
        cluster: &cluster,
        capture: capture.as_deref(),
        service,
        version: env!("CARGO_PKG_VERSION"),
    };
    let text = if args.json {
        let mut text = serde_json::to_string_pretty(&json::audit(&audit, &subject))
            .context("writing the answer as JSON")?;
        text.push('\n');
        text
    } else {
        let extent = if args.quiet { Extent::FirstScreen } else { Extent::Everything };
        terminal::audit(&audit, &subject, extent, &output::style(args.verbose))
    };
    output::write(&mut io::stdout(), text.as_bytes())?;
    Ok(args.fail_on.map_or(Exit::Done, |bound| judge(bound, &audit)))
}

/// What must hold: a file's, or what the capture brings along. Nothing is judged by a file that is
/// wrong for this cluster.
pub(crate) fn expectations(
    file: Option<&Path>,
    own: Option<String>,
    cluster: &Cluster,
) -> anyhow::Result<Expectations> {
    let (text, name) = match (file, own) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            (text, path.display().to_string())
        }
        (None, Some(text)) => (text, source::EXPECTATIONS.to_owned()),
        (None, None) => return Ok(Expectations::default()),
    };
    let expectations = expect::parse(&text, &name)?;
    match &expectations.errors(cluster)[..] {
        [] => Ok(expectations),
        errors => bail!("{}", errors.join("\n")),
    }
}

/// A capture's cluster, or this host alone.
pub(crate) fn load(capture: Option<&Path>, cidrs: Vec<IpNet>) -> anyhow::Result<LoadedCluster> {
    let loaded = match capture {
        Some(capture) => from_capture(capture, cidrs)?,
        None if source::is_root() => {
            output::warn(
                "note: this host alone is looked at, without Kubernetes objects; collect the \
                 cluster's nodes into a capture to see them together",
            );
            source::cluster_of_this_machine(cidrs)?
        }
        None => bail!("{HOW_TO_COLLECT}"),
    };
    let notes = loaded.cluster.check_given_pods().map_err(|why| anyhow!(why))?;
    notes.iter().for_each(|note| output::warn(&format!("note: {}", output::clean(note))));
    Ok(loaded)
}

const HOW_TO_COLLECT: &str = "\
name a capture: a live cluster can't be asked yet. To make one:
  on each node, as root:  unmasq collect -o NODE/ --node NODE
  put them together:      mkdir -p capture/nodes; mv NODE/nodes/NODE capture/nodes/
                          echo '{\"schema\": \"unmasq.capture/v1\"}' > capture/capture.json
  where kubectl works:    mkdir -p capture/kubernetes
    for kind in nodes pods services endpointslices.discovery.k8s.io configmaps \\
        daemonsets.apps networkpolicies.networking.k8s.io \\
        ingresses.networking.k8s.io ingressclasses.networking.k8s.io \\
        ippools.crd.projectcalico.org; do
      kubectl get $kind -A -o json > capture/kubernetes/$kind.json
    done
or run it as root on a node, for that node alone";

fn from_capture(capture: &Path, cidrs: Vec<IpNet>) -> anyhow::Result<LoadedCluster> {
    let progress = Progress::new();
    let cluster = source::cluster(&Source::open(capture)?, cidrs, &|number, of| {
        progress.show(&format!("reading node {number} of {of}"));
    });
    progress.clear();
    cluster
}

fn check_service(cluster: &Cluster, wanted: &str) -> anyhow::Result<()> {
    let names: Vec<String> =
        cluster.objects.services.iter().map(|service| service.full_name()).collect();
    if names.iter().any(|name| name == wanted) {
        return Ok(());
    }
    let near = unmasq_audit::explain::meant(wanted, names.iter().map(String::as_str));
    bail!("there is no Service {wanted}{near}")
}

pub(crate) fn ask(cluster: &Cluster, expectations: &Expectations, request: Request) -> Audit {
    let progress = Progress::new();
    let audit = unmasq_audit::audit(cluster, expectations, request, &|done, of| {
        progress.show(&format!("Service {done} of {of}"));
    });
    progress.clear();
    audit
}

/// What is being done, in one line of standard error that is written over, on a terminal only.
pub(crate) struct Progress {
    /// How long the line is; `None`: nobody is there to read it.
    shown: Option<Mutex<usize>>,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { shown: io::stderr().is_terminal().then(|| Mutex::new(0)) }
    }

    pub(crate) fn show(&self, line: &str) {
        let Some(shown) = &self.shown else { return };
        // Nobody is told of a thread that panicked while it wrote: it is told by itself.
        let Ok(mut before) = shown.lock() else { return };
        let width = *before;
        let _ = write!(io::stderr(), "\r{line:<width$}");
        *before = line.chars().count();
    }

    pub(crate) fn clear(&self) {
        self.show("");
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r");
        }
    }
}

/// Whether something as bad was found, or could be hidden.
fn judge(bound: FailOn, audit: &Audit) -> Exit {
    let bound = match bound {
        FailOn::Error => Severity::Error,
        FailOn::Warning => Severity::Warning,
    };
    let mut bad = audit.findings.iter().filter(|finding| !finding.is_of_sight());
    if bad.any(|finding| finding.severity >= bound) {
        Exit::NotAsExpected
    } else if audit.in_doubt() {
        Exit::Unknown
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use unmasq_audit::matrix::Matrix;
    use unmasq_audit::{Affected, Cause, Confidence, Finding, FindingId, Owner, Totals};

    use super::*;

    fn warning(id: FindingId) -> Finding {
        Finding {
            id,
            subject: String::new(),
            severity: Severity::Warning,
            confidence: Confidence::Certain,
            title: id.title().to_owned(),
            owner: Owner::Unclaimed,
            families: Vec::new(),
            affected: Affected::default(),
            breaks: Vec::new(),
            caused_by: Vec::new(),
            evidence: Vec::new(),
            cause: Cause { text: id.title().to_owned(), setting: None, place: None },
            remedies: Vec::new(),
        }
    }

    #[test]
    fn exit_codes() {
        let asked = Audit { matrix: Matrix { asked: 9, ..Matrix::default() }, ..Audit::default() };
        let totals = |unknown, nodes_not_captured| Audit {
            totals: Totals { unknown, nodes_not_captured, ..Totals::default() },
            hidden: vec!["a node".to_owned(); nodes_not_captured],
            ..asked.clone()
        };
        for (audit, expected) in [
            (asked.clone(), Exit::Done),
            (totals(1, 0), Exit::Unknown),
            (totals(0, 1), Exit::Unknown),
            (Audit::default(), Exit::Unknown),
            // What is missing is unknown, and nothing bad.
            (
                Audit { findings: vec![warning(FindingId::MissingNodeState)], ..totals(1, 0) },
                Exit::Unknown,
            ),
            (
                Audit { findings: vec![warning(FindingId::MixedBackends)], ..totals(1, 0) },
                Exit::NotAsExpected,
            ),
        ] {
            assert_eq!(judge(FailOn::Warning, &audit), expected, "{:?}", audit.totals);
        }
    }
}
