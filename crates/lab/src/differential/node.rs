//! A node under test: made once for several rulesets, with its routing; loaded, listed, asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use unmasq_host::collect::{self, Collected, collect};
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::Backend;

use super::address::{CLIENTS, DEVICES, Net, SERVERS};
use super::packet::Injection;
use super::ruleset::Ruleset;
use super::topology::Topology;
use super::wire::{Arrival, Arrivals, Departure, Wire};
use super::{Kind, compare, iptables, nft};
use crate::frame::Mac;
use crate::network::{GUARD_TABLE, Network, REFUSED};

/// The node's name in captures.
pub(super) const NAME: &str = "n1";

/// Files that depend on the rules.
const RULE_FILES: [&str; 7] = [
    "iptables-save",
    "ip6tables-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
    "nft.json",
    "nft.txt",
    "ipset.save",
];

/// A node, used by the thread inside it.
pub(super) struct Node {
    kind: Kind,
    family: Family,
    wire: Wire,
    /// The capture without rules.
    base: BTreeMap<String, Vec<u8>>,
    host: Host,
    /// nft tables that are loaded.
    loaded: Vec<String>,
    /// ipsets that may be used by the rules loaded.
    used_sets: Vec<String>,
    /// ipsets that no rule uses any more.
    unused_sets: Vec<String>,
    /// How often rules were loaded.
    loads: u64,
    /// How many errors the node had sent when it was last listed.
    refused: u64,
}

/// What a ruleset and its packets came to.
pub(super) struct Seen {
    /// The capture's files that depend on the rules.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// By how much each rule's counter rose.
    pub(super) counts: BTreeMap<usize, u64>,
    /// How many errors the node has sent since it was listed before.
    pub(super) refused: u64,
}

