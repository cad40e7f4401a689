//! Compares the evaluator's answer with what the kernel did.
//!
//! In: a network and a probe. Out: a [`Shot`], whose observation a test asserts first and the
//! evaluator's answer after. Where they differ, the state is kept as a capture, and the error names
//! it with the command that asks again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use unmasq_eval::Evaluator;
use unmasq_eval::trace::{By, Endpoint, Options, Outcome, Port, Query, RuleId, Trace, Verdict};
use unmasq_host::collect::{self, Collected, Step, collect};
use unmasq_model::host::Host;
use unmasq_model::origin::Diagnostic;
use unmasq_parse::capture::Status;

use crate::counter::Place;
use crate::frame::Mac;
use crate::network::Network;
use crate::observation::{Left, Observation, Sighting};
use crate::probe::{Probe, show};

/// Captures kept so far.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// What the evaluator says of a probe.
#[derive(Debug)]
pub struct Prediction {
    /// The node's state as it was read.
    pub host: Host,
    /// The answer.
    pub trace: Trace,
    /// What the state was read from.
    files: BTreeMap<String, Vec<u8>>,
    /// MACs that stand for next hops, by device and address.
    next_hops: BTreeMap<(String, IpAddr), Mac>,
}

/// Reads the node's state as `unmasq collect` does, and asks the evaluator.
pub fn predict(network: &Network, probe: &Probe) -> Result<Prediction> {
    predict_query(network, &Query::opening(probe.packet(), probe.device()))
}

fn predict_query(network: &Network, query: &Query) -> Result<Prediction> {
    let Collected { node, files, report } = collect(&collect::Options {
        node: Some("n1".into()),
        netns: Some(network.node.path()),
        ..collect::Options::default()
    })?;
    // A node of the lab has no BPF programs but its own tests' of tc, whether bpftool is there or
    // not.
    let needed = |step: &&Step| step.status == Status::Failed && step.file != "bpf";
    if let Some(step) = report.iter().find(needed) {
        bail!("{} failed: {}", step.command, step.detail);
    }
    let host = {
        let capture = unmasq_parse::capture::parse(&files).context("read the capture")?;
        let node = capture.node(&node).context("the capture has no node")?;
        let counts = |diagnostic: &&Diagnostic| !diagnostic.message.contains("bpftool");
        if let Some(diagnostic) = node.diagnostics.iter().find(counts) {
            let file = node.host.file(diagnostic.origin.file);
            bail!("{file}:{}: {}", diagnostic.origin.line, diagnostic.message);
        }
        node.host
    };
    let options = Options { every_branch: true, ..Options::default() };
    let trace = Evaluator::new(&host, options).trace(query);
    Ok(Prediction { host, trace, files, next_hops: BTreeMap::new() })
}

/// A probe that was predicted and sent.
#[derive(Debug)]
pub struct Shot {
    /// What the kernel did.
    pub seen: Observation,
    /// What the evaluator had said.
    pub prediction: Prediction,
}

/// Reads the node's state, asks the evaluator, sends the probe.
pub fn judge(network: &Network, probe: &Probe) -> Result<Shot> {
    judge_query(network, probe, &Query::opening(probe.packet(), probe.device()))
}

/// The same for a packet of a connection that has begun: the query says which.
pub fn judge_query(network: &Network, probe: &Probe, query: &Query) -> Result<Shot> {
    let mut prediction = predict_query(network, query)?;
    prediction.mark_next_hops(network)?;
    let seen = network.observe(probe)?;
    Ok(Shot { seen, prediction })
}

impl Shot {
    /// Fails unless the kernel did this ([`Observation::ended`]).
    pub fn ended(&self, expected: &str) -> Result<&Shot> {
        self.seen.ended(expected)?;
        Ok(self)
    }

    /// Fails unless these counters rose so ([`Observation::counted`]).
    pub fn counted(&self, expected: &[(&str, u64)]) -> Result<&Shot> {
        self.seen.counted(expected)?;
        Ok(self)
    }

    /// Fails unless the evaluator had one outcome, this one: ending, device, next hop, addresses,
    /// and the rules that counted.
    pub fn foreseen(&self) -> Result<()> {
        match &self.prediction.trace.outcomes[..] {
            [outcome] => {
                let differences = self.prediction.differences(outcome, &self.seen);
                if differences.is_empty() {
                    return Ok(());
                }
                self.fail(&differences.join("; "))
            }
            outcomes => self.fail(&format!("{} outcomes", outcomes.len())),
        }
    }

