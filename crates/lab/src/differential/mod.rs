//! Random rulesets, real packets: is the evaluator right, rule by rule?
//!
//! In: how many cases, and a seed. Out: a [`report::Report`]. A case is one packet that opens a
//! connection, against one ruleset. It agrees if the rules whose counters rose, the place where
//! the packet came out, and its addresses and ports are those of exactly one predicted outcome.
//!
//! ```text
//! seed ─┬─ topology ── a node for each block of rulesets: addresses, routes, settings
//!       ├─ generate ── Ruleset ─┬─ iptables ── iptables-restore ─┐
//!       │                       └─ nft ─────── nft -f ───────────┤ node
//!       └─ packet ──── Injection ──────────── wire ──────────────┤
//!                                                                ├─ arrivals, counters ─┐
//!   Evaluator ◀── unmasq-parse ◀── what the kernel lists ────────┘                      │
//!       └── outcomes ───────────────────────────────────────── compare ◀────────────────┘
//!                                                                 └─ shrink ── reproducer
//! ```
//!
//! It doesn't say what is right: that is the kernel's. What it can't say anything about, because
//! nothing of it is generated, is listed in docs/kernel-agreement.md.

mod address;
mod compare;
mod generate;
mod iptables;
mod mark;
mod nft;
mod node;
mod packet;
pub(crate) mod random;
pub mod report;
mod ruleset;
mod sequence;
mod shrink;
mod test;
mod topology;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_setaffinity};
use unmasq_model::packet::Family;

use compare::Answers;
use node::Node;
use packet::Injection;
use random::Random;
use report::Report;
use ruleset::{Open, Ruleset};

use crate::network::Network;

pub use compare::Wrong;
pub use packet::Path;
pub use sequence::Part;

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// iptables-legacy.
    Legacy,
    /// iptables-nft.
    IptablesNft,
    /// nft.
    Nft,
    /// All on one node.
    Mixed,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 4] = [Kind::Legacy, Kind::IptablesNft, Kind::Nft, Kind::Mixed];

    /// As it is given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Legacy => "legacy",
            Kind::IptablesNft => "iptables-nft",
            Kind::Nft => "nft",
            Kind::Mixed => "mixed",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many packets (or conversations) at least.
    pub cases: u64,
    /// Conversations instead of opening packets.
    pub sequence: bool,
    /// Everything is drawn from it.
    pub seed: u64,
    /// Only one kind of ruleset.
    pub kind: Option<Kind>,
    /// Only one family.
    pub family: Option<Family>,
    /// Only the ruleset of that number.
    pub ruleset: Option<u64>,
    /// How many rulesets share a node: making one takes as long as some fifteen rulesets.
    pub block: u64,
    /// Where reproducers are kept.
    pub folder: PathBuf,
    /// How many disagreements are shrunk; more end the run. 0: the first ends it, and is the
    /// first of all.
    pub most: usize,
}

impl Options {
    /// The command that sends the packets of one ruleset again.
    fn again(&self, ruleset: u64) -> String {
        let Options { seed, block, .. } = self;
        let mut command =
            format!("cargo xtask differential --seed {seed} --block {block} --ruleset {ruleset}");
        if self.sequence {
            command += " --sequence";
        }
        if let Some(kind) = self.kind {
            command += &format!(" --backend {}", kind.name());
        }
        if let Some(family) = self.family {
            command += &format!(" --family {family}");
        }
        command
    }
}

/// Packets for each ruleset.
pub const PACKETS: u64 = 50;
/// Nodes at work for each CPU.
const WORKERS: usize = 3;

/// Purposes of streams of numbers.
const TOPOLOGY: u64 = 1;
const RULES: u64 = 2;
const PACKET: u64 = 3;
const OWNERS: u64 = 4;