impl Node {
    /// Sets the node up. To be called inside its namespace.
    pub(super) fn new(
        network: &Network,
        kind: Kind,
        family: Family,
        topology: &Topology,
    ) -> Result<Node> {
        let option = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        run(&["ip", option, "-batch", "-"], &(topology.batch.clone() + &neighbours(family)))?;
        for (name, value) in
            topology.settings.iter().map(|(name, value)| (name.as_str(), *value)).chain([
                ("net/netfilter/nf_conntrack_udp_timeout", "10"),
                ("net/netfilter/nf_conntrack_icmp_timeout", "10"),
                ("net/netfilter/nf_conntrack_icmpv6_timeout", "10"),
                ("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "10"),
            ])
        {
            let path = format!("/proc/sys/{name}");
            fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
        }
        // Addresses that devices made up for themselves would become valid during the run.
        run(&["ip", "-6", "addr", "flush", "scope", "link"], "")?;
        let wire = Wire::open(network, family)?;
        let Collected { files, .. } = collect(&collect::Options {
            node: Some(NAME.into()),
            netns: Some(network.node.path()),
            ..collect::Options::default()
        })?;
        let mut base = files;
        base.retain(|path, _| !RULE_FILES.iter().any(|name| path.ends_with(&format!("/{name}"))));
        // Without what failed: the node has nothing that only optional tools list.
        base.insert("capture.json".into(), MANIFEST.into());
        let host = parse(&base)?;
        Ok(Node {
            kind,
            family,
            wire,
            base,
            host,
            loaded: Vec::new(),
            used_sets: Vec::new(),
            unused_sets: Vec::new(),
            loads: 0,
            refused: 0,
        })
    }

    /// Replaces the rules. Their counters are 0 then.
    pub(super) fn load(&mut self, ruleset: &Ruleset) -> Result<()> {
        // The sets of the ruleset before are in use until its rules are replaced.
        self.loads += 1;
        let mut ruleset = ruleset.clone();
        for (index, set) in ruleset.sets.iter_mut().enumerate() {
            set.name = format!("s{}x{index}", self.loads);
        }
        let ruleset = &ruleset;
        if self.kind != Kind::Nft {
            let mut commands: String =
                self.unused_sets.drain(..).map(|name| format!("destroy {name}\n")).collect();
            commands.push_str(&iptables::sets(ruleset, self.family));
            if !commands.is_empty() {
                run(&["ipset", "restore"], &commands)?;
            }
        }
        for backend in self.xtables() {
            let text = iptables::tables(ruleset, backend, self.family, &ruleset.owned(backend));
            let program = self.program(backend, "restore");
            match backend {
                Backend::Legacy => run(&[&program, "-w", "5"], &text)?,
                Backend::IptablesNft | Backend::Nft => run(&[&program], &text)?,
            };
        }
        self.unused_sets.append(&mut self.used_sets);
        self.used_sets = ruleset
            .sets
            .iter()
            .filter(|set| set.backend != Backend::Nft)
            .map(|set| set.name.clone())
            .rev()
            .collect();
        if matches!(self.kind, Kind::Nft | Kind::Mixed) {
            let (text, names) = nft::tables(ruleset, self.family);
            let mut commands: String =
                self.loaded.drain(..).map(|name| format!("delete table {name}\n")).collect();
            commands.push_str(&text);
            run(&["nft", "-f", "-"], &commands)?;
            self.loaded = names;
        }
        Ok(())
    }

    /// Sends packets, and says where each came out.
    pub(super) fn send(&mut self, injections: &[Injection]) -> Result<Arrivals> {
        self.wire.send(injections)
    }

    /// Sends one packet, and says where it came out.
    pub(super) fn send_one(&mut self, departure: &Departure) -> Result<Vec<Arrival>> {
        self.wire.send_one(departure)
    }

    /// Lists rules with their counters.
    pub(super) fn list(&mut self) -> Result<Seen> {
        let mut files = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for backend in self.xtables() {
            let text = run(&[&self.program(backend, "save"), "-c"], "")?;
            xtables_counts(&text, &mut counts)?;
            let kind = match self.family {
                Family::V4 => "iptables",
                Family::V6 => "ip6tables",
            };
            let name = match backend {
                Backend::Legacy => format!("{kind}-legacy-save"),
                Backend::IptablesNft | Backend::Nft => format!("{kind}-save"),
            };
            files.insert(name, text.into_bytes());
        }
        let refused = if self.kind == Kind::Legacy {
            let text = run(&["nft", "-j", "list", "table", "inet", GUARD_TABLE], "")?;
            nft_counts(&text, &mut counts)?
        } else {
            let text = run(&["nft", "-j", "list", "ruleset"], "")?;
            // Rules of iptables-nft have their comments elsewhere.
            let refused = nft_counts(&text, &mut counts)?;
            files.insert("nft.json".into(), text.into_bytes());
            refused
        };
        if self.kind != Kind::Nft {
            files.insert("ipset.save".into(), run(&["ipset", "save"], "")?.into_bytes());
        }
        counts.retain(|_, count| *count > 0);
        let before = std::mem::replace(&mut self.refused, refused);
        Ok(Seen { files, counts, refused: refused.saturating_sub(before) })
    }

    /// What a capture taken now would have, rule files as listed.
    pub(super) fn capture(&self, seen: &Seen) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.base.clone();
        for name in RULE_FILES.iter().filter(|name| **name != "nft.txt") {
            let text = seen.files.get(*name).cloned().unwrap_or_else(|| match *name {
                "nft.json" => br#"{"nftables": []}"#.to_vec(),
                _ => Vec::new(),
            });
            files.insert(format!("nodes/{NAME}/{name}"), text);
        }
        files
    }

    /// The node as it is understood from its listings.
    pub(super) fn host(&mut self, seen: &Seen) -> Result<&Host> {
        // All but the rules is as it was when the node was set up.
        let mut files = self.capture(seen);
        files.retain(|path, _| RULE_FILES.iter().any(|name| path.ends_with(&format!("/{name}"))));
        files.insert("capture.json".into(), MANIFEST.into());
        let rules = parse(&files)?;
        self.host.ruleset = rules.ruleset;
        self.host.backends = rules.backends;
        self.host.ipsets = rules.ipsets;
        self.host.files = rules.files;
        Ok(&self.host)
    }

    fn xtables(&self) -> Vec<Backend> {
        match self.kind {
            Kind::Legacy => vec![Backend::Legacy],
            Kind::IptablesNft => vec![Backend::IptablesNft],
            Kind::Nft => Vec::new(),
            Kind::Mixed => vec![Backend::Legacy, Backend::IptablesNft],
        }
    }

