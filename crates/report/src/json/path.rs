//! `unmasq.path/v1`: a call over several hosts as a document.
//!
//! `schemas/path.v1.json` describes it, and a test holds the two together; what a host does with a
//! packet has the form that it has in `unmasq.trace/v1`.

use std::net::IpAddr;

use serde::Serialize;

use unmasq_cluster::paths::{Call, Caller, Fate, Paths, Way};
use unmasq_eval::journey::{Arrival, Journey, Leg, Net};
use unmasq_eval::trace::RuleId;

use super::{OutcomeView, PacketView, RewriterView, outcome, packet, rewriter};
use crate::evidence;
use crate::names::{self, Names};
use crate::terminal::probability;

/// The document's schema.
pub const PATH_SCHEMA: &str = "unmasq.path/v1";

/// The document.
pub fn path_of_hosts(ways: &[Way], call: &Call, paths: &Paths<'_>) -> impl Serialize {
    let names = Names::of(paths.cluster());
    Document {
        schema: PATH_SCHEMA,
        call: self::call(call, paths, &names),
        ways: ways.iter().map(|one| way(one, paths, &names)).collect(),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    call: CallView,
    ways: Vec<WayView>,
}

#[derive(Serialize)]
struct CallView {
    from: FromView,
    to: ToView,
    protocol: String,
}

#[derive(Serialize)]
struct FromView {
    kind: &'static str,
    node: String,
    address: Option<IpAddr>,
    port: Option<u16>,
    name: Option<String>,
}

#[derive(Serialize)]
struct ToView {
    address: IpAddr,
    port: Option<u16>,
    name: Option<String>,
}

#[derive(Serialize)]
struct WayView {
    probability: Option<f64>,
    fate: &'static str,
    reason: Option<&'static str>,
    details: Vec<String>,
    caller: IpAddr,
    seen: Option<IpAddr>,
    reached: Option<ReachedView>,
    rewritten_by: Vec<RewrittenView>,
    there: JourneyView,
    back: Vec<AnswerView>,
}

#[derive(Serialize)]
struct ReachedView {
    endpoint: String,
    name: Option<String>,
}

#[derive(Serialize)]
struct RewrittenView {
    node: String,
    pod: Option<String>,
    rule: RewriterView,
}

#[derive(Serialize)]
struct AnswerView {
    comes_back: bool,
    way: JourneyView,
}

#[derive(Serialize)]
struct JourneyView {
    arrival: &'static str,
    legs: Vec<LegView>,
    assumptions: Vec<String>,
    unknown: Vec<String>,
}

#[derive(Serialize)]
struct LegView {
    node: String,
    pod: Option<String>,
    packet: PacketView,
    outcome: OutcomeView,
}

fn call(call: &Call, paths: &Paths<'_>, names: &Names) -> CallView {
    let node = |index: usize| {
        let node = paths.cluster().nodes.get(index);
        node.map_or_else(|| "?".to_owned(), |node| node.name.clone())
    };
    let name = |address: IpAddr| names.get(address).map(ToOwned::to_owned);
    let (kind, address, caller) = match &call.from {
        Caller::Pod { address, .. } => ("pod", Some(*address), name(*address)),
        Caller::Node(at) => {
            let address = paths.node_address(*at, call.to).ok();
            ("node", address, Some(format!("node {}", node(*at))))
        }
        Caller::Outside { address, .. } => ("outside", Some(*address), name(*address)),
    };
    let from = FromView {
        kind,
        node: node(call.from.node()),
        address,
        port: call.source_port,
        name: caller,
    };
    let to = ToView { address: call.to, port: call.port, name: name(call.to) };
    CallView { from, to, protocol: call.protocol.to_string() }
}

fn way(way: &Way, paths: &Paths<'_>, names: &Names) -> WayView {
    let (fate, reason, details) = match &way.fate {
        Fate::Preserved => ("preserved", None, Vec::new()),
        Fate::Rewritten => ("rewritten", None, Vec::new()),
        Fate::NoAnswer(why) => ("no_answer", None, vec![why.clone()]),
        Fate::Dropped(reason) => ("dropped", *reason, Vec::new()),
        Fate::Rejected(reason) => ("rejected", *reason, Vec::new()),
        Fate::Lost => ("unreached", None, Vec::new()),
        Fate::Unknown(why) => ("unknown", None, why.clone()),
    };
    let reached = way.seen().and_then(|_| way.reached());
    WayView {
        probability: probability(way),
        fate,
        reason: reason.map(evidence::reason_name),
        details,
        caller: way.caller,
        seen: way.seen(),
        reached: reached.map(|to| ReachedView {
            endpoint: to.to_string(),
            name: to.address.and_then(|to| names.get(to)).map(ToOwned::to_owned),
        }),
        rewritten_by: way.rewriters().filter_map(|one| rewritten(one, paths)).collect(),
        there: journey(&way.there, paths),
        back: way
            .back
            .iter()
            .map(|back| AnswerView {
                comes_back: Net::answers(&way.there, back),
                way: journey(back, paths),
            })
            .collect(),
    }
}

fn rewritten((at, rule): (usize, RuleId), paths: &Paths<'_>) -> Option<RewrittenView> {
    let (node, pod) = names::host(paths, at);
    Some(RewrittenView { node, pod, rule: rewriter(rule, paths.host(at)?) })
}

fn journey(journey: &Journey, paths: &Paths<'_>) -> JourneyView {
    let (arrival, unknown) = match &journey.arrival {
        Arrival::Delivered => ("delivered", Vec::new()),
        Arrival::Left => ("left", Vec::new()),
        Arrival::Dropped(_) => ("dropped", Vec::new()),
        Arrival::Rejected(_) => ("rejected", Vec::new()),
        Arrival::Lost => ("unreached", Vec::new()),
        Arrival::Unknown(why) => ("unknown", why.clone()),
    };
    JourneyView {
        arrival,
        legs: journey.legs.iter().filter_map(|one| leg(one, paths)).collect(),
        assumptions: journey.assumptions.clone(),
        unknown,
    }
}

fn leg(leg: &Leg, paths: &Paths<'_>) -> Option<LegView> {
    let host = paths.host(leg.host)?;
    let (node, pod) = names::host(paths, leg.host);
    let packet = packet(&leg.query.packet, leg.query.in_device.as_deref(), host);
    Some(LegView { node, pod, packet, outcome: outcome(&leg.outcome, host) })
}

#[cfg(test)]
mod tests;