/// Runs, on every CPU, and says on stderr how far it is.
pub fn run(options: &Options) -> Result<Report> {
    let rulesets = match options.ruleset {
        Some(number) => number..number + 1,
        None => 0..options.cases.div_ceil(PACKETS),
    };
    let block_size = options.block.max(1);
    let next = AtomicU64::new(rulesets.start / block_size);
    let done = AtomicBool::new(false);
    // Rulesets from this number on aren't begun.
    let end = AtomicU64::new(u64::MAX);
    let report = Mutex::new(Report::default());
    let begin = Instant::now();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    // Replacing rules of nf_tables is mostly waiting (for readers, RCU): others work meanwhile.
    let workers = cpus * WORKERS;
    let work = |cpu: usize| -> Result<()> {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            let first = (block * block_size).max(rulesets.start);
            let last = ((block + 1) * block_size).min(rulesets.end);
            if first >= last || end.load(Ordering::Relaxed) <= first {
                return Ok(());
            }
            let made = run_block(options, block, first..last, cpu, &end);
            // What the kernel refuses is a mistake here: no use in going on.
            let made = made.inspect_err(|_| end.store(0, Ordering::Relaxed))?;
            let mut report = report.lock().map_err(|_| anyhow!("another worker panicked"))?;
            report.add(made);
            if options.most > 0 && report.reproducers.len() >= options.most {
                end.store(0, Ordering::Relaxed);
            }
        }
    };
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || work(worker % cpus))).collect();
        scope.spawn(|| progress(&report, &done, begin));
        let join = |worker: thread::ScopedJoinHandle<'_, Result<()>>| {
            worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
        };
        let results = workers.into_iter().map(join).collect();
        done.store(true, Ordering::Relaxed);
        results
    });
    results.into_iter().collect::<Result<()>>()?;
    let mut report = report.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
    report.seed = options.seed;
    report.took = begin.elapsed();
    Ok(report)
}

fn progress(report: &Mutex<Report>, done: &AtomicBool, begin: Instant) {
    let mut told = Instant::now();
    while !done.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        if told.elapsed() < Duration::from_secs(5) {
            continue;
        }
        told = Instant::now();
        if let Ok(report) = report.lock() {
            eprintln!(
                "{:4} s: {} cases, {} disagreements, {} unknown",
                begin.elapsed().as_secs(),
                report.cases(),
                report.disagreements,
                report.unknown
            );
        }
    }
}

/// Which back ends and family a block has.
fn block_kind(options: &Options, block: u64) -> (Kind, Family) {
    let kind = Kind::ALL[(block % 4) as usize];
    let family = if (block / 4).is_multiple_of(2) { Family::V4 } else { Family::V6 };
    (options.kind.unwrap_or(kind), options.family.unwrap_or(family))
}

/// The rulesets of one node.
fn run_block(
    options: &Options,
    block: u64,
    numbers: std::ops::Range<u64>,
    cpu: usize,
    end: &AtomicU64,
) -> Result<Report> {
    let (kind, family) = block_kind(options, block);
    let topology = topology::topology(&mut Random::new(options.seed, TOPOLOGY, block), family);
    let owners = generate::owners(&mut Random::new(options.seed, OWNERS, block), kind);
    let network = Network::new(&address::DEVICES)?;
    network.node.enter(|| -> Result<Report> {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).context("stay on one CPU")?;
        let mut node = Node::new(&network, kind, family, &topology)?;
        let mut report = Report::default();
        for number in numbers {
            if end.load(Ordering::Relaxed) <= number {
                break;
            }
            let mut random = Random::new(options.seed, RULES, number);
            let mixed = kind == Kind::Mixed;
            let ruleset = generate::ruleset(&mut random, owners, mixed, family);
            let injections = injections(options.seed, number, family);
            report.count(kind, family, &injections);
            run_ruleset(options, &mut node, number, &ruleset, &injections, &mut report)
                .with_context(|| options.again(number))?;
            if options.most == 0 && report.first.is_some() {
                // What comes before it goes on: the first may be there.
                end.fetch_min(number, Ordering::Relaxed);
            }
        }
        Ok(report)
    })?
}