    fn program(&self, backend: Backend, verb: &str) -> String {
        let kind = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match backend {
            Backend::Legacy => format!("{kind}-legacy-{verb}"),
            Backend::IptablesNft | Backend::Nft => format!("{kind}-nft-{verb}"),
        }
    }
}

/// Makes every address that is sent to a neighbour with a MAC of its own on every device, by
/// which the next hop of a frame is known.
fn neighbours(family: Family) -> String {
    let mut batch = String::new();
    for (address, mac) in next_hops(family) {
        for device in DEVICES {
            let _ =
                writeln!(batch, "neigh replace {address} lladdr {mac} dev {device} nud permanent");
        }
    }
    batch
}

/// The MACs that stand for next hops.
pub(super) fn next_hops(family: Family) -> BTreeMap<IpAddr, Mac> {
    let all = CLIENTS.iter().chain(&SERVERS).map(|net| net.address(family)).chain(
        // Gateways that are nobody else (`topology`).
        [Net([10, 1, 0, 2], 32).address(family)],
    );
    let mut macs = BTreeMap::new();
    for address in all {
        let number = macs.len() as u8;
        macs.entry(address).or_insert(Mac([2, 0, 0, 0, 2, number]));
    }
    macs
}

const MANIFEST: &str = r#"{"schema": "unmasq.capture/v1", "by": "cargo xtask differential"}"#;

fn parse(files: &BTreeMap<String, Vec<u8>>) -> Result<Host> {
    let capture = unmasq_parse::capture::parse(files).context("read the capture")?;
    let node = capture.node(NAME).context("the capture has no node")?;
    if let Some(diagnostic) = node.diagnostics.first() {
        let file = node.host.file(diagnostic.origin.file);
        bail!("{file}:{}: {}", diagnostic.origin.line, diagnostic.message);
    }
    Ok(node.host)
}

/// Counters by the number in the comment.
fn xtables_counts(text: &str, counts: &mut BTreeMap<usize, u64>) -> Result<()> {
    for line in text.lines() {
        let Some((count, rule)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] -A "))
        else {
            continue;
        };
        let comment = rule.split_once("--comment ").and_then(|(_, rest)| rest.split(' ').next());
        let number = comment.and_then(compare::number);
        let packets = count.split(':').next().and_then(|packets| packets.parse::<u64>().ok());
        let (number, packets) = number.zip(packets).with_context(|| format!("read {line}"))?;
        *counts.entry(number).or_insert(0) += packets;
    }
    Ok(())
}

/// Counters by the number in the comment, and how many errors the guard has counted.
fn nft_counts(json: &str, counts: &mut BTreeMap<usize, u64>) -> Result<u64> {
    let mut refused = 0;
    let listing: serde_json::Value = serde_json::from_str(json).context("nft -j list ruleset")?;
    for object in listing["nftables"].as_array().into_iter().flatten() {
        let rule = &object["rule"];
        let number = match rule["comment"].as_str() {
            Some(REFUSED) => None,
            Some(comment) if compare::number(comment).is_some() => compare::number(comment),
            Some(_) | None => continue,
        };
        let mut statements = rule["expr"].as_array().into_iter().flatten();
        let packets = statements.find_map(|statement| statement["counter"]["packets"].as_u64());
        let packets = packets.context("a rule without counter")?;
        match number {
            Some(number) => *counts.entry(number).or_insert(0) += packets,
            None => refused += packets,
        }
    }
    Ok(refused)
}

/// Runs a command in the calling thread's namespace.
fn run(arguments: &[&str], input: &str) -> Result<String> {
    let (program, rest) = arguments.split_first().context("no command")?;
    let mut child = Command::new(program)
        .args(rest)
        .env("LC_ALL", "C")
        // iptables-legacy's lock is the machine's; nodes need not wait for each other.
        .env("XTABLES_LOCKFILE", "/proc/thread-self/ns/net")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    // None of these writes before it has read all.
    if let Some(mut stdin) = child.stdin.take() {
        let _told_by_status = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}\n{input}", arguments.join(" "), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
