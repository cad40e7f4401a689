//! A call over several hosts: what the receiver sees in the first line, the way in one line, each
//! host's walk as a trace prints it, and whether the answer comes back.
//!
//! ```text
//! source REWRITTEN 10.42.1.5 -> 10.42.0.1 by FLANNEL-POSTRTG (flannel) on n1      answer
//!
//! tcp 10.42.1.5:40000 -> 10.43.0.9:80: pod default/web-1 calls Service default/web  question
//! 10.42.2.7:8080 (pod default/web-2) sees 10.42.0.1:40000 instead of …            consequence
//!
//! pod default/web-1 -> n1 -> flannel.1 -> n2 -> pod default/web-2                  way
//!
//! on n1, in by veth1; files in nodes/n1/                                           walks
//! …
//! The answer: pod default/web-2 -> n2 -> … ; it comes back.
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;

use unmasq_audit::label;
use unmasq_cluster::paths::{Call, Caller, Fate, Paths, Way};
use unmasq_eval::journey::{Arrival, Journey, Leg, Net};
use unmasq_eval::trace::{Endpoint, Port};

use super::group::{decided_by, percent, some, sum};
use super::paint::{Colour, Paint, clean};
use super::{FEW_LINES, FEW_PATHS, Style, list, plural, walk};
use crate::names::{self, Names};

/// How ways end, most alarming first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Dropped,
    Rejected,
    Unreached,
    NoAnswer,
    Rewritten,
    Unknown,
    Preserved,
}

/// Ways with one answer.
struct Group<'w> {
    kind: Kind,
    answer: String,
    cause: String,
    /// Never empty.
    ways: Vec<&'w Way>,
}

/// What is needed to speak of hosts.
struct Speaker<'p, 'c> {
    paths: &'p Paths<'c>,
    names: Names,
    call: &'p Call,
}

/// The answer as text, ending with a newline.
pub fn path_of_hosts(ways: &[Way], call: &Call, paths: &Paths<'_>, style: &Style) -> String {
    let paint = Paint::new(style);
    let speaker = Speaker { paths, names: Names::of(paths.cluster()), call };
    let groups = speaker.groups(ways);
    let mut text = String::new();
    answers(&mut text, &groups, &paint);
    text.push('\n');
    paint.wrap(&mut text, "", &speaker.question(ways));
    for group in &groups {
        speaker.consequence(&mut text, group, &paint);
    }
    let shown = if style.verbose { groups.len() } else { groups.len().min(FEW_PATHS) };
    for group in groups.iter().take(shown) {
        speaker.write_way(&mut text, group, groups.len() > 1, &paint);
    }
    if shown < groups.len() {
        let rest = groups.len() - shown;
        let _ = writeln!(text, "\n{rest} more {} with -v.", plural(rest, "way", "ways"));
    }
    let unknown = distinct(ways.iter().flat_map(|way| match &way.fate {
        Fate::Unknown(why) => &why[..],
        Fate::Preserved
        | Fate::Rewritten
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost => &[],
    }));
    // A single reason already stands in the answer.
    if unknown.len() > 1 {
        list(&mut text, "Not known:", &unknown, &paint);
    }
    let journeys = ways.iter().flat_map(|way| std::iter::once(&way.there).chain(&way.back));
    let assumed = distinct(journeys.flat_map(|journey| &journey.assumptions));
    list(&mut text, "Taken for granted:", &assumed, &paint);
    text
}

fn distinct<'a>(sentences: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for sentence in sentences {
        if !all.contains(sentence) {
            all.push(sentence.clone());
        }
    }
    all
}