/// A ruleset of nftables, as text for `nft -f`.
pub fn nft_ruleset(seed: u64, number: u64, family: Family) -> String {
    let owners = generate::owners(&mut Random::new(seed, OWNERS, 0), Kind::Nft);
    let mut random = Random::new(seed, RULES, number);
    nft::tables(&generate::ruleset(&mut random, owners, false, family), family).0
}

fn injections(seed: u64, number: u64, family: Family) -> Vec<Injection> {
    let mut random = Random::new(seed, PACKET, number);
    let serials = number * PACKETS..(number + 1) * PACKETS;
    serials.map(|serial| packet::packet(&mut random, family, serial)).collect()
}

fn run_ruleset(
    options: &Options,
    node: &mut Node,
    number: u64,
    ruleset: &Ruleset,
    injections: &[Injection],
    report: &mut Report,
) -> Result<()> {
    let open = ruleset.open != Open::Nothing || options.sequence;
    let together = if open { Vec::new() } else { together(node, ruleset, injections)? };
    if !open && together.is_empty() {
        return Ok(());
    }
    let findings = if options.sequence {
        let conversations = sequence::converse(node, ruleset, injections)?;
        report.converse(&conversations);
        conversations.into_iter().filter_map(|conversation| conversation.finding).collect()
    } else {
        shrink::one_by_one(node, ruleset, injections)?
    };
    let case = |packet: Option<usize>| {
        number * PACKETS + packet.map_or(PACKETS, |packet| packet as u64 + 1)
    };
    if findings.is_empty() {
        for finding in together {
            report.found(case(finding.packet), finding.wrong);
            eprintln!(
                "ruleset {number}: {:?}, but not one by one: {}",
                finding.wrong, finding.text
            );
        }
    }
    let mut told: BTreeMap<compare::Wrong, usize> = BTreeMap::new();
    for finding in findings {
        report.found(case(finding.packet), finding.wrong);
        let told = told.entry(finding.wrong).or_default();
        *told += 1;
        if *told > 1 || report.reproducers.len() >= options.most {
            continue;
        }
        let Some(packet) = finding.packet else { continue };
        let folder = &options.folder;
        let case =
            shrink::Case { number, injection: &injections[packet], sequence: options.sequence };
        let made = shrink::shrink(node, &case, ruleset, &finding, folder)?;
        eprintln!(
            "ruleset {number}: {:?}: {}\n  {}\n",
            made.wrong,
            made.text,
            options.again(number)
        );
        report.reproducers.push(made);
    }
    Ok(())
}

/// What disagrees if all packets are sent before the counters are read.
fn together(
    node: &mut Node,
    ruleset: &Ruleset,
    injections: &[Injection],
) -> Result<Vec<compare::Finding>> {
    node.load(ruleset)?;
    let arrivals = node.send(injections)?;
    let seen = node.list()?;
    let answers = Answers::new(node.host(&seen)?, ruleset.open, injections);
    Ok(answers.compare(&arrivals, &seen, injections))
}

#[cfg(test)]
mod tests {
    use unmasq_model::ruleset::Backend;

    use super::*;

    /// All text that a seed gives for a ruleset and its packets.
    fn drawn(seed: u64, kind: Kind, family: Family, number: u64) -> String {
        let owners = generate::owners(&mut Random::new(seed, OWNERS, 0), kind);
        let mut random = Random::new(seed, RULES, number);
        let ruleset = generate::ruleset(&mut random, owners, kind == Kind::Mixed, family);
        let mut text = iptables::sets(&ruleset, family);
        for backend in [Backend::Legacy, Backend::IptablesNft] {
            text += &iptables::tables(&ruleset, backend, family, &ruleset.owned(backend));
        }
        text += &nft::tables(&ruleset, family).0;
        for injection in injections(seed, number, family) {
            text += &format!("{} {}\n", injection.probe, injection.cookie);
        }
        text + &topology::topology(&mut Random::new(seed, TOPOLOGY, number), family).batch
    }

