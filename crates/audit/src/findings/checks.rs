//! What is found without a packet: in objects, settings and rules alone.
//!
//! ```text
//! Services, endpoints ─ local ──▶ local-policy-unsafe, -imbalance, -invalid
//! ranges in use ─────── ranges ─▶ overlapping-ranges
//! expectations ──────── forwarded ▶ forwarded-for-untrusted
//! pools, rules ──────── pools, backends ▶ calico-unused-pool, mixed-backends
//! rules, programs ───── leftovers ▶ leftover-rules, stale-flannel-rules
//! BPF programs, IPVS ── opaque ─▶ opaque-dataplane
//! rows without an answer ─ missing ▶ missing-node-state
//! ```
//!
//! A finding that rows of the matrix made already isn't made again: what is known besides is added
//! to it. What was not seen is a finding if answers hang on it; the rest of it is [`unseen`].

mod backends;
mod forwarded;
mod leftovers;
mod local;
mod missing;
mod opaque;
mod pools;
mod ranges;
mod unseen;

use super::Context;
use super::describe::Described;
use crate::{Affected, Finding, FindingId, Owner, Severity};

pub(super) use local::is_misspelt as is_found;
pub(super) use unseen::{unread_settings, unseen};

/// Adds what is found in objects and rules alone.
pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    local::add(context, findings);
    ranges::add(context, findings);
    forwarded::add(context, findings);
    pools::add(context, findings);
    backends::add(context, findings);
    leftovers::add(context, findings);
    opaque::add(context, findings);
    missing::add(context, findings);
}

/// A finding of no row, with nothing affected yet.
pub(super) fn finding(
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
        caused_by: Vec::new(),
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