    /// Fails unless the evaluator had this among several outcomes, none of them unknown.
    pub fn foreseen_among(&self, count: usize) -> Result<()> {
        let outcomes = &self.prediction.trace.outcomes;
        if outcomes.len() != count {
            return self.fail(&format!("{} outcomes, not {count}", outcomes.len()));
        }
        if outcomes.iter().any(|outcome| outcome.verdict == Verdict::Unknown) {
            return self.fail("an outcome is unknown");
        }
        let mut all = Vec::new();
        for outcome in outcomes {
            let differences = self.prediction.differences(outcome, &self.seen);
            if differences.is_empty() {
                return Ok(());
            }
            all.push(differences.join("; "));
        }
        self.fail(&all.join("\n  or "))
    }

    /// Fails unless the evaluator says that it can't tell, for a reason with these words.
    pub fn unknown_because(&self, words: &str) -> Result<()> {
        let outcomes = &self.prediction.trace.outcomes;
        let told = outcomes.iter().flat_map(|outcome| &outcome.unknown);
        if told.into_iter().any(|reason| reason.contains(words)) {
            return Ok(());
        }
        self.fail(&format!("no outcome is unknown because of `{words}`"))
    }

    /// The answer to a packet that ended as foreseen, as a question to the evaluator. `device`:
    /// where it comes in; `None`: the node answers.
    pub fn answer(&self, device: Option<&str>) -> Result<Query> {
        let answer = self.outcome()?.answer(&self.seen.probe.packet(), device.map(Into::into));
        answer.context("there is nothing to answer")
    }

    /// A further packet like the one that was sent.
    pub fn further(&self, answered: bool) -> Result<Query> {
        let probe = &self.seen.probe;
        let opening = Query::opening(probe.packet(), probe.device());
        Ok(self.outcome()?.further(&opening, answered))
    }

    /// Answers a packet that left, as its far end would.
    pub fn then_answer(&self, network: &Network, left: &Left, query: &Query) -> Result<Shot> {
        let mut prediction = predict_query(network, query)?;
        prediction.mark_next_hops(network)?;
        Ok(Shot { seen: network.answer(left)?, prediction })
    }

    fn outcome(&self) -> Result<&Outcome> {
        self.prediction.trace.outcomes.first().context("no outcome")
    }

    fn fail(&self, what: &str) -> Result<()> {
        let mut text = format!("the evaluator differs for {}: {what}\n", self.seen.probe);
        writeln!(text, "  kernel: {}", self.seen)?;
        for (place, count) in &self.seen.raised {
            writeln!(text, "    {count} x {}", self.describe(place))?;
        }
        for outcome in &self.prediction.trace.outcomes {
            writeln!(text, "  evaluator: {}", self.prediction.summary(outcome))?;
            for (place, count) in self.prediction.counts(outcome) {
                writeln!(text, "    {count} x {}", self.describe(&place))?;
            }
        }
        match self.prediction.keep() {
            Ok(path) => writeln!(text, "  again: {}", command(&path, &self.seen.probe))?,
            Err(error) => writeln!(text, "  the capture could not be kept: {error:#}")?,
        }
        bail!(text)
    }

    fn describe(&self, place: &Place) -> String {
        let counter = self.seen.counters.get(place);
        let comment = counter.and_then(|counter| counter.comment.as_deref()).unwrap_or("");
        let Place { backend, family, table, chain, index } = place;
        format!("{backend:?} {family} {table} {chain} rule {index} {comment}")
    }
}

impl Prediction {
    /// In what an outcome differs from what was seen; empty if in nothing.
    pub fn differences(&self, outcome: &Outcome, seen: &Observation) -> Vec<String> {
        let mut differences = Vec::new();
        if let Some(difference) = self.ending(outcome, &seen.sighting, seen.refused) {
            differences.push(difference);
        }
        if self.counts(outcome) != seen.raised {
            differences.push("other counters".into());
        }
        differences
    }

