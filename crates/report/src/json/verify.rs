//! `unmasq.verify/v1`: connections that were tried, what was predicted, and what was seen.
//!
//! `schemas/verify.v1.json` describes it, and a test holds the two together.

use std::net::IpAddr;

use serde::Serialize;

use unmasq_audit::matrix::verify::{Check, Happened, Predicted, Seen, Tried, Verdict, What};
use unmasq_cluster::paths::Caller;
use unmasq_model::packet::Family;

use super::audit::entry_name;
use crate::audit::Subject;
use crate::verify::{Words, end};

/// The document's schema.
pub const VERIFY_SCHEMA: &str = "unmasq.verify/v1";

/// The document. `lab`: the scenario through whose hosts the connections were made.
pub fn verified(
    tried: &Tried,
    subject: &Subject<'_>,
    lab: Option<&str>,
    words: &Words<'_>,
) -> impl Serialize {
    let left_out = tried.checks.left_out.iter();
    let count = |verdict| tried.count(verdict);
    Document {
        schema: VERIFY_SCHEMA,
        version: subject.version.to_owned(),
        capture: subject.capture.map(ToOwned::to_owned),
        lab: lab.map(ToOwned::to_owned),
        verdict: verdict_name(tried.verdict()),
        totals: TotalsView {
            concerned: tried.checks.concerned,
            left_out: left_out.clone().map(|(_, count)| count).sum(),
            as_predicted: count(Verdict::AsPredicted),
            differs: count(Verdict::Differs),
            unpredicted: count(Verdict::Unpredicted),
            unseen: count(Verdict::Unseen),
            strays: tried.strays,
        },
        left_out: left_out
            .map(|(why, count)| LeftOutView { why: why.to_string(), count: *count })
            .collect(),
        checks: tried
            .all()
            .map(|(check, seen, verdict)| view(check, seen, verdict, words))
            .collect(),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    version: String,
    capture: Option<String>,
    lab: Option<String>,
    verdict: &'static str,
    totals: TotalsView,
    left_out: Vec<LeftOutView>,
    checks: Vec<CheckView>,
}

#[derive(Serialize)]
struct TotalsView {
    concerned: usize,
    left_out: usize,
    as_predicted: usize,
    differs: usize,
    unpredicted: usize,
    unseen: usize,
    strays: usize,
}

#[derive(Serialize)]
struct LeftOutView {
    why: String,
    count: usize,
}

#[derive(Serialize)]
struct CheckView {
    verdict: &'static str,
    from: FromView,
    entry: &'static str,
    service: Option<String>,
    family: String,
    protocol: String,
    to: String,
    predicted: Vec<PredictedView>,
    observed: Vec<ObservedView>,
}

#[derive(Serialize)]
struct FromView {
    kind: &'static str,
    name: String,
    address: Option<IpAddr>,
    nodes: Vec<String>,
}

#[derive(Serialize)]
struct PredictedView {
    is: &'static str,
    source: Option<IpAddr>,
    at: Option<String>,
    why: Vec<String>,
}

#[derive(Serialize)]
struct ObservedView {
    is: &'static str,
    from: Option<String>,
    source: Option<String>,
    at: Option<String>,
    why: Option<String>,
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::AsPredicted => "as_predicted",
        Verdict::Differs => "differs",
        Verdict::Unpredicted => "unpredicted",
        Verdict::Unseen => "unseen",
    }
}

fn view(check: &Check, seen: &[Seen], verdict: Verdict, words: &Words<'_>) -> CheckView {
    let call = check.call();
    let kind = match call.from {
        Caller::Pod { .. } => "pod",
        Caller::Node(_) => "node",
        Caller::Outside { .. } => "outside",
    };
    // Whoever stands for somebody has an address that nobody has.
    let real = check.outside.is_none() || check.name.is_some();
    CheckView {
        verdict: verdict_name(verdict),
        from: FromView {
            kind,
            name: words.caller(check),
            address: check.own.filter(|_| real),
            nodes: words.nodes(check),
        },
        entry: entry_name(check.entry),
        service: words.service(check),
        family: Family::of(call.to).to_string(),
        protocol: call.protocol.to_string(),
        to: end(call.to, call.port),
        predicted: check.predicted.iter().map(predicted).collect(),
        observed: seen.iter().map(observed).collect(),
    }
}

fn predicted(predicted: &Predicted) -> PredictedView {
    let (is, source, why) = match &predicted.what {
        What::Preserved => ("preserved", None, Vec::new()),
        What::Rewritten(source) => ("rewritten", Some(*source), Vec::new()),
        What::Silence => ("silence", None, Vec::new()),
        What::Nobody => ("nobody", None, Vec::new()),
        What::Refusal => ("refusal", None, Vec::new()),
        What::Unknown(why) => ("unknown", None, why.clone()),
    };
    let at = predicted.at.map(|(address, port)| end(address, port));
    PredictedView { is, source, at, why }
}

fn observed(seen: &Seen) -> ObservedView {
    let from = seen.from.map(|from| from.to_string());
    let view = |is| ObservedView { is, from: from.clone(), source: None, at: None, why: None };
    match &seen.what {
        Happened::Answered { source, at } => ObservedView {
            source: Some(source.to_string()),
            at: Some(at.to_string()),
            ..view(match seen.from.is_some_and(|from| from.ip() == source.ip()) {
                true => "preserved",
                false => "rewritten",
            })
        },
        Happened::Foreign(what) => ObservedView { why: Some(what.clone()), ..view("foreign") },
        Happened::Refused { unreachable: true } => view("unreachable"),
        Happened::Refused { unreachable: false } => view("refusal"),
        Happened::Silent => view("silence"),
        Happened::Failed(why) => ObservedView { why: Some(why.clone()), ..view("failed") },
    }
}
