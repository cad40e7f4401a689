//! Which rules of a big chain can match a packet at all.
//!
//! kube-proxy's chains have one rule for each Service, each with its own destination. A chain is
//! indexed by the destination address or port that a rule requires before it does anything, so
//! that a walk looks at a handful of rules instead of all.

use std::collections::HashMap;
use std::net::IpAddr;

use unmasq_model::expr::{End, Expr, Field};
use unmasq_model::rule::{Comparison, Rule, Step, Test};
use unmasq_model::ruleset::Chain;

/// Smaller chains are read from top to bottom.
const WORTH_IT: usize = 32;

/// An index of one chain.
#[derive(Debug, Default)]
pub(crate) struct ChainIndex {
    by_destination: HashMap<IpAddr, Vec<u32>>,
    by_port: HashMap<u16, Vec<u32>>,
    others: Vec<u32>,
}

enum Key {
    Destination(IpAddr),
    Port(u16),
}

impl ChainIndex {
    /// An index, if the chain is big enough to need one.
    pub(crate) fn new(chain: &Chain) -> Option<ChainIndex> {
        if chain.rules.len() < WORTH_IT {
            return None;
        }
        let mut index = ChainIndex::default();
        for (number, rule) in (0..).zip(&chain.rules) {
            match required(rule) {
                Some(Key::Destination(address)) => {
                    index.by_destination.entry(address).or_default().push(number);
                }
                Some(Key::Port(port)) => index.by_port.entry(port).or_default().push(number),
                None => index.others.push(number),
            }
        }
        Some(index)
    }

    /// The rules that a packet can match, in order; `None` where that can't be told (a port that
    /// is not known).
    pub(crate) fn candidates(&self, destination: IpAddr, port: Option<u16>) -> Option<Vec<u32>> {
        let by_port = match port {
            Some(port) => self.by_port.get(&port).map(Vec::as_slice),
            None if self.by_port.is_empty() => None,
            None => return None,
        };
        let by_destination = self.by_destination.get(&destination).map(Vec::as_slice);
        let mut candidates = self.others.clone();
        candidates.extend(by_port.unwrap_or_default());
        candidates.extend(by_destination.unwrap_or_default());
        candidates.sort_unstable();
        Some(candidates)
    }
}

/// What a rule requires of the packet before it does anything.
fn required(rule: &Rule) -> Option<Key> {
    let mut port = None;
    for step in &rule.steps {
        let Step::Test(test) = step else { break };
        let Test::Compare { left: Expr::Field(field), op: Comparison::Eq, right } = test else {
            continue;
        };
        let Expr::Const(value) = right else { continue };
        match field {
            Field::Address(family, End::Destination) => {
                if let Some(address) = value.as_address(*family) {
                    return Some(Key::Destination(address));
                }
            }
            Field::Port(Some(_), End::Destination) => {
                port = value.as_number().and_then(|n| u16::try_from(n).ok()).or(port);
            }
            _ => {}
        }
    }
    port.map(Key::Port)
}
