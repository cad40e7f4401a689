//! The systems that Unmasq exists for, loaded into a kernel and saved from it: what real packets
//! do, and what the evaluator says of them.

#[path = "../trials/mod.rs"]
mod trials;

mod canal;
mod engine;
mod kube_proxy;
mod kube_router;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use unmasq_eval::trace::Disposition;
use unmasq_lab::Network;
use unmasq_lab::judge::{Shot, judge};

fn main() -> ExitCode {
    let modules = [canal::TESTS, engine::TESTS, kube_router::TESTS, kube_proxy::TESTS];
    trials::run(modules.into_iter().flatten().copied())
}

/// What a packet must become.
struct Expected {
    probe: &'static str,
    /// The device it leaves by.
    out: &'static str,
    /// The source address that the destination sees.
    source: &'static str,
    /// Where it arrives, one of these.
    destinations: &'static [&'static str],
    /// Part of the text of the rule that rewrites the source; empty: the source is kept.
    rule: &'static str,
}

/// Sends the probe and compares both the kernel's and the evaluator's answer with `expected`.
fn expect(network: &Network, expected: &Expected) -> Result<()> {
    let check = || {
        let shot = judge(network, &expected.probe.parse()?)?;
        kernel(&shot, expected)?;
        match expected.destinations.len() {
            1 => shot.foreseen()?,
            count => shot.foreseen_among(count)?,
        }
        evaluator(&shot, expected)
    };
    check().with_context(|| expected.probe)
}

fn kernel(shot: &Shot, expected: &Expected) -> Result<()> {
    let [left] = &shot.seen.sighting.left[..] else {
        anyhow::bail!("expected by {}, saw {}", expected.out, shot.seen);
    };
    let destination = unmasq_lab::probe::show(left.flow.destination);
    ensure!(
        left.device == expected.out
            && left.flow.source.ip().to_string() == expected.source
            && expected.destinations.contains(&&*destination),
        "saw {}",
        shot.seen
    );
    Ok(())
}

fn evaluator(shot: &Shot, expected: &Expected) -> Result<()> {
    let host = &shot.prediction.host;
    for outcome in &shot.prediction.trace.outcomes {
        let text = outcome.rewritten_by.map(|id| {
            let table = &host.ruleset.tables[id.table as usize];
            table.chain(id.chain).rules[id.rule as usize].text.as_ref()
        });
        let disposition = outcome.source.disposition;
        match expected.rule {
            "" => ensure!(
                disposition == Disposition::Preserved && text.is_none(),
                "{disposition:?} by {text:?}"
            ),
            part => ensure!(
                disposition == Disposition::Rewritten
                    && text.is_some_and(|text| text.contains(part)),
                "{disposition:?} by {text:?}, not by {part}"
            ),
        }
    }
    Ok(())
}
