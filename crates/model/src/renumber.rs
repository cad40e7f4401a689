//! Rules under other numbers: a chain and a set are an index in their table, so a rule that is put
//! into another table has to name that table's.

use crate::expr::Expr;
use crate::rule::{Action, Nat, NatAddress, NatPorts, Rule, Step, Test};
use crate::ruleset::ChainId;
use crate::set::SetId;

/// What chains and sets are called elsewhere.
pub trait Numbers {
    /// The chain's number there.
    fn chain(&mut self, id: ChainId) -> ChainId;
    /// The set's number there.
    fn set(&mut self, id: SetId) -> SetId;
}

impl Rule {
    /// Has the rule name its chains and sets by other numbers.
    pub fn renumber(&mut self, numbers: &mut dyn Numbers) {
        for step in &mut self.steps {
            match step {
                Step::Test(test) => of_test(test, numbers),
                Step::Do(action) => of_action(action, numbers),
            }
        }
    }
}

fn of_test(test: &mut Test, numbers: &mut dyn Numbers) {
    match test {
        Test::Compare { left, right, .. } => {
            of_expr(left, numbers);
            of_expr(right, numbers);
        }
        Test::Range { left, .. } | Test::AnyBit { left, .. } => of_expr(left, numbers),
        Test::Member { key, set, .. } => {
            of_expr(key, numbers);
            *set = numbers.set(*set);
        }
        Test::DeviceName { .. }
        | Test::Ports { .. }
        | Test::IpSet { .. }
        | Test::AddressType { .. }
        | Test::Random { .. }
        | Test::State { .. }
        | Test::Accounting { .. }
        | Test::Opaque(_) => {}
    }
}

fn of_action(action: &mut Action, numbers: &mut dyn Numbers) {
    match action {
        Action::SetMark(value) | Action::SetCtMark(value) => of_expr(value, numbers),
        Action::Verdict(verdict) => *verdict = verdict.renumbered(&mut |id| numbers.chain(id)),
        Action::VerdictMap { key, map } => {
            of_expr(key, numbers);
            *map = numbers.set(*map);
        }
        Action::UpdateSet { set, key, .. } => {
            of_expr(key, numbers);
            *set = numbers.set(*set);
        }
        Action::Nat(Nat { address, ports, .. }) => {
            match address {
                Some(NatAddress::Expr(value)) => of_expr(value, numbers),
                Some(NatAddress::Range(..)) | None => {}
            }
            match ports {
                Some(NatPorts::Expr(value)) => of_expr(value, numbers),
                Some(NatPorts::Range(..)) | None => {}
            }
        }
        Action::Count
        | Action::Reject { .. }
        | Action::Log
        | Action::NoTrack
        | Action::CtTemplate
        | Action::CtExtra
        | Action::Opaque(_) => {}
    }
}

fn of_expr(expr: &mut Expr, numbers: &mut dyn Numbers) {
    match expr {
        Expr::Bits { left, right, .. } => {
            of_expr(left, numbers);
            of_expr(right, numbers);
        }
        Expr::Concat(parts) => parts.iter_mut().for_each(|part| of_expr(part, numbers)),
        Expr::Lookup { key, map } => {
            of_expr(key, numbers);
            *map = numbers.set(*map);
        }
        Expr::Const(_)
        | Expr::Field(_)
        | Expr::Numgen { .. }
        | Expr::Hash { .. }
        | Expr::Opaque(_) => {}
    }
}
