//! One iptables rule, written as iptables-nft-save writes it and as `nft -j` shows it.
//!
//! iptables-nft turns addresses, protocols, marks and TCP ports into native expressions and the
//! rest into `xt` ones, of which `nft -j` prints only the name (seen with iptables 1.8.9 and
//! nft 1.0.6). Only the matches and targets that kube-proxy uses are here.

use std::io::{self, Write};
use std::net::Ipv4Addr;

/// A rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) chain: String,
    /// A network, and whether the source must be outside it.
    pub(super) source: Option<(bool, String)>,
    /// A network.
    pub(super) destination: Option<String>,
    /// `-p tcp`
    pub(super) tcp: bool,
    /// In the order written.
    pub(super) matches: Vec<Match>,
    pub(super) target: Target,
}

/// A match.
#[derive(Debug, Clone)]
pub(super) enum Match {
    Comment(String),
    /// `-m tcp` alone.
    Tcp,
    /// `-m tcp --dport`
    Port(u16),
    /// `-m conntrack --ctstate`, with its negation.
    State(&'static str),
    NoState(&'static str),
    /// `-m mark --mark value/value`, with its negation.
    Mark(u32),
    NoMark(u32),
    /// `-m addrtype`
    LocalDestination,
    LocalSource,
    /// `-m statistic --mode random`: one of so many.
    OneOf(usize),
}

/// A target.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Jump(String),
    Accept,
    Drop,
    Return,
    SetMark { value: u32, mask: u32 },
    Masquerade,
    Dnat(Ipv4Addr, u16),
}

impl Rule {
    /// A rule without matches.
    pub(super) fn new(chain: impl Into<String>, target: Target) -> Self {
        Rule {
            chain: chain.into(),
            source: None,
            destination: None,
            tcp: false,
            matches: Vec::new(),
            target,
        }
    }

    pub(super) fn from(mut self, network: impl Into<String>) -> Self {
        self.source = Some((false, network.into()));
        self
    }

    pub(super) fn not_from(mut self, network: impl Into<String>) -> Self {
        self.source = Some((true, network.into()));
        self
    }

    pub(super) fn to(mut self, network: impl Into<String>) -> Self {
        self.destination = Some(network.into());
        self
    }

    pub(super) fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    pub(super) fn with(mut self, found: Match) -> Self {
        self.matches.push(found);
        self
    }

    /// `-m comment`
    pub(super) fn comment(self, text: impl Into<String>) -> Self {
        self.with(Match::Comment(text.into()))
    }

