//! A host of its own: network, mounts and name, with the rules and files of a captured one.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// The command under test.
pub(crate) const UNMASQ: &str = env!("CARGO_BIN_EXE_unmasq");
/// A cluster without Kubernetes' rules in the way, whose hosts masquerade each other's pods.
pub(crate) const CAPTURE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flannel-host");
/// A node of it.
pub(crate) const NAME: &str = "hdss7-21";
/// Where journals of the tests are.
pub(crate) const JOURNAL: &str = "/var/lib/unmasq/j";

/// `$1`: a folder of its own, `$2`: the host's name, `$3`: the capture.
const SETUP: &str = "
    cp -a /etc \"$1/etc\"; mount --bind \"$1/etc\" /etc
    mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib
    hostname \"$2\"; ip link set lo up
    iptables-legacy-restore < \"$3/nodes/$2/iptables-legacy-save\"
    mkdir -p /etc/docker; cp \"$3/nodes/$2/files/etc/docker/daemon.json\" /etc/docker/
    mkdir -p /run/wrapped; echo ready; exec sleep 600";

/// Goes away when it is dropped.
pub(crate) struct Host {
    child: Child,
    _folder: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Host {
    pub(crate) fn up() -> Result<Host> {
        let folder = tempfile::tempdir()?;
        let mut child = Command::new("unshare")
            .args(["-n", "-m", "-u", "--", "sh", "-ec", SETUP, "sh"])
            .arg(folder.path())
            .args([NAME, CAPTURE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("it has no output")?;
        let host = Host { child, _folder: folder };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "the host does not come up");
        Ok(host)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.child.id().to_string(), "-n", "-m", "-u", "--"]).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// What a script prints, which must not fail.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(&["sh", "-ec", script]).output()?;
        let (told, wrong) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        ensure!(status.success(), "{script}: {status}: {wrong}");
        Ok(told.into_owned())
    }

    /// `unmasq fix …`, with programs of [`Host::wrap`] in front of the host's.
    pub(crate) fn fix(&self, words: &[&str]) -> Result<Ended> {
        self.fix_by("exec", words)
    }

    /// The same, by a shell's words in front of it.
    pub(crate) fn fix_by(&self, how: &str, words: &[&str]) -> Result<Ended> {
        let script = format!("PATH=/run/wrapped:$PATH; {how} \"$@\"");
        let command = [&["sh", "-c", &script, "sh", UNMASQ, "fix"], words].concat();
        let Output { status, stderr, .. } = self.command(&command).output()?;
        Ok(Ended { code: status.code(), said: String::from_utf8_lossy(&stderr).into_owned() })
    }

    pub(crate) fn apply(&self) -> Result<Ended> {
        self.fix(&[
            "host-masquerade",
            CAPTURE,
            "--accept",
            "by-hand",
            "--apply",
            "--journal",
            JOURNAL,
        ])
    }

    pub(crate) fn undo(&self) -> Result<Ended> {
        self.fix(&["--undo", JOURNAL])
    }

    pub(crate) fn resume(&self) -> Result<Ended> {
        self.fix(&["--resume", JOURNAL])
    }

    /// The first run of a program by `unmasq fix` does something else before and behind it.
    pub(crate) fn wrap(&self, program: &str, before: &str, behind: &str) -> Result<()> {
        let path = self.sh(&format!("command -v {program}"))?;
        let text = format!(
            "#!/bin/sh\nPATH=${{PATH#/run/wrapped:}}\n[ -e /run/wrapped/{program}.once ] && exec {path} \"$@\"\n\
             : > /run/wrapped/{program}.once\n{before}\n{} \"$@\"; code=$?\n{behind}\nexit $code\n",
            path.trim()
        )
        .replace(&path, path.trim());
        self.put(&format!("/run/wrapped/{program}"), &text)?;
        self.sh(&format!("chmod +x /run/wrapped/{program}")).map(drop)
    }

    /// Gives it interfaces and routes as the captured host has them.
    pub(crate) fn network(&self) -> Result<()> {
        self.sh("ip link add docker0 type bridge; ip addr add 172.7.21.1/24 dev docker0
             ip link set docker0 up; ip link add eth0 type veth peer name wire
             ip link set wire up; ip link set eth0 up
             ip addr add 10.4.7.21/24 dev eth0; sysctl -qw net.ipv4.ip_forward=1
             ip route add 172.7.22.0/24 via 10.4.7.22 dev eth0
             ip route add 172.7.23.0/24 via 10.4.7.23 dev eth0
             ip route add default via 10.4.7.254")
            .map(drop)
    }

    /// Writes a file.
    pub(crate) fn put(&self, path: &str, text: &str) -> Result<()> {
        let script = "mkdir -p \"$(dirname \"$1\")\"; printf %s \"$2\" > \"$1\"";
        let status = self.command(&["sh", "-ec", script, "sh", path, text]).status()?;
        ensure!(status.success(), "{path} can't be written");
        Ok(())
    }

    /// A journal of these deeds, of which none has begun, and what is told of it.
    pub(crate) fn journal(&self, deeds: &[Value], entries: &[Value]) -> Result<()> {
        let head = json!({"schema": "unmasq.journal/v1", "findings": ["x"], "deeds": deeds});
        let mut text = format!("{head}\n");
        for entry in entries {
            let _ = writeln!(text, "{entry}");
        }
        self.put(JOURNAL, &text)
    }

    /// What has been written into the journal, without its first line.
    pub(crate) fn events(&self) -> Result<Vec<String>> {
        let text = self.sh(&format!("cat {JOURNAL}"))?;
        let entry = |line: &str| -> Result<String> {
            let entry: Value = serde_json::from_str(line)?;
            let event = entry["event"].as_str().context("it has no event")?;
            Ok(match entry["deed"].as_u64() {
                Some(deed) => format!("{deed} {event}"),
                None => event.to_owned(),
            })
        };
        text.lines().skip(1).map(entry).collect()
    }

    /// The rules of nat's POSTROUTING.
    pub(crate) fn postrouting(&self) -> Result<Vec<String>> {
        let listed = self.sh("iptables-legacy-save -t nat")?;
        let rules = listed.lines().filter_map(|line| line.strip_prefix("-A POSTROUTING "));
        Ok(rules.map(str::to_owned).collect())
    }

    /// All rules with their counters, but for comments.
    pub(crate) fn counted(&self) -> Result<String> {
        self.sh("iptables-legacy-save -c | grep -v '^#'")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing is left to be told, if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A deed on nat's POSTROUTING, by rules without their beginning.
pub(crate) fn rules(before: &[&str], after: &[&str]) -> Value {
    let of = |rules: &[&str]| -> Vec<String> {
        rules.iter().map(|rule| format!("-A POSTROUTING {rule}")).collect()
    };
    json!({
        "kind": "rules", "node": NAME, "program": "iptables-legacy", "table": "nat",
        "chain": "POSTROUTING", "before": of(before), "after": of(after),
    })
}

/// A deed that makes a table of our own.
pub(crate) fn table(text: &str) -> Value {
    json!({
        "kind": "table", "node": NAME, "program": "nft-ip", "name": "unmasq", "before": null,
        "after": text,
    })
}
