//! Clusters by chance, each built and asked everything: what really happened to a caller's address
//! is among what a capture of the cluster says, question by question and cell by cell of the
//! audit's matrix. And each remedy that a plan allows is done there, and all is asked again.
//!
//! `UNMASQ_RANDOM_CLUSTERS` says how many, `UNMASQ_RANDOM_CLUSTERS_SEED` from which seed (1).

#![allow(clippy::expect_used, reason = "a test that panicked has failed already")]

#[path = "../nodes/mod.rs"]
mod nodes;
#[path = "../trials/mod.rs"]
mod trials;

mod cells;
mod remedies;
mod settings;
mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow, ensure};
use unmasq_audit::matrix::{self as audit, Clients};
use unmasq_cluster::paths::Paths;
use unmasq_cluster::{Overrides, read};
use unmasq_eval::trace::Options;
use unmasq_lab::cluster::Cluster;
use unmasq_lab::cluster::plan::Kind;
use unmasq_lab::matrix::{self, Matrix, Row};
use unmasq_lab::random_cluster;
use unmasq_lab::scenario::Fate as Seen;
use unmasq_lab::session::Session;

/// How many clusters where nobody says.
const CLUSTERS: u64 = 4;
/// Those whose remedies are done where nobody says: a gateway without a way back, and what is worse
/// as the plan says.
const MENDED: [u64; 2] = [0, 27];

type Test = (&'static str, Box<dyn FnOnce() -> Result<()> + Send>);

fn main() -> ExitCode {
    let number = |name: &str, otherwise: u64| {
        let given = std::env::var(name).ok();
        given.map_or(Ok(otherwise), |text| text.parse().map_err(|_| format!("{name}: {text:?}")))
    };
    let asked = number("UNMASQ_RANDOM_CLUSTERS", 0)
        .and_then(|count| Ok((count, number("UNMASQ_RANDOM_CLUSTERS_SEED", 1)?)));
    let (count, first) = match asked {
        Ok(asked) => asked,
        Err(what) => {
            eprintln!("{what} is no number");
            return ExitCode::FAILURE;
        }
    };
    let seeds = |count: u64| first..first.saturating_add(count);
    let (clusters, mended) = match count {
        0 => (seeds(CLUSTERS), MENDED.to_vec()),
        count => (seeds(count), seeds(count).collect()),
    };
    let all = Arc::new(Mutex::new((Counts::default(), remedies::Tally::default())));
    let asked = clusters.map(|seed| -> Test {
        let all = all.clone();
        let run = move || {
            let counts = one(seed)?;
            all.lock().expect("nobody panicked").0.add(&counts);
            Ok(())
        };
        // The names live as long as the process.
        (format!("seed_{seed}").leak(), Box::new(run))
    });
    let mended = mended.into_iter().map(|seed| -> Test {
        let all = all.clone();
        let run = move || {
            let tally = remedies::of_seed(seed)?;
            all.lock().expect("nobody panicked").1.add(&tally);
            Ok(())
        };
        (format!("remedies_of_seed_{seed}").leak(), Box::new(run))
    });
    let code = trials::run(asked.chain(mended));
    let all = all.lock().expect("nobody panicked");
    println!("{}{}", all.0, all.1);
    code
}

/// What was compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    clusters: usize,
    /// Connections that were made.
    rows: usize,
    /// Of them, compared with the ways of the same question.
    by_ways: usize,
    /// Compared with the cells that they belong to.
    by_cells: usize,
    /// Not compared, and why.
    skipped: BTreeMap<String, usize>,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.clusters += other.clusters;
        self.rows += other.rows;
        self.by_ways += other.by_ways;
        self.by_cells += other.by_cells;
        for (why, count) in &other.skipped {
            *self.skipped.entry(why.clone()).or_default() += count;
        }
    }

    pub(crate) fn skip(&mut self, why: &str) {
        *self.skipped.entry(why.to_owned()).or_default() += 1;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { clusters, rows, by_ways, by_cells, skipped } = self;
        writeln!(f, "{clusters} clusters, {rows} connections")?;
        writeln!(f, "{by_ways} compared with the question's ways, {by_cells} with cells")?;
        skipped.iter().try_for_each(|(why, count)| writeln!(f, "  {count} not: {why}"))
    }
}

/// Everything that a comparison looks at.
pub(crate) struct Compared<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) seen: &'a Matrix,
    pub(crate) paths: &'a Paths<'a>,
    pub(crate) rows: &'a [audit::Row],
}

