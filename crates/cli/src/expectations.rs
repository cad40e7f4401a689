//! `unmasq expect`: what must hold of sources in a cluster.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use unmasq_audit::dependent::dependences;
use unmasq_audit::expect::propose;
use unmasq_audit::matrix::{self, Clients};
use unmasq_cluster::paths::Paths;
use unmasq_eval::trace::Options;
use unmasq_host::capture::Source;

use crate::output::{self, Exit};
use crate::source;

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  unmasq expect init capture.tar.gz
  unmasq expect init capture/ -o expect.yaml

The format is described in docs/expectations.md.";

/// What must hold of sources.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Propose a file for a cluster as it is, each line with its reason
    Init(Init),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// A capture of the cluster: a directory, .tar, .tar.gz or .tar.zst
    capture: PathBuf,
    /// The file to write, which must not exist. Left out: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Does what was asked.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Init(args) => init(args),
    }
}

fn init(args: &Init) -> anyhow::Result<Exit> {
    let source = Source::open(&args.capture)?;
    let cluster = source::cluster(&source, Vec::new(), &|_, _| {})?.cluster;
    if cluster.objects.services.is_empty() {
        output::warn(
            "note: the capture has no Services (kubernetes/services.json): only what its nodes \
             say of egress is proposed",
        );
    }
    let dependences = dependences(&cluster);
    // Anybody is enough here: a proposal says nothing of single networks.
    let clients = Clients::of(&cluster);
    let paths = Paths::new(&cluster, Options::default());
    let matrix = matrix::build(&paths, &clients, &|_, _| {});
    let text = propose(&cluster, &matrix, &dependences);
    match &args.output {
        None => output::write(&mut io::stdout(), text.as_bytes())?,
        Some(path) => write_new(path, &text)?,
    }
    Ok(Exit::Done)
}

/// A file that somebody has edited is not written over.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists already: remove it, or name another file", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("writing {}", path.display())),
    };
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
