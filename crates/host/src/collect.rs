//! Lists a node's network state with the node's own tools, and changes nothing by it.
//!
//! Out: the files of a capture (see `unmasq_parse::capture`), and a [`Step`] for each with what
//! came of it. One failed command costs its file.
//!
//! Reading can change a node: asking a netlink family that the kernel doesn't have loads its
//! module, `iptables-legacy-save` makes the tables that it lists, and both may run modprobe. So
//! nothing is asked of the kernel before it is shown to have it (see [`kernel`]), and the tools
//! are given no modprobe. One way is left: iptables-nft-save may make the kernel load a match of
//! xtables again that was removed while rules were in use; then the report tells (see [`listing`]).

mod command;
mod kernel;
mod listing;
mod machine;
mod recorder;
mod secret;
mod setting;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use unmasq_parse::capture::{FileRecord, MANIFEST, Manifest, NodeRecord, SCHEMA, Status};

pub use machine::{file_text, process_line};
use recorder::Recorder;

/// What to collect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name; by default the host's.
    pub node: Option<String>,
    /// Another network namespace than this program's, as a file (`/run/netns/x`,
    /// `/proc/7/ns/net`). Processes and files are the machine's, and are then left out.
    pub netns: Option<PathBuf>,
    /// Whether to list connections too, which may be many.
    pub connections: bool,
    /// How long a command may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { node: None, netns: None, connections: false, timeout: Duration::from_secs(30) }
    }
}

/// What was collected.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The node's name in the capture.
    pub node: String,
    /// The capture's files.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was done, in order.
    pub report: Vec<Step>,
}

/// What came of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its path in the node's folder.
    pub file: String,
    /// The command, or what was read.
    pub command: String,
    /// What came of it.
    pub status: Status,
    /// Why, and what the command said.
    pub detail: String,
}

/// Why nothing can be collected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that can't be a folder's.
    #[error("{0:?} can't be a node's name: it must not be empty or . or .., or have a / in it")]
    NodeName(String),
    /// The host has no name.
    #[error("the host's name can't be read from {path}: {error}: give the node's name")]
    NoHostName {
        /// Where it should be.
        path: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The namespace can't be entered.
    #[error("the network namespace {path} can't be entered: {error}")]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Collects.
pub fn collect(options: &Options) -> Result<Collected, Error> {
    let node = match &options.node {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    if matches!(node.as_str(), "" | "." | "..") || node.contains('/') {
        return Err(Error::NodeName(node));
    }
    let (listed, report) = match &options.netns {
        None => steps(options),
        Some(path) => inside(path, || steps(options))?,
    };
    let record = |step: &Step| FileRecord {
        command: step.command.clone(),
        status: step.status,
        detail: step.detail.clone(),
    };
    let records = report.iter().map(|step| (step.file.clone(), record(step))).collect();
    let manifest = Manifest {
        schema: SCHEMA.to_owned(),
        created: Some(timestamp(SystemTime::now())),
        by: Some(format!("unmasq {}", env!("CARGO_PKG_VERSION"))),
        note: None,
        nodes: BTreeMap::from([(node.clone(), NodeRecord { files: records })]),
    };
    let mut files: BTreeMap<String, Vec<u8>> =
        listed.into_iter().map(|(path, text)| (format!("nodes/{node}/{path}"), text)).collect();
    // Strings and maps of strings always serialise.
    files.insert(MANIFEST.to_owned(), serde_json::to_vec_pretty(&manifest).unwrap_or_default());
    Ok(Collected { node, files, report })
}

fn steps(options: &Options) -> (BTreeMap<String, Vec<u8>>, Vec<Step>) {
    let mut recorder = Recorder::new(options.timeout);
    listing::rules(&mut recorder);
    listing::routing(&mut recorder);
    setting::collect(&mut recorder);
    listing::beyond(&mut recorder);
    if options.connections {
        listing::connections(&mut recorder);
    }
    if options.netns.is_none() {
        machine::processes(&mut recorder);
        machine::files(&mut recorder);
    }
    recorder.finish()
}

/// Runs a closure on a thread of its own inside a network namespace, so that this one stays where
/// it is. Commands that the thread starts are inside too.
fn inside<R: Send>(path: &Path, closure: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let failed = |error| Error::Namespace { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| failed(error.into()))?;
            Ok(closure())
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn host_name() -> Result<String, Error> {
    let path = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(path);
    Ok(name.map_err(|error| Error::NoHostName { path, error })?.trim().to_owned())
}

/// RFC 3339, in UTC, to the second.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the proleptic Gregorian calendar: eras of 400 years from 1 March 0000
    // (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        // Values from date(1): date -u -d @N +%FT%TZ
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn names_that_are_no_folder() {
        for name in ["", ".", "..", "a/b"] {
            let options = Options { node: Some(name.to_owned()), ..Options::default() };
            assert!(matches!(collect(&options), Err(Error::NodeName(_))), "{name}");
        }
        let options = Options { netns: Some("/nonexistent".into()), ..Options::default() };
        let message = collect(&options).unwrap_err().to_string();
        assert!(message.starts_with("the network namespace /nonexistent can't be entered"));
    }
}
