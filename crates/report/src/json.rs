//! `unmasq.trace/v1`: the answer as a document; the other documents are in modules of their own.
//!
//! `schemas/trace.v1.json` describes it, and a test holds the two together. Fields are added in a
//! new version only; a reader may rely on there being no others.

mod audit;
mod diff;
mod path;
mod plan;
mod verify;

use std::net::IpAddr;

use serde::Serialize;

use unmasq_eval::trace::{
    Disposition, Endpoint, Hit, Outcome, Port, Rewrite, RuleId, Start, Trace, Verdict,
};
use unmasq_model::host::Host;
use unmasq_model::packet::{Packet, Transport};

pub use audit::{AUDIT_SCHEMA, audit};
pub use diff::{DIFF_SCHEMA, difference};
pub use path::{PATH_SCHEMA, path_of_hosts};
pub use plan::{FIX_SCHEMA, plan, refusal};
pub use verify::{VERIFY_SCHEMA, verified};

use crate::evidence::{self, Place};

/// The document's schema.
pub const SCHEMA: &str = "unmasq.trace/v1";

/// The document.
pub fn trace(trace: &Trace, host: &Host) -> impl Serialize {
    Document {
        schema: SCHEMA,
        packet: packet(&trace.packet, device(&trace.start), host),
        assumptions: trace.assumptions.clone(),
        outcomes: trace.outcomes.iter().map(|it| outcome(it, host)).collect(),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    packet: PacketView,
    assumptions: Vec<String>,
    outcomes: Vec<OutcomeView>,
}

#[derive(Serialize)]
struct PacketView {
    family: String,
    protocol: String,
    source: String,
    destination: String,
    node: String,
    r#in: Option<String>,
}

#[derive(Serialize)]
struct OutcomeView {
    probability: Option<f64>,
    verdict: &'static str,
    reason: Option<&'static str>,
    source: SourceView,
    destination: DestinationView,
    out: Option<String>,
    next_hop: Option<IpAddr>,
    rewritten_by: Option<RewriterView>,
    because: Vec<HitView>,
    hits: Vec<HitView>,
    unknown: Vec<String>,
}

#[derive(Serialize)]
struct SourceView {
    disposition: &'static str,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct DestinationView {
    before: String,
    after: String,
}

#[derive(Serialize)]
struct RewriterView {
    table: Option<String>,
    chain: Option<String>,
    rule: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    handle: Option<u64>,
    owner: &'static str,
}

#[derive(Serialize)]
struct HitView {
    hook: &'static str,
    table: Option<String>,
    chain: Option<String>,
    rule: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    handle: Option<u64>,
    effect: String,
}

fn device(start: &Start) -> Option<&str> {
    match start {
        Start::In(device) => Some(device),
        Start::Output | Start::Unknown => None,
    }
}

/// A packet that comes into a host by a device, or is sent by the host.
fn packet(packet: &Packet, device: Option<&str>, host: &Host) -> PacketView {
    let (source, destination) = ends(packet);
    PacketView {
        family: packet.family().to_string(),
        protocol: packet.protocol.to_string(),
        source: source.to_string(),
        destination: destination.to_string(),
        node: host.name.to_string(),
        r#in: device.map(ToOwned::to_owned),
    }
}

/// A packet's source and destination.
pub(crate) fn ends(packet: &Packet) -> (Endpoint, Endpoint) {
    let port = |port: Option<u16>| port.map_or(Port::Unknown, Port::Exactly);
    let (source, destination) = match packet.transport {
        Transport::Ports { source, destination } => (port(source), port(destination)),
        Transport::Icmp { .. } | Transport::Other => (Port::None, Port::None),
    };
    (
        Endpoint { address: Some(packet.source), port: source },
        Endpoint { address: Some(packet.destination), port: destination },
    )
}

fn outcome(outcome: &Outcome, host: &Host) -> OutcomeView {
    OutcomeView {
        probability: outcome.probability,
        verdict: match outcome.verdict {
            Verdict::Delivered => "delivered",
            Verdict::Forwarded => "forwarded",
            Verdict::Dropped => "dropped",
            Verdict::Rejected => "rejected",
            Verdict::Unknown => "unknown",
        },
        reason: outcome.reason.map(evidence::reason_name),
        source: source(&outcome.source),
        destination: DestinationView {
            before: outcome.destination.before.to_string(),
            after: outcome.destination.after.to_string(),
        },
        out: outcome.out.as_ref().map(ToString::to_string),
        next_hop: outcome.next_hop,
        rewritten_by: outcome.rewritten_by.map(|id| rewriter(id, host)),
        because: outcome
            .because
            .iter()
            .filter_map(|&index| outcome.hits.get(index))
            .map(|it| hit(it, host))
            .collect(),
        hits: outcome.hits.iter().map(|it| hit(it, host)).collect(),
        unknown: outcome.unknown.clone(),
    }
}

fn source(rewrite: &Rewrite) -> SourceView {
    SourceView {
        disposition: match rewrite.disposition {
            Disposition::Preserved => "preserved",
            Disposition::Rewritten => "rewritten",
            Disposition::Unknown => "unknown",
        },
        before: rewrite.before.to_string(),
        after: rewrite.after.to_string(),
    }
}

fn rewriter(id: RuleId, host: &Host) -> RewriterView {
    let place = Place::of_rule(host, id);
    RewriterView {
        chain: place.chain.map(|chain| chain.name.to_string()),
        rule: place.rule.map(|rule| rule.text.to_string()),
        file: place.file.map(ToOwned::to_owned),
        line: place.origin.map(|origin| origin.line),
        handle: place.origin.and_then(|origin| origin.handle),
        owner: unmasq_audit::owner(host, id).name(),
        table: place.table,
    }
}

fn hit(hit: &Hit, host: &Host) -> HitView {
    let place = Place::of(host, &hit.by);
    HitView {
        hook: hit.stage.name(),
        chain: place.chain.map(|chain| chain.name.to_string()),
        rule: place.rule.map(|rule| rule.text.to_string()),
        file: place.file.map(ToOwned::to_owned),
        line: place.origin.map(|origin| origin.line),
        handle: place.origin.and_then(|origin| origin.handle),
        effect: evidence::effects(host, hit),
        table: place.table,
    }
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
