//! What is found without a packet: in objects, settings and rules alone.
//!
//! ```text
//! Services, endpoints ─ local ──▶ local-policy-unsafe, -imbalance, -invalid
//! ranges in use ─────── ranges ─▶ overlapping-ranges
//! expectations ──────── forwarded ▶ forwarded-for-untrusted
//! pools, rules ──────── pools, backends ▶ calico-unused-pool, mixed-backends
//! BPF programs, IPVS ── opaque ─▶ opaque-dataplane
//! ```
//!
//! A finding that rows of the matrix made already isn't made again: what is known besides is added
//! to it. What was not seen is no finding: that is [`unseen`].

mod backends;
mod forwarded;
mod local;
mod opaque;
mod pools;
mod ranges;
mod unseen;

use super::Context;
use super::describe::Described;
use crate::{Affected, Finding, FindingId, Owner, Severity};

pub(super) use unseen::unseen;

/// Adds what is found in objects and rules alone.
pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    local::add(context, findings);
    ranges::add(context, findings);
    forwarded::add(context, findings);
    pools::add(context, findings);
    backends::add(context, findings);
    opaque::add(context, findings);
}

/// A finding of no row, with nothing affected yet.
fn finding(
    id: FindingId,
    subject: String,
    severity: Severity,
    owner: Owner,
    described: Described,
) -> Finding {
    Finding {
        id,
        subject,
        severity,
        confidence: described.confidence,
        title: described.title,
        owner,
        families: Vec::new(),
        affected: Affected::default(),
        breaks: Vec::new(),
        evidence: Vec::new(),
        cause: described.cause,
        remedies: described.remedies,
    }
}

/// The finding that there is already.
fn known<'f>(findings: &'f mut [Finding], id: FindingId, subject: &str) -> Option<&'f mut Finding> {
    findings.iter_mut().find(|one| one.id == id && one.subject == subject)
}

#[cfg(test)]
mod tests;
