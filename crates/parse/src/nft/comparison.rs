//! The `match` statement: from a comparison to a [`Test`].

use unmasq_model::expr::{Expr, Fib, FibResult, Field};
use unmasq_model::origin::Opaque;
use unmasq_model::rule::{Comparison, NamePattern, Test};

use super::expr::{Lowerer, Typed};
use super::json::Node;
use super::kind::{self, Kind};
use super::render;
use super::set::DataType;

/// The operator of a comparison (`expr_op_symbols`, src/expression.c).
#[derive(Clone, Copy)]
enum Operator {
    /// `in`: some of the flags is set.
    AnyFlag,
    /// `!`: none of the flags is set.
    NoFlag,
    Compare(Comparison),
}

impl Lowerer<'_> {
    /// A comparison; one that is not understood as a whole is opaque as a whole.
    pub(super) fn comparison(&mut self, body: &Node<'_>) -> Test {
        self.understood_comparison(body)
            .unwrap_or_else(|| Test::Opaque(Opaque::new(render::comparison(body))))
    }

    fn understood_comparison(&mut self, body: &Node<'_>) -> Option<Test> {
        let op = operator(body.get("op")?.text()?)?;
        let right = body.get("right")?;
        let left = self.key(body.get("left")?, right);
        if let Node::Bool(exists) = right {
            return existence(left.expr, op, *exists);
        }
        if !left.is_understood() {
            return None;
        }
        if is_set(right) {
            let negated = match op {
                Operator::AnyFlag | Operator::Compare(Comparison::Eq) => false,
                Operator::Compare(Comparison::Ne) => true,
                Operator::NoFlag | Operator::Compare(_) => return None,
            };
            let set = self.set_of(right, &left.kinds, DataType::Nothing)?;
            return Some(Test::Member { key: left.expr, set, negated });
        }
        match op {
            Operator::AnyFlag => flags(left, right, false),
            Operator::NoFlag => flags(left, right, true),
            Operator::Compare(op) => self.compare(left, op, right),
        }
    }

    fn compare(&mut self, left: Typed, op: Comparison, right: &Node<'_>) -> Option<Test> {
        let equality = matches!(op, Comparison::Eq | Comparison::Ne);
        let negated = op == Comparison::Ne;
        if let Some(prefix) = right.text().and_then(kind::name_prefix)
            && left.kind() == Kind::Name
        {
            let Expr::Field(Field::DeviceName(device)) = left.expr else { return None };
            let pattern = NamePattern { name: prefix.into(), wildcard: true };
            return equality.then_some(Test::DeviceName { device, pattern, negated });
        }
        if let Some(("range" | "prefix", _)) = right.single() {
            let (low, high) = left.kind().interval(right)?;
            return equality.then_some(Test::Range { left: left.expr, low, high, negated });
        }
        if !equality && !left.kind().is_ordered() {
            return None;
        }
        let right = self.expression(right, &left.kinds);
        let fits = right.kinds.len() == left.kinds.len()
            && right.kinds.iter().zip(&left.kinds).all(|(a, b)| a.fits(*b));
        fits.then_some(Test::Compare { left: left.expr, op, right: right.expr })
    }
}

fn operator(symbol: &str) -> Option<Operator> {
    Some(match symbol {
        "in" => Operator::AnyFlag,
        "!" => Operator::NoFlag,
        "==" => Operator::Compare(Comparison::Eq),
        "!=" => Operator::Compare(Comparison::Ne),
        "<" => Operator::Compare(Comparison::Lt),
        "<=" => Operator::Compare(Comparison::Le),
        ">" => Operator::Compare(Comparison::Gt),
        ">=" => Operator::Compare(Comparison::Ge),
        _ => return None,
    })
}

fn is_set(node: &Node<'_>) -> bool {
    matches!(node.single(), Some(("set", _)))
        || node.text().is_some_and(|text| text.starts_with('@'))
}

fn flags(left: Typed, right: &Node<'_>, negated: bool) -> Option<Test> {
    let kind = left.kind();
    let bits = kind.number(right)?;
    kind.is_flags().then_some(Test::AnyBit { left: left.expr, bits, negated })
}

/// `fib … oif exists`, `fib … oif missing`: the flag that asks for no more than that is not in the
/// JSON, but only then a boolean stands on the right (`fib_expr_alloc`, src/fib.c).
fn existence(left: Expr, op: Operator, exists: bool) -> Option<Test> {
    let Expr::Field(Field::Fib(fib)) = left else { return None };
    let op = match op {
        Operator::Compare(op @ (Comparison::Eq | Comparison::Ne)) => op,
        Operator::AnyFlag | Operator::NoFlag | Operator::Compare(_) => return None,
    };
    let left = match fib.result {
        FibResult::Device | FibResult::Exists => {
            Expr::Field(Field::Fib(Fib { result: FibResult::Exists, ..fib }))
        }
        FibResult::Type => return None,
    };
    Some(Test::Compare { left, op, right: Expr::number(u8::from(exists)) })
}
