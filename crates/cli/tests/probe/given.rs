//! A client, a router and a host in a row, and the command in them.
//!
//! ```text
//! client 10.0.0.2 ── 10.0.0.1 node 10.1.0.1 ── 10.1.0.2 host
//!      fd00:a::2 ── fd00:a::1     fd00:b::1 ── fd00:b::2
//! ```

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use unmasq_lab::Namespace;

pub(crate) const UNMASQ: &str = env!("CARGO_BIN_EXE_unmasq");

/// The host's addresses, the client's, and the router's towards the host.
pub(crate) const FAMILIES: [[&str; 3]; 2] =
    [["10.1.0.2", "10.0.0.2", "10.1.0.1"], ["[fd00:b::2]", "[fd00:a::2]", "[fd00:b::1]"]];

pub(crate) struct Row {
    pub(crate) client: Namespace,
    pub(crate) node: Namespace,
    pub(crate) host: Namespace,
}

impl Row {
    pub(crate) fn new() -> Result<Row> {
        let (client, node, host) =
            (Namespace::new("client")?, Namespace::new("node")?, Namespace::new("host")?);
        for namespace in [&client, &node, &host] {
            namespace.script(
                "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
                 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
            )?;
        }
        node.script(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link add eth0 type veth peer name eth0 netns {}
             ip link add eth1 type veth peer name eth0 netns {}
             ip addr add 10.0.0.1/24 dev eth0
             ip addr add 10.1.0.1/24 dev eth1
             ip addr add fd00:a::1/64 dev eth0
             ip addr add fd00:b::1/64 dev eth1
             ip link set lo up
             ip link set eth0 up
             ip link set eth1 up",
            client.name(),
            host.name()
        ))?;
        for (namespace, v4, v6) in [(&client, "10.0.0", "fd00:a"), (&host, "10.1.0", "fd00:b")] {
            namespace.script(&format!(
                "ip addr add {v4}.2/24 dev eth0
                 ip addr add {v6}::2/64 dev eth0
                 ip link set lo up
                 ip link set eth0 up
                 ip route add default via {v4}.1
                 ip route add default via {v6}::1"
            ))?;
        }
        Ok(Row { client, node, host })
    }

    /// Loads rules in the router.
    pub(crate) fn nft(&self, rules: &str) -> Result<()> {
        self.node.exec_with(&["nft", "-f", "-"], rules).map(drop)
    }

    /// Runs `unmasq probe` in the client.
    pub(crate) fn probe(&self, arguments: &str) -> Result<Output> {
        let run = || command().arg("probe").args(arguments.split(' ')).output();
        self.client.enter(run)?.context("unmasq probe")
    }

    /// Runs `unmasq probe` in the client, which has to end with this code and say all of this.
    #[track_caller]
    pub(crate) fn says(&self, arguments: &str, code: i32, words: &[&str]) -> Result<String> {
        let output = self.probe(arguments)?;
        let stdout = String::from_utf8(output.stdout)?;
        let stderr = String::from_utf8(output.stderr)?;
        let all = words.iter().all(|words| stdout.contains(words));
        ensure!(
            output.status.code() == Some(code) && all,
            "unmasq probe {arguments}: {}, not {code} with {words:?}\n{stdout}{stderr}",
            output.status
        );
        Ok(stdout)
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(UNMASQ);
    // Lines as wide as there are, and no wish of whoever runs the tests.
    command.env("COLUMNS", "140").env_remove("CLICOLOR_FORCE").env_remove("NO_COLOR");
    command
}

/// `unmasq echo`, running. It is killed when it is dropped.
pub(crate) struct Echo {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    /// What it said of where it listens.
    pub(crate) listening: Vec<String>,
}

impl Echo {
    /// Starts it in a namespace, and waits until it listens at so many places.
    pub(crate) fn start(namespace: &Namespace, arguments: &str, places: usize) -> Result<Echo> {
        let mut command = command();
        command.arg("echo").args(arguments.split_whitespace());
        if !arguments.contains("--for") {
            // One that should have ended before fails its test instead of keeping it.
            command.args(["--for", "60s"]);
        }
        Echo::run(namespace, &mut command, places)
    }

    pub(crate) fn run(namespace: &Namespace, command: &mut Command, places: usize) -> Result<Echo> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.enter(|| command.spawn())?.context("unmasq echo")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let stderr = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let mut echo = Echo { child, stdout, stderr, listening: Vec::new() };
        for _ in 0..places {
            let line = echo.stderr.next().context("it ended")??;
            let at = line.strip_prefix("listening at ").with_context(|| line.clone())?;
            echo.listening.push(at.to_owned());
        }
        Ok(echo)
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        Ok(self.stdout.next().context("it ended")??)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end. Gives its code, what it printed still, and its last words.
    pub(crate) fn end(mut self) -> Result<(Option<i32>, Vec<String>, String)> {
        let lines = self.stdout.by_ref().collect::<Result<Vec<_>, _>>()?;
        let words = self.stderr.by_ref().collect::<Result<Vec<_>, _>>()?;
        Ok((self.child.wait()?.code(), lines, words.join("\n")))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