fn answers(text: &mut String, groups: &[Group<'_>], paint: &Paint) {
    let alone = groups.len() == 1;
    let limit = if paint.verbose { groups.len() } else { FEW_LINES };
    for group in groups.iter().take(limit) {
        let share = if alone { String::new() } else { format!("{:>4}  ", group.share()) };
        let mut line = format!("{share}{}", clean(&group.answer));
        let count = group.ways.len();
        if count > 1 && group.kind != Kind::Preserved {
            let _ = write!(line, " ({count} ways)");
        }
        let word = group.kind.word();
        let painted = paint.colour(group.kind.colour(), word);
        text.push_str(&paint.wrapped("", &line).replacen(word, &painted, 1));
    }
    if groups.is_empty() {
        text.push_str("UNKNOWN: the packet could not be followed\n");
    } else if groups.len() > limit {
        let _ = writeln!(text, "      and {} more", groups.len() - limit);
    }
}

impl Kind {
    fn of(way: &Way) -> Kind {
        match way.fate {
            Fate::Preserved => Kind::Preserved,
            Fate::Rewritten => Kind::Rewritten,
            Fate::NoAnswer(_) => Kind::NoAnswer,
            Fate::Dropped(_) => Kind::Dropped,
            Fate::Rejected(_) => Kind::Rejected,
            Fate::Lost => Kind::Unreached,
            Fate::Unknown(_) => Kind::Unknown,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Dropped => "DROPPED",
            Kind::Rejected => "REJECTED",
            Kind::Unreached => "UNREACHED",
            Kind::NoAnswer => "NO ANSWER",
            Kind::Rewritten => "REWRITTEN",
            Kind::Unknown => "UNKNOWN",
            Kind::Preserved => "PRESERVED",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Kind::Dropped | Kind::Rejected | Kind::Unreached | Kind::NoAnswer | Kind::Rewritten => {
                Colour::Red
            }
            Kind::Unknown => Colour::Yellow,
            Kind::Preserved => Colour::Green,
        }
    }
}

/// How likely a way is: as likely as all outcomes on it together.
pub(crate) fn probability(way: &Way) -> Option<f64> {
    way.there.legs.iter().map(|leg| leg.outcome.probability).product()
}

impl Group<'_> {
    fn share(&self) -> String {
        percent(sum(self.ways.iter().map(|way| probability(way))))
    }

    /// Each receiver with its share and the source that it sees, in the order met.
    fn receivers(&self) -> Vec<(String, Endpoint, Endpoint)> {
        let mut rows: Vec<(Option<f64>, Endpoint, Endpoint)> = Vec::new();
        for way in &self.ways {
            let Some((from, to)) = way.there.ends() else { continue };
            let share = probability(way);
            match rows.iter_mut().find(|row| row.1 == to && row.2 == from) {
                Some(row) => row.0 = sum([row.0, share]),
                None => rows.push((share, to, from)),
            }
        }
        rows.into_iter().map(|(share, to, from)| (percent(share), to, from)).collect()
    }
}