    #[test]
    fn a_seed_and_a_number_give_one_ruleset_and_its_packets() {
        for kind in Kind::ALL {
            for family in [Family::V4, Family::V6] {
                let one = drawn(7, kind, family, 3);
                assert_eq!(one, drawn(7, kind, family, 3), "{}", kind.name());
                assert_ne!(one, drawn(8, kind, family, 3), "{}", kind.name());
                assert_ne!(one, drawn(7, kind, family, 4), "{}", kind.name());
            }
        }
    }

    #[test]
    fn a_short_run_has_every_back_end_and_family() {
        let options = Options {
            cases: 0,
            sequence: false,
            seed: 0,
            kind: None,
            family: None,
            ruleset: None,
            block: 7,
            folder: PathBuf::new(),
            most: 0,
        };
        let kinds: std::collections::BTreeSet<_> =
            (0..8).map(|block| block_kind(&options, block)).collect();
        assert_eq!(kinds.len(), Kind::ALL.len() * 2);
    }

    #[test]
    fn everything_that_is_vouched_for_is_generated() {
        let mut text = String::new();
        for (number, family) in (0..600).zip([Family::V4, Family::V6].into_iter().cycle()) {
            for kind in Kind::ALL {
                text += &drawn(3, kind, family, number);
            }
        }
        for wanted in [
            // iptables
            "-m iprange ! --src-range",
            "-i eth+",
            "-o eth1",
            "-m multiport --dports",
            "! --sports",
            "--ports",
            "-m mark",
            "-m connmark",
            "--save-mark",
            "--restore-mark",
            "--syn",
            "--icmp-type",
            "--icmpv6-type",
            "--ctstate DNAT",
            "! --ctstate UNTRACKED",
            "-m addrtype --dst-type LOCAL",
            "--limit-iface-in",
            "--limit-iface-out",
            "-j RETURN",
            "--notrack",
            "-j REDIRECT",
            "-j NETMAP",
            "-j MASQUERADE --to-ports",
            "--random",
            "-j SNAT --to-source",
            "--mode random",
            "--mode nth",
            "-m limit",
            "-m recent --set",
            "-m recent --rcheck",
            "-m recent ! --rcheck",
            "INPUT DROP",
            "--reject-with tcp-reset",
            // ipset
            "hash:ip ",
            "hash:net ",
            "hash:ip,port ",
            "hash:ip,port,ip ",
            "hash:ip,port,net ",
            "bitmap:port",
            "list:set",
            "nomatch",
            // nft
            "table inet u_",
            "type route",
            "goto u",
            "fib saddr . iif oif missing",
            "fib daddr . iif",
            "ct status dnat",
            "tcp flags & (fin | syn | rst | ack) != syn",
            "vmap {",
            "meta mark set ct mark",
            "ct mark set",
            "numgen random mod 4 <",
            "numgen inc mod",
            "limit rate 1/hour",
            "jhash",
            "update @clients",
            "delete @clients",
            "@clients",
            "flags interval",
            "ip saddr . meta l4proto . th dport",
            "masquerade to :",
            "redirect to",
            "policy drop",
            "notrack",
            "reject with tcp reset",
            // routing
            "unreachable",
            "blackhole",
            "prohibit",
            "throw",
            "suppress_prefixlength",
            "fwmark",
            "iif lo",
            "ipproto udp",
            "metric",
        ] {
            assert!(text.contains(wanted), "never generated: {wanted}");
        }
    }

    #[test]
    fn every_rule_has_a_number_of_its_own() {
        let owners = [Backend::Nft; 5];
        for number in 0..100 {
            let mut random = Random::new(1, RULES, number);
            let ruleset = generate::ruleset(&mut random, owners, false, Family::V4);
            assert_eq!(ruleset.ids(), (0..ruleset.len()).collect::<Vec<_>>());
        }
    }
}
