//! `unmasq diff`.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ArgAction;
use ipnet::IpNet;

use unmasq_fix::{Manifests, State, difference};
use unmasq_report::audit::Subject;
use unmasq_report::{json, terminal};

use crate::audit::{self, Progress};
use crate::output::{self, Exit};
use crate::source::LoadedCluster;

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  What did a change of the cluster do to sources?
    unmasq diff before/ after/
  Which settings have another value?
    unmasq diff before/ after/ --json | jq '.settings[]'

Exit codes:
  0  nothing differs
  1  something differs
  2  wrong usage, or input that can't be read";

/// Compares two captures.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A capture: a directory, .tar, .tar.gz or .tar.zst
    before: PathBuf,
    /// Another capture of the same cluster
    after: PathBuf,
    /// What must hold, as YAML: whom it names is asked about too. Left out: the first capture's own
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The range of all pods, where it can't be found in the captures; one for each family
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Vec<IpNet>,
    /// Print what differs as JSON (unmasq.diff/v1, schemas/diff.v1.json)
    #[arg(long)]
    json: bool,
    /// All answers that change, and all names
    #[arg(short, long, action = ArgAction::SetTrue)]
    verbose: bool,
}

/// Compares and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let load = |capture: &Path| audit::load(Some(capture), args.cluster_cidr.clone());
    let LoadedCluster { cluster, expectations, manifests, .. } = load(&args.before)?;
    let expectations = audit::expectations(args.expect.as_deref(), expectations, &cluster)?;
    let before = State { cluster, manifests: Manifests::new(manifests) };
    let LoadedCluster { cluster, manifests, .. } = load(&args.after)?;
    let after = State { cluster, manifests: Manifests::new(manifests) };
    let progress = Progress::new();
    let found = difference(&before, &after, &expectations, &|done, of| {
        progress.show(&format!("Service {done} of {of}"));
    });
    progress.clear();
    let same = found.is_none();
    let capture = args.before.display().to_string();
    let subject = Subject {
        cluster: &before.cluster,
        capture: Some(&capture),
        service: None,
        version: env!("CARGO_PKG_VERSION"),
    };
    let text = match (args.json, same) {
        (true, _) => {
            let after = args.after.display().to_string();
            let document = json::difference(&found, &subject, &after);
            serde_json::to_string_pretty(&document).context("writing the answer as JSON")? + "\n"
        }
        (false, true) => "Nothing differs.\n".to_owned(),
        (false, false) => terminal::difference(&found, &subject, &output::style(args.verbose)),
    };
    output::write(&mut io::stdout(), text.as_bytes())?;
    Ok(if same { Exit::Done } else { Exit::NotAsExpected })
}