    /// The line of iptables-nft-save with counters.
    pub(super) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "[0:0] -A {}", self.chain)?;
        if let Some((negated, network)) = &self.source {
            write!(out, "{} -s {network}", if *negated { " !" } else { "" })?;
        }
        if let Some(network) = &self.destination {
            write!(out, " -d {network}")?;
        }
        if self.tcp {
            out.write_all(b" -p tcp")?;
        }
        self.matches.iter().try_for_each(|found| save_match(found, out))?;
        match &self.target {
            Target::Jump(chain) => writeln!(out, " -j {chain}"),
            Target::Accept => writeln!(out, " -j ACCEPT"),
            Target::Drop => writeln!(out, " -j DROP"),
            Target::Return => writeln!(out, " -j RETURN"),
            Target::SetMark { value, mask } => {
                writeln!(out, " -j MARK --set-xmark {value:#x}/{mask:#x}")
            }
            Target::Masquerade => writeln!(out, " -j MASQUERADE --random-fully"),
            Target::Dnat(address, port) => {
                writeln!(out, " -j DNAT --to-destination {address}:{port}")
            }
        }
    }

    /// The rule's object in `nft -j`.
    pub(super) fn nft_json(&self, table: &str, handle: u64, out: &mut dyn Write) -> io::Result<()> {
        write!(
            out,
            r#", {{"rule": {{"family": "ip", "table": "{table}", "chain": "{}", "handle": {handle}, "expr": ["#,
            self.chain
        )?;
        if self.tcp {
            write!(out, "{}, ", compare("==", r#"{"meta": {"key": "l4proto"}}"#, r#""tcp""#))?;
        }
        if let Some((negated, network)) = &self.source {
            let op = if *negated { "!=" } else { "==" };
            write!(out, "{}, ", compare(op, &payload("ip", "saddr"), &address(network)))?;
        }
        if let Some(network) = &self.destination {
            write!(out, "{}, ", compare("==", &payload("ip", "daddr"), &address(network)))?;
        }
        for found in &self.matches {
            write!(out, "{}, ", match_json(found))?;
        }
        write!(out, r#"{{"counter": {{"packets": 0, "bytes": 0}}}}, "#)?;
        let target = match &self.target {
            Target::Jump(chain) => format!(r#"{{"jump": {{"target": "{chain}"}}}}"#),
            Target::Accept => r#"{"accept": null}"#.into(),
            Target::Drop => r#"{"drop": null}"#.into(),
            Target::Return => r#"{"return": null}"#.into(),
            Target::SetMark { .. } => xt("target", "MARK"),
            Target::Masquerade => xt("target", "MASQUERADE"),
            Target::Dnat(..) => xt("target", "DNAT"),
        };
        write!(out, "{target}]}}}}")
    }
}

fn save_match(found: &Match, out: &mut dyn Write) -> io::Result<()> {
    match found {
        Match::Comment(text) => write!(out, " -m comment --comment \"{text}\""),
        Match::Tcp => write!(out, " -m tcp"),
        Match::Port(port) => write!(out, " -m tcp --dport {port}"),
        Match::State(states) => write!(out, " -m conntrack --ctstate {states}"),
        Match::NoState(states) => write!(out, " -m conntrack ! --ctstate {states}"),
        Match::Mark(mark) => write!(out, " -m mark --mark {mark:#x}/{mark:#x}"),
        Match::NoMark(mark) => write!(out, " -m mark ! --mark {mark:#x}/{mark:#x}"),
        Match::LocalDestination => write!(out, " -m addrtype --dst-type LOCAL"),
        Match::LocalSource => write!(out, " -m addrtype --src-type LOCAL"),
        Match::OneOf(n) => {
            write!(out, " -m statistic --mode random --probability {}", probability(*n))
        }
    }
}

fn match_json(found: &Match) -> String {
    match found {
        Match::Comment(_) => xt("match", "comment"),
        Match::Tcp => xt("match", "tcp"),
        Match::Port(port) => compare("==", &payload("tcp", "dport"), &port.to_string()),
        Match::State(_) | Match::NoState(_) => xt("match", "conntrack"),
        Match::Mark(mark) => compare("==", &masked(*mark), &mark.to_string()),
        Match::NoMark(mark) => compare("!=", &masked(*mark), &mark.to_string()),
        Match::LocalDestination | Match::LocalSource => xt("match", "addrtype"),
        Match::OneOf(_) => xt("match", "statistic"),
    }
}

/// 1/n as it comes back from the kernel: kube-proxy writes ten decimals, iptables rounds to a
/// multiple of 2^-31 and prints eleven (extensions/libxt_statistic.c).
fn probability(n: usize) -> String {
    const ONE: f64 = 2_147_483_648.0;
    let written: f64 = format!("{:.10}", 1.0 / n as f64).parse().unwrap_or(0.0);
    format!("{:.11}", (written * ONE).round() / ONE)
}

fn compare(op: &str, left: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}}"#)
}

fn payload(protocol: &str, field: &str) -> String {
    format!(r#"{{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}"#)
}

fn masked(mark: u32) -> String {
    format!(r#"{{"&": [{{"meta": {{"key": "mark"}}}}, {mark}]}}"#)
}

fn xt(kind: &str, name: &str) -> String {
    format!(r#"{{"xt": {{"type": "{kind}", "name": "{name}"}}}}"#)
}

/// A network in `nft -j`: a host address has no prefix.
fn address(network: &str) -> String {
    match network.split_once('/') {
        Some((address, "32")) => format!(r#""{address}""#),
        Some((address, length)) => {
            format!(r#"{{"prefix": {{"addr": "{address}", "len": {length}}}}}"#)
        }
        None => format!(r#""{network}""#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(rule: &Rule) -> (String, serde_json::Value) {
        let (mut save, mut json) = (Vec::new(), Vec::new());
        rule.save(&mut save).unwrap();
        rule.nft_json("nat", 7, &mut json).unwrap();
        let json = String::from_utf8(json).unwrap();
        let object = serde_json::from_str(json.strip_prefix(", ").unwrap()).unwrap();
        (String::from_utf8(save).unwrap(), object)
    }

    #[test]
    fn a_rule_is_written_in_both_forms() {
        let rule = Rule::new("A", Target::Jump("B".into()))
            .not_from("10.0.0.0/8")
            .to("10.96.0.1/32")
            .tcp()
            .comment("c d")
            .with(Match::Port(80));
        let (save, json) = both(&rule);
        assert_eq!(
            save,
            "[0:0] -A A ! -s 10.0.0.0/8 -d 10.96.0.1/32 -p tcp -m comment --comment \"c d\" \
             -m tcp --dport 80 -j B\n"
        );
        let expr = serde_json::json!([
            {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}},
            {"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                       "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}},
                       "right": "10.96.0.1"}},
            {"xt": {"type": "match", "name": "comment"}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                       "right": 80}},
            {"counter": {"packets": 0, "bytes": 0}},
            {"jump": {"target": "B"}},
        ]);
        assert_eq!(json["rule"]["expr"], expr);
        assert_eq!(json["rule"]["handle"], 7);
    }

    /// What iptables 1.8.9 prints after a kernel has had 1/n with ten decimals.
    #[test]
    fn probabilities_are_those_that_iptables_prints() {
        for (n, expected) in [(2, "0.50000000000"), (3, "0.33333333349"), (7, "0.14285714272")] {
            assert_eq!(probability(n), expected);
        }
    }
}
