//! Files as they are collected, and what came of each.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use unmasq_parse::capture::Status;

use super::Step;
use super::command::{self, Failure, Output};
use super::kernel::{Facility, Kernel, Presence};

/// Runs commands and keeps what they say.
pub(super) struct Recorder {
    kernel: Kernel,
    timeout: Duration,
    files: BTreeMap<String, Vec<u8>>,
    report: Vec<Step>,
}

impl Recorder {
    /// A recorder without files.
    pub(super) fn new(timeout: Duration) -> Recorder {
        let (files, report) = (BTreeMap::new(), Vec::new());
        Recorder { kernel: Kernel::observe(), timeout, files, report }
    }

    /// The files, and the report.
    pub(super) fn finish(self) -> (BTreeMap<String, Vec<u8>>, Vec<Step>) {
        (self.files, self.report)
    }

    /// Runs a command whose output is the file.
    pub(super) fn command(&mut self, file: &str, arguments: &[&str]) {
        let result = self.run(arguments);
        self.result(file, arguments, result);
    }

    /// Runs a command if the kernel has all that the command asks it for.
    pub(super) fn command_with(&mut self, needs: &[Facility], file: &str, arguments: &[&str]) {
        if self.may(needs, file, arguments) {
            self.command(file, arguments);
        }
    }

    /// Whether the kernel has all that a command asks it for; if not, that is what the file gets.
    pub(super) fn may(&mut self, needs: &[Facility], file: &str, arguments: &[&str]) -> bool {
        for facility in needs {
            let module = facility.module();
            match self.kernel.has(*facility) {
                Presence::Here => {}
                Presence::NotHere => {
                    let why = format!("the kernel has no {module}, and asking would load it");
                    self.step(file, &arguments.join(" "), Status::Absent, why);
                    return false;
                }
                Presence::Unknown => {
                    let why = format!(
                        "not run: whether the kernel has {module} can't be told from \
                         /proc/modules, modules.builtin and /proc/kallsyms, and asking would load it"
                    );
                    self.step(file, &arguments.join(" "), Status::Failed, why);
                    return false;
                }
            }
        }
        true
    }

    /// Whether the kernel was shown to have no places for BPF programs that only bpftool lists.
    pub(super) fn has_no_bpf_hooks(&self) -> bool {
        self.kernel.bpf_hooks() == Presence::NotHere
    }

    /// Runs a command and keeps nothing.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        // A dump during which the kernel's tables changed may lack entries (NLM_F_DUMP_INTR);
        // iproute2 says so and succeeds.
        for _ in 0..3 {
            let output = command::run(arguments, self.timeout)?;
            if !output.stderr.contains("Dump was interrupted") {
                return Ok(output);
            }
        }
        command::run(arguments, self.timeout)
    }

    /// Keeps what a command gave.
    pub(super) fn result(
        &mut self,
        file: &str,
        arguments: &[&str],
        result: Result<Output, Failure>,
    ) {
        let command = arguments.join(" ");
        match result {
            Ok(output) => self.keep(file, &command, output.stdout, output.stderr),
            Err(failure) => {
                let package = match &failure {
                    Failure::NotFound(program) => package(program),
                    Failure::Io { .. }
                    | Failure::TimedOut { .. }
                    | Failure::TooMuch
                    | Failure::Failed { .. } => None,
                };
                let advice = package.map(|name| format!(": install the package {name}"));
                let detail = format!("{failure}{}", advice.unwrap_or_default());
                self.step(file, &command, Status::Failed, detail);
            }
        }
    }

    /// Keeps a file that the kernel shows; one that it doesn't have is absent.
    pub(super) fn copy(&mut self, file: &str, path: &Path, absent: &str) {
        let command = format!("cat {}", path.display());
        match std::fs::read(path) {
            Ok(content) => self.keep(file, &command, content, String::new()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.step(file, &command, Status::Absent, absent.to_owned());
            }
            Err(error) => self.step(file, &command, Status::Failed, error.to_string()),
        }
    }

    /// Keeps a file.
    pub(super) fn keep(&mut self, file: &str, command: &str, content: Vec<u8>, detail: String) {
        self.files.insert(file.to_owned(), content);
        self.step(file, command, Status::Collected, detail);
    }

    /// Says what came of a file.
    pub(super) fn step(&mut self, file: &str, command: &str, status: Status, detail: String) {
        let (file, command) = (file.to_owned(), command.to_owned());
        self.report.push(Step { file, command, status, detail });
    }
}

/// The package that has a tool, by the name that Debian, Fedora and SUSE give it.
fn package(program: &str) -> Option<&'static str> {
    Some(match program {
        "nft" => "nftables",
        "ipset" => "ipset",
        "ip" | "bridge" | "tc" => "iproute2 (iproute on Fedora)",
        "bpftool" => "bpftool",
        "conntrack" => "conntrack (conntrack-tools on Fedora)",
        _ if program.starts_with("iptables") || program.starts_with("ip6tables") => "iptables",
        _ => return None,
    })
}
