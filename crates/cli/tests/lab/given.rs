//! What the tests are given: a small scenario, and a folder in which its labs are listed, so that
//! they meet no other lab of the machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

/// The binary.
pub(crate) const UNMASQ: &str = env!("CARGO_BIN_EXE_unmasq");

/// externalTrafficPolicy Cluster, which masquerades what comes in by a node port; and Local, which
/// does not, and drops at nodes without an endpoint.
pub(crate) const SCENARIO: &str = r#"
schema: unmasq.scenario/v1
name: small
title: A node port hides its clients
about: externalTrafficPolicy Cluster masquerades, and Local doesn't.
network: {between: routed, pods: [10.42.0.0/16], services: [10.43.0.0/16], nodes: [10.0.0.0/24]}
outside:
  - {name: customer, addresses: [198.51.100.20/24]}
nodes:
  - {name: n1, addresses: [10.0.0.11], pods: [10.42.1.0/24]}
  - {name: n2, addresses: [10.0.0.12], pods: [10.42.2.0/24]}
pods:
  - {name: web, node: n1, labels: {app: web}}
programs:
  kube-proxy: {mode: nftables}
manifests:
  - &service
    apiVersion: v1
    kind: Service
    metadata: {name: web, namespace: default}
    spec:
      type: NodePort
      selector: {app: web}
      clusterIPs: [10.43.0.80]
      ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
remedy:
  - title: Set externalTrafficPolicy to Local
    how: |
      kubectl patch service web -p '{"spec": {"externalTrafficPolicy": "Local"}}'
    change:
      manifests:
        - apiVersion: v1
          kind: Service
          metadata: {name: web, namespace: default}
          spec:
            type: NodePort
            selector: {app: web}
            clusterIPs: [10.43.0.80]
            externalTrafficPolicy: Local
            ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
expect:
  - {from: customer, to: service/default/web, entry: node-port, via: n1, before: rewritten, after: preserved}
  - {from: customer, to: service/default/web, entry: node-port, via: n2, before: rewritten, after: silent}
"#;

/// A folder of its own, where labs are listed and files are written. What is up there ends with it.
pub(crate) struct Lab {
    folder: TempDir,
}

impl Lab {
    /// Nothing is up.
    pub(crate) fn new() -> Result<Lab> {
        Ok(Lab { folder: TempDir::new()? })
    }

    /// The small one is up.
    pub(crate) fn up() -> Result<Lab> {
        let lab = Lab::new()?;
        let file = lab.file("small.yaml", SCENARIO)?;
        lab.ends(&["up", "-q", &file], 0)?;
        Ok(lab)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file there, and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// `unmasq lab` with arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.unmasq(&[&["lab"], arguments].concat())
    }

    /// `unmasq` with arguments.
    pub(crate) fn unmasq(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(UNMASQ);
        command.args(arguments).current_dir(self.folder()).stdin(Stdio::null());
        command.env("TMPDIR", self.folder());
        for name in ["CLICOLOR_FORCE", "COLUMNS", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs it, and gives what it said if it ended with this code.
    pub(crate) fn ends(&self, arguments: &[&str], code: i32) -> Result<Said> {
        ends(&mut self.command(arguments), code)
    }

    /// What a command prints that runs inside of a host.
    pub(crate) fn inside(&self, host: &str, command: &[&str]) -> Result<String> {
        Ok(self.ends(&[&["exec", host], command].concat(), 0)?.stdout)
    }

    /// The process that a lab lives in.
    pub(crate) fn keeper(&self, name: &str) -> Result<Pid> {
        let uid = rustix::process::getuid().as_raw();
        let path = self.folder().join(format!("unmasq-lab-{uid}/{name}.json"));
        let read = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let described: serde_json::Value = serde_json::from_slice(&read)?;
        let pid = described["pid"].as_i64().and_then(|pid| pid.try_into().ok());
        pid.and_then(Pid::from_raw).context("a lab without a process")
    }

    /// Every process that comes from a command of this lab: all have its TMPDIR.
    pub(crate) fn processes(&self) -> Result<Vec<(Pid, String)>> {
        let mark = format!("TMPDIR={}", self.folder().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(pid) = number.and_then(Pid::from_raw) else { continue };
            // Those that may not be read are somebody else's.
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
                let words = fs::read(path.join("cmdline")).unwrap_or_default();
                let line =
                    String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
                found.push((pid, line));
            }
        }
        Ok(found)
    }

    /// Whether one of these runs, by words at the end of its command line: `setsid` may not have
    /// become what it is to start.
    pub(crate) fn runs(&self, command: &str) -> Result<bool> {
        Ok(self.processes()?.iter().any(|(_, line)| line.ends_with(command)))
    }

    /// Waits until none of these processes is left, and fails if one stays.
    pub(crate) fn nothing_runs(&self) -> Result<()> {
        // Each round waits for the end of all that it finds; one that ends may have begun another.
        for _ in 0..20 {
            let found = self.processes()?;
            if found.is_empty() {
                return Ok(());
            }
            for (pid, line) in found {
                await_end(pid).context(line)?;
            }
        }
        bail!("processes begin without end: {:?}", self.processes()?)
    }

    /// No process, and none of the names that `ip netns` would list outside.
    pub(crate) fn nothing_is_left(&self, of: Pid) -> Result<()> {
        self.nothing_runs()?;
        let prefix = format!("unmasq-{}-", of.as_raw_pid());
        let names = fs::read_dir("/run/netns").into_iter().flatten();
        for entry in names {
            let name = entry?.file_name();
            ensure!(!name.to_string_lossy().starts_with(&prefix), "{name:?} is left in /run/netns");
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The test has its verdict already.
        let _ = self.command(&["down", "--all"]).output();
    }
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, which must be with this code.
pub(crate) fn ends(command: &mut Command, code: i32) -> Result<Said> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("run {command:?}"))?;
    let said = Said { stdout: String::from_utf8(stdout)?, stderr: String::from_utf8(stderr)? };
    ensure!(
        status.code() == Some(code),
        "{command:?}: {status} and not {code}\n{}{}",
        said.stdout,
        said.stderr
    );
    Ok(said)
}

/// Waits for the end of a process. One that has ended already is no failure.
pub(crate) fn await_end(pid: Pid) -> Result<()> {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    // It can be read when the process has ended (pidfd_open(2)).
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience))?;
    ensure!(ended == 1, "process {} goes on", pid.as_raw_pid());
    Ok(())
}