impl Speaker<'_, '_> {
    fn groups<'w>(&self, ways: &'w [Way]) -> Vec<Group<'w>> {
        let mut groups: Vec<Group<'w>> = Vec::new();
        for way in ways {
            let (kind, cause) = (Kind::of(way), self.cause(way));
            match groups.iter_mut().find(|group| group.kind == kind && group.cause == cause) {
                Some(group) => group.ways.push(way),
                None => {
                    groups.push(Group { kind, answer: String::new(), cause, ways: vec![way] });
                }
            }
        }
        groups.sort_by_key(|group| group.kind);
        for group in &mut groups {
            group.answer = sentence(group);
        }
        groups
    }

    /// What made it end so; what the ways of one group have in common.
    fn cause(&self, way: &Way) -> String {
        match &way.fate {
            Fate::Preserved => String::new(),
            Fate::Rewritten => self.rewriters(way),
            Fate::NoAnswer(why) => why.clone(),
            Fate::Dropped(_) | Fate::Rejected(_) => match way.there.legs.last() {
                Some(leg) => self.refused(leg),
                None => String::new(),
            },
            Fate::Lost => match way.there.legs.last() {
                Some(leg) => {
                    let to = leg.outcome.next_hop.or(leg.outcome.destination.after.address);
                    let to = to.map_or_else(|| "the address".to_owned(), |to| to.to_string());
                    format!("nobody has {to}, which {} sends it to", self.host(leg.host))
                }
                None => String::new(),
            },
            Fate::Unknown(why) => match &why[..] {
                [] => "no reason was given".to_owned(),
                [why] => why.clone(),
                [why, rest @ ..] => format!("{why} (and {} more)", rest.len()),
            },
        }
    }

    /// `on n2 by filter FORWARD: policy drop`.
    fn refused(&self, leg: &Leg) -> String {
        let at = self.at(leg.host);
        match self.paths.host(leg.host) {
            Some(host) => format!("{at} {}", decided_by(&leg.outcome, host)),
            None => at,
        }
    }

    /// `by X (Calico) on n1, then by Y (flannel) on n2`.
    fn rewriters(&self, way: &Way) -> String {
        let by = way.rewriters().filter_map(|(at, rule)| {
            let host = self.paths.host(at)?;
            let owner = unmasq_audit::owner(host, rule);
            Some(format!("by {} ({owner}) {}", label(host, rule), self.at(at)))
        });
        let by: Vec<String> = by.collect();
        match by.is_empty() {
            true => "by the kernel, without a rule".to_owned(),
            false => by.join(", then "),
        }
    }

    /// `n1`, `pod default/web-1`.
    fn host(&self, host: usize) -> String {
        match names::host(self.paths, host) {
            (node, None) => node,
            (_, Some(pod)) => format!("pod {pod}"),
        }
    }

    /// `on n1`, `in pod default/web-1`.
    fn at(&self, host: usize) -> String {
        match names::host(self.paths, host) {
            (node, None) => format!("on {node}"),
            (_, Some(pod)) => format!("in pod {pod}"),
        }
    }

    fn node(&self, node: usize) -> String {
        let nodes = &self.paths.cluster().nodes;
        nodes.get(node).map_or_else(|| "?".to_owned(), |node| node.name.clone())
    }

    /// What was asked, with names.
    fn question(&self, ways: &[Way]) -> String {
        let Call { from, source_port, to, port, protocol } = self.call;
        let end = |address: Option<IpAddr>, port: Option<u16>| Endpoint {
            address,
            port: match port {
                _ if !protocol.has_ports() => Port::None,
                Some(port) => Port::Exactly(port),
                None => Port::Unknown,
            },
        };
        let caller = ways.first().map(|way| way.caller);
        let who = match from {
            Caller::Pod { address, node } => match self.names.get(*address) {
                Some(name) => name.to_owned(),
                None => format!("a pod of {}", self.node(*node)),
            },
            Caller::Node(node) => format!("node {}", self.node(*node)),
            Caller::Outside { node, .. } => {
                format!("somebody outside, into node {},", self.node(*node))
            }
        };
        let whom = self.names.get(*to).unwrap_or("somebody outside of the cluster");
        let (source, destination) = (end(caller, *source_port), end(Some(*to), *port));
        clean(&format!("{protocol} {source} -> {destination}: {who} calls {whom}"))
    }

    /// What the receiver sees.
    fn consequence(&self, text: &mut String, group: &Group<'_>, paint: &Paint) {
        match group.kind {
            Kind::Dropped | Kind::Rejected | Kind::Unreached | Kind::Unknown => return,
            Kind::NoAnswer | Kind::Rewritten | Kind::Preserved => {}
        }
        let rows = group.receivers();
        let name = |to: &Endpoint| match to.address.and_then(|to| self.names.get(to)) {
            Some(name) => format!("{to} ({})", clean(name)),
            None => to.to_string(),
        };
        if let ([(_, to, from)], Some(way)) = (&rows[..], group.ways.first()) {
            let before = way.there.legs.first().map(|leg| leg.outcome.source.before);
            let sees = match before {
                Some(before) if from.address != before.address => {
                    format!("{from} instead of {before}")
                }
                Some(before) if *from != before => {
                    format!("{from}: the sender's own address, another port")
                }
                Some(_) | None => format!("{from}, the sender's own address"),
            };
            paint.wrap(text, "", &format!("{} sees {sees}.", name(to)));
            return;
        }
        let limit = if paint.verbose { rows.len() } else { FEW_LINES };
        for (share, to, from) in rows.iter().take(limit) {
            paint.wrap(text, "", &format!("{share:>4}  {} sees {from}", name(to)));
        }
        if rows.len() > limit {
            let rest = rows.len() - limit;
            let _ = writeln!(text, "      and {rest} more {}", plural(rest, "way", "ways"));
        }
    }

    /// The first way of a group: in one line, then host by host, then its answer's.
    fn write_way(&self, text: &mut String, group: &Group<'_>, of_several: bool, paint: &Paint) {
        let Some(way) = group.ways.first() else { return };
        text.push('\n');
        if of_several {
            let title = format!("If {}:", group.kind.word());
            let _ = writeln!(text, "{}", paint.bold(&title));
        }
        let stations = self.stations(&way.there, self.begin());
        paint.wrap(text, "", &clean(&stations));
        for leg in &way.there.legs {
            let Some(host) = self.paths.host(leg.host) else { continue };
            let mut title = self.at(leg.host);
            if let Some(device) = &leg.query.in_device {
                let _ = write!(title, ", in by {device}");
            }
            let sent = leg.query.in_device.is_none();
            let who = match names::host(self.paths, leg.host) {
                (_, None) => "node",
                (_, Some(_)) => "pod",
            };
            walk(text, &title, &leg.outcome, host, (sent, who), paint);
        }
        self.write_answer(text, way, paint);
    }

    fn write_answer(&self, text: &mut String, way: &Way, paint: &Paint) {
        let comes = |back: &&Journey| Net::answers(&way.there, back);
        let Some(back) = way.back.iter().find(|back| !comes(back)).or(way.back.first()) else {
            return;
        };
        let begin = match way.there.arrival {
            Arrival::Left => way.reached().and_then(|to| to.address),
            Arrival::Delivered
            | Arrival::Dropped(_)
            | Arrival::Rejected(_)
            | Arrival::Lost
            | Arrival::Unknown(_) => None,
        };
        let stations = self.stations(back, begin.map(|address| self.names.or_address(address)));
        let result = match &way.fate {
            Fate::Preserved | Fate::Rewritten => "it comes back".to_owned(),
            Fate::NoAnswer(why) => format!("it does not come back: {why}"),
            Fate::Unknown(why) => {
                let why = why.first().map_or("no reason was given", String::as_str);
                format!("whether it comes back can't be told: {why}")
            }
            Fate::Dropped(_) | Fate::Rejected(_) | Fate::Lost => return,
        };
        let several = match way.back.len() {
            1 => String::new(),
            count => format!(" (one of {count} ways)"),
        };
        text.push('\n');
        paint.wrap(text, "", &clean(&format!("The answer{several}: {stations}; {result}.")));
    }

    /// Who sends the first packet, if no host that is walked does.
    fn begin(&self) -> Option<String> {
        match &self.call.from {
            Caller::Pod { address, .. } => match self.names.get(*address) {
                Some(name) => Some(name.to_owned()),
                None => Some(format!("pod {address}")),
            },
            Caller::Node(_) => None,
            Caller::Outside { address, .. } => Some(address.to_string()),
        }
    }

    /// `pod default/web-1 -> n1 -> flannel.1 -> n2 -> pod default/web-2`.
    fn stations(&self, journey: &Journey, begin: Option<String>) -> String {
        let mut stations: Vec<String> = Vec::new();
        stations.extend(begin);
        for (index, leg) in journey.legs.iter().enumerate() {
            let host = self.host(leg.host);
            if stations.last() != Some(&host) {
                stations.push(host);
            }
            let next = journey.legs.get(index + 1);
            let node = |leg: &Leg| self.paths.node_of(leg.host);
            let to_pod_here = match next {
                Some(next) => node(next) == node(leg),
                None => self.leaves_to_own_pod(journey, leg),
            };
            if let Some(device) = leg.outcome.out.as_ref().filter(|_| !to_pod_here) {
                stations.push(device.to_string());
            }
        }
        let end = match &journey.arrival {
            Arrival::Delivered => None,
            Arrival::Left => {
                let to = journey.ends().and_then(|(_, to)| to.address);
                Some(to.map_or_else(|| "?".to_owned(), |to| self.names.or_address(to)))
            }
            Arrival::Dropped(_) => Some("dropped".to_owned()),
            Arrival::Rejected(_) => Some("refused".to_owned()),
            Arrival::Lost => Some("nobody".to_owned()),
            Arrival::Unknown(_) => Some("?".to_owned()),
        };
        stations.extend(end);
        stations.join(" -> ")
    }

    /// Whether the packet leaves for a pod of the node that it is on.
    fn leaves_to_own_pod(&self, journey: &Journey, leg: &Leg) -> bool {
        let Some(to) = journey.ends().and_then(|(_, to)| to.address) else { return false };
        let node = self.paths.node_of(leg.host);
        let mut pods = self.paths.cluster().pod_addresses();
        journey.arrival == Arrival::Left
            && pods.any(|(address, at)| address == to && Some(at) == node)
    }
}

fn sentence(group: &Group<'_>) -> String {
    let word = group.kind.word();
    let cause = &group.cause;
    let address = |address: Option<IpAddr>| match address {
        Some(address) => address.to_string(),
        None => "?".to_owned(),
    };
    let caller = address(group.ways.first().map(|way| way.caller));
    match group.kind {
        Kind::Dropped | Kind::Rejected => format!("{word} {cause}"),
        Kind::Unreached | Kind::NoAnswer | Kind::Unknown => format!("{word}: {cause}"),
        Kind::Rewritten => {
            let seen = some(group.ways.iter().map(|way| address(way.seen())), "addresses");
            format!("source {word} {caller} -> {seen} {cause}")
        }
        Kind::Preserved => {
            let reached = group.ways.iter().filter_map(|way| way.reached());
            let reached = some(reached.map(|to| to.to_string()), "destinations");
            format!("source {word} {caller} -> {reached}")
        }
    }
}

#[cfg(test)]
mod tests;
