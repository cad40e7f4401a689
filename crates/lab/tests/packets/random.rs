//! Many packets against a prediction with several outcomes.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use unmasq_eval::trace::{Endpoint, Port};
use unmasq_lab::judge::{self, Prediction};
use unmasq_lab::observation::Sighting;
use unmasq_lab::{Network, Probe};

/// A prediction, and how often each of its outcomes was seen.
pub(crate) struct Draws {
    prediction: Prediction,
    asked: u16,
    seen: RefCell<Vec<u32>>,
}

/// Asks the evaluator once for all packets that differ in their source port only.
pub(crate) fn predict(network: &Network, probe: &Probe) -> Result<Draws> {
    let prediction = judge::predict(network, probe)?;
    let seen = RefCell::new(vec![0; prediction.trace.outcomes.len()]);
    Ok(Draws { prediction, asked: probe.source.port(), seen })
}

impl Draws {
    /// Fails unless some outcome ends so, for a packet from `port`.
    pub(crate) fn covers(&self, sighting: &Sighting, port: u16) -> Result<()> {
        let shifted = |endpoint: Endpoint| match endpoint.port {
            Port::Exactly(asked) if asked == self.asked => {
                Endpoint { port: Port::Exactly(port), ..endpoint }
            }
            _ => endpoint,
        };
        let found = self.prediction.trace.outcomes.iter().position(|outcome| {
            let mut outcome = outcome.clone();
            outcome.source.after = shifted(outcome.source.after);
            self.prediction.ending(&outcome, sighting, false).is_none()
        });
        let index = found.with_context(|| format!("no outcome is `{sighting}`"))?;
        self.seen.borrow_mut()[index] += 1;
        Ok(())
    }

    /// Fails unless probabilities add up to 1 and each outcome of a fifth or more was seen.
    pub(crate) fn exhausted(&self) -> Result<()> {
        let mut sum = 0.0;
        for (outcome, seen) in self.prediction.trace.outcomes.iter().zip(&*self.seen.borrow()) {
            let probability = outcome.probability.context("an outcome without probability")?;
            sum += probability;
            ensure!(probability < 0.2 || *seen > 0, "never seen: {outcome:?}");
        }
        ensure!((sum - 1.0).abs() < 1e-6, "probabilities add up to {sum}");
        Ok(())
    }
}