fn one(seed: u64) -> Result<Counts> {
    let text = random_cluster::text(seed);
    let session = Session::up(&text, &|_| {})?;
    let files = session.capture()?;
    let contents = read::capture(&files)?;
    ensure!(contents.problems.is_empty(), "{:?}", contents.problems);
    let read = unmasq_cluster::Cluster::new(contents.nodes, contents.objects, Overrides::default());
    let paths = Paths::new(&read, Options::default());
    let mut clients = Clients::of(&read);
    // As an owner would name his clients: one may be of a network that a bridge of the nodes has.
    for net in session.cluster.scenario.outside.iter().flat_map(|host| &host.addresses) {
        clients.add(&read, net.trunc());
    }
    let audited = audit::build(&paths, &clients, &|_, _| {});
    let seen = session.matrix(&|_| {})?;
    let compared =
        Compared { cluster: &session.cluster, seen: &seen, paths: &paths, rows: &audited.rows };
    let mut counts = Counts { clusters: 1, rows: seen.rows.len(), ..Counts::default() };
    let mut wrong = compared.all(&mut counts);
    if counts.by_ways == 0 && counts.rows > 0 {
        wrong.push("nothing was compared".to_owned());
    }
    if wrong.is_empty() {
        return Ok(counts);
    }
    let what = format!("{} of {} connections differ", wrong.len(), counts.rows);
    Err(differs(seed, &format!("seed_{seed}"), &what, &wrong, &files))
}

/// What differs, with what is needed to look at it again: the capture is kept.
pub(crate) fn differs(
    seed: u64,
    test: &str,
    what: &str,
    wrong: &[String],
    files: &BTreeMap<String, Vec<u8>>,
) -> anyhow::Error {
    let kept = match keep(seed, &random_cluster::text(seed), files) {
        Ok(folder) => format!("the capture is in {}", folder.display()),
        Err(error) => format!("the capture could not be kept: {error:#}"),
    };
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    anyhow!(
        "{what}; {kept}\nagain: UNMASQ_RANDOM_CLUSTERS=1 UNMASQ_RANDOM_CLUSTERS_SEED={seed} \
         cargo test -p unmasq-lab --test random_clusters -- --exact {test}\n{}",
        shown.join("\n")
    )
}

/// Writes the capture, with the scenario beside it.
fn keep(seed: u64, text: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("random-cluster-{seed}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    }
    for (path, bytes) in files {
        let path = folder.join("capture").join(path);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(path, bytes)?;
    }
    std::fs::write(folder.join("scenario.yaml"), text)?;
    Ok(folder)
}

impl Compared<'_> {
    /// Compares every row; what differs.
    pub(crate) fn all(&self, counts: &mut Counts) -> Vec<String> {
        let mut wrong = Vec::new();
        for row in &self.seen.rows {
            let said =
                |what: String| format!("{}\n    {what}", matrix::describe(self.cluster, row));
            if row.foreseen.iter().any(|one| !one.unknown.is_empty()) {
                // A masquerade may choose another port, and what is sent there may meet a rule.
                counts.skip("the lab's own walk of all hosts leaves it open");
                continue;
            }
            if row.agreed().is_none() && self.is_rate_limited(row) {
                counts.skip("an error of the gateway, of which it sends few (ip_error())");
                continue;
            }
            if row.failed.is_some() || row.agreed().is_none() {
                wrong.push(said("the lab's own walk of all hosts differs".to_owned()));
                continue;
            }
            wrong.extend(self.by_ways(row, counts).err().map(said));
            wrong.extend(self.by_cells(row, counts).err().map(said));
        }
        wrong
    }

    /// A node of the lab among those that were read.
    pub(crate) fn node(&self, host: usize) -> Option<usize> {
        self.paths.cluster().node_index(&self.cluster.plan.hosts[host].name)
    }

    /// The node of a pod, or a node itself.
    pub(crate) fn node_of(&self, host: usize) -> Option<usize> {
        self.node(self.cluster.plan.hosts[host].node.unwrap_or(host))
    }

    /// Whether the gateway, which has no route, was to say so: net/ipv4/route.c limits the rate.
    fn is_rate_limited(&self, row: &Row) -> bool {
        let kind = |host: usize| self.cluster.plan.hosts[host].kind;
        let refused_there = row.foreseen.iter().any(|one| {
            let at = one.way.last().map(|host| kind(*host));
            one.result.fate == Seen::Refused && at == Some(Kind::Gateway)
        });
        row.seen.fate == Seen::Silent && row.failed.is_none() && refused_there
    }

    /// Whose rules rewrote the source on nodes and in pods, as the lab's own walk says.
    pub(crate) fn owners(&self, row: &Row) -> Vec<unmasq_audit::Owner> {
        let is_gateway = |host: usize| self.cluster.plan.hosts[host].kind == Kind::Gateway;
        let rewriters = row.agreed().map(|one| &one.rewriters[..]).unwrap_or_default();
        let inside = rewriters.iter().filter(|(host, _)| !is_gateway(*host));
        let owner = |(host, rule): &(usize, _)| {
            Some(unmasq_audit::owner(self.seen.hosts.get(*host)?.as_ref()?, *rule))
        };
        inside.filter_map(owner).collect()
    }
}
