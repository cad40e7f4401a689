//! The systems that Unmasq exists for, loaded into a kernel and saved from it: what real packets
//! do, what the evaluator says of them, and whose rule it is.
//!
//! With `UNMASQ_SAVE_CAPTURES=FOLDER` nothing is tested: the states are saved as captures, with
//! the questions that golden answers are kept for (`cargo xtask bless --captures`).

mod canal;
mod engine;
mod golden;
mod kube_proxy;
mod kube_router;
#[path = "../trials/mod.rs"]
mod trials;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use unmasq_audit::{Owner, owner};
use unmasq_eval::trace::{Disposition, Outcome};
use unmasq_lab::Network;
use unmasq_lab::judge::{Shot, judge};
use unmasq_model::host::Host;

fn main() -> ExitCode {
    let states = || {
        [canal::STATES, engine::STATES, kube_router::STATES, kube_proxy::STATES]
            .into_iter()
            .flatten()
    };
    if let Some(folder) = std::env::var_os("UNMASQ_SAVE_CAPTURES") {
        return match golden::save(states(), folder.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(2)
            }
        };
    }
    let kernel = states().map(|state| (state.name, Box::new(|| state.check()) as Run));
    let kept = Box::new(move || golden::are_of(states())) as Run;
    trials::run(kernel.chain([("golden_folders_are_of_these_states", kept)]))
}

type Run = Box<dyn FnOnce() -> Result<()> + Send>;

/// A node's state, and packets to send into it.
struct State {
    /// Also the folder's name in `tests/golden`, if one of the questions has a golden answer.
    name: &'static str,
    load: fn() -> Result<Network>,
    questions: &'static [Question],
}

/// A packet, and what must become of it.
#[derive(Clone, Copy)]
struct Question {
    /// Its folder below the state's in `tests/golden`; `None`: no golden answer is kept.
    golden: Option<&'static str>,
    probe: &'static str,
    /// The device that it leaves by.
    out: &'static str,
    /// The source address that the destination sees.
    source: &'static str,
    /// Where it arrives.
    destination: &'static str,
    /// Who rewrites the source, with part of the rule's text; `None`: the source is kept.
    by: Option<(Owner, &'static str)>,
}

impl State {
    /// Sends all packets.
    fn check(&self) -> Result<()> {
        let network = (self.load)()?;
        self.questions.iter().try_for_each(|question| question.check(&network))
    }
}

impl Question {
    /// Sends the packet and compares both the kernel's and the evaluator's answer.
    fn check(&self, network: &Network) -> Result<()> {
        let check = || {
            let shot = judge(network, &self.probe.parse()?)?;
            self.kernel(&shot)?;
            shot.foreseen()?;
            let host = &shot.prediction.host;
            let mut outcomes = shot.prediction.trace.outcomes.iter();
            outcomes.try_for_each(|outcome| self.evaluator(host, outcome))
        };
        check().with_context(|| self.probe)
    }

    fn kernel(&self, shot: &Shot) -> Result<()> {
        let [left] = &shot.seen.sighting.left[..] else {
            anyhow::bail!("expected by {}, saw {}", self.out, shot.seen);
        };
        ensure!(
            left.device == self.out
                && left.flow.source.ip().to_string() == self.source
                && unmasq_lab::probe::show(left.flow.destination) == self.destination,
            "saw {}",
            shot.seen
        );
        Ok(())
    }

    fn evaluator(&self, host: &Host, outcome: &Outcome) -> Result<()> {
        let found = outcome.rewritten_by.map(|id| {
            let table = &host.ruleset.tables[id.table as usize];
            (owner(host, id), table.chain(id.chain).rules[id.rule as usize].text.as_ref())
        });
        let disposition = outcome.source.disposition;
        let as_expected = match (self.by, found) {
            (None, None) => disposition == Disposition::Preserved,
            (Some((owner, part)), Some((found, text))) => {
                disposition == Disposition::Rewritten && owner == found && text.contains(part)
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        ensure!(as_expected, "{disposition:?} by {found:?}, not by {:?}", self.by);
        Ok(())
    }
}