    /// In what an outcome's end differs from what was seen.
    pub fn ending(&self, outcome: &Outcome, seen: &Sighting, refused: bool) -> Option<String> {
        let told = refused || seen.error.is_some();
        let flow = match (outcome.verdict, &seen.left[..], &seen.delivered[..]) {
            (Verdict::Forwarded, [left], []) => {
                if !self.leaves_by(outcome, &left.device) {
                    return Some(format!("left by {}", left.device));
                }
                if !self.sent_to(outcome, &left.device, left.to) {
                    return Some(format!("sent to {}, another next hop", left.to));
                }
                left.flow
            }
            (Verdict::Delivered, [], [delivered]) => *delivered,
            // A socket learns by its error of a packet that was dropped before it left.
            (Verdict::Dropped, [], []) if !refused => return None,
            (Verdict::Rejected, [], []) if told => return None,
            (verdict, ..) => return Some(format!("not {verdict:?}")),
        };
        if !fits(outcome.source.after, flow.source) {
            return Some(format!("source {}, not {}", flow.source, outcome.source.after));
        }
        if !fits(outcome.destination.after, flow.destination) {
            let after = outcome.destination.after;
            return Some(format!("destination {}, not {after}", flow.destination));
        }
        None
    }

    /// The counters that an outcome raises.
    pub fn counts(&self, outcome: &Outcome) -> BTreeMap<Place, u64> {
        let mut counts = BTreeMap::new();
        for hit in outcome.hits.iter().filter(|hit| hit.counted) {
            if let By::Rule(rule) = &hit.by {
                *counts.entry(self.place(*rule)).or_insert(0) += 1;
            }
        }
        counts
    }

    fn place(&self, rule: RuleId) -> Place {
        let table = &self.host.ruleset.tables[rule.table as usize];
        Place {
            backend: table.backend,
            family: table.family,
            table: table.name.to_string(),
            chain: table.chain(rule.chain).name.to_string(),
            index: rule.rule as usize,
        }
    }

    /// What leaves by a bridge is seen at one of its ports.
    fn leaves_by(&self, outcome: &Outcome, device: &str) -> bool {
        let bridge = self.host.link(device).and_then(|link| link.master.as_deref());
        outcome.out.as_deref().is_some_and(|out| out == device || Some(out) == bridge)
    }

    fn sent_to(&self, outcome: &Outcome, device: &str, to: Mac) -> bool {
        let marked = outcome.next_hop.and_then(|hop| self.next_hops.get(&(device.into(), hop)));
        marked.is_none_or(|mac| *mac == to)
    }

    /// Gives each predicted next hop a MAC of its own, by which frames to it are known.
    fn mark_next_hops(&mut self, network: &Network) -> Result<()> {
        for outcome in &self.trace.outcomes {
            let (Some(device), Some(hop)) = (&outcome.out, outcome.next_hop) else { continue };
            let key = (device.to_string(), hop);
            if !network.has_device(device) || self.next_hops.contains_key(&key) {
                continue;
            }
            let mac = Mac([2, 0, 0, 0, 2, self.next_hops.len() as u8]);
            let script = format!("ip neigh replace {hop} lladdr {mac} dev {device} nud permanent");
            network.script(&script).context("mark a next hop")?;
            self.next_hops.insert(key, mac);
        }
        Ok(())
    }

    fn summary(&self, outcome: &Outcome) -> String {
        let (source, destination) = (outcome.source.after, outcome.destination.after);
        let mut text = format!("{:?}", outcome.verdict);
        if let Some(reason) = outcome.reason {
            text += &format!(" ({reason:?})");
        }
        if let Some(out) = &outcome.out {
            text += &format!(" by {out}");
        }
        text += &format!(" {source} > {destination}");
        for reason in &outcome.unknown {
            text += &format!("; unknown: {reason}");
        }
        text
    }

    /// Keeps the state as a capture.
    fn keep(&self) -> Result<PathBuf> {
        let number = KEPT.fetch_add(1, Ordering::Relaxed);
        let name = format!("unmasq-lab-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        unmasq_host::capture::write(&path, &self.files)?;
        Ok(path)
    }
}

fn fits(predicted: Endpoint, seen: SocketAddr) -> bool {
    let port = match predicted.port {
        Port::None => true,
        Port::Exactly(port) => port == seen.port(),
        Port::Between(low, high) => (low..=high).contains(&seen.port()),
        Port::Unknown => false,
    };
    port && predicted.address == Some(seen.ip())
}

/// The command that asks the evaluator again.
fn command(capture: &Path, probe: &Probe) -> String {
    let mut command = format!("unmasq trace {} -v", capture.display());
    command += &format!(" --from {} --to {}", show(probe.source), show(probe.destination));
    let protocol = probe.protocol.to_string();
    command += &format!(" --proto {}", protocol.trim_end_matches("v6"));
    if let Some(device) = probe.device() {
        command += &format!(" --in {device}");
    }
    if probe.mark != 0 {
        command += &format!(" --mark {:#x}", probe.mark);
    }
    command
}
