//! Tests of rules that remedies write: in the model's form, as `unmasq-parse` reads them from what
//! the kernel lists.

use ipnet::IpNet;

use unmasq_model::expr::{BitOp, End, Expr, Fib, FibResult, Field, Value};
use unmasq_model::origin::{FileId, Origin};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Comparison, Test};
use unmasq_model::set::{Data, Elements, Set, SetId};

/// `RTN_LOCAL` (include/uapi/linux/rtnetlink.h).
const LOCAL: u32 = 2;

/// Where something stands that was not read anywhere.
pub(super) const NOWHERE: Origin = Origin::new(FileId(0), 0);

/// The destination isn't in a network.
pub(super) fn not_to(net: IpNet) -> Test {
    in_network(End::Destination, net, true)
}

/// An address is in some of the networks, of one family, or in none of them. More than one make an
/// anonymous set.
pub(super) fn address(of: End, nets: &[IpNet], negated: bool, sets: &mut Vec<Set>) -> Option<Test> {
    let family = Family::of(nets.first()?.addr());
    if let [only] = nets {
        return Some(in_network(of, *only, negated));
    }
    let mut elements = Elements::default();
    for net in nets {
        match bounds(net) {
            (low, high) if low == high => elements.insert(Value::Number(low), Data::Nothing),
            (low, high) => elements.insert_interval(low, high, Data::Nothing),
        }
    }
    let set = SetId(u32::try_from(sets.len()).ok()?);
    let (dynamic, opaque, size) = (false, None, None);
    sets.push(Set { name: None, elements, dynamic, opaque, size, origin: NOWHERE });
    Some(Test::Member { key: Expr::Field(Field::Address(family, of)), set, negated })
}

fn in_network(of: End, net: IpNet, negated: bool) -> Test {
    let left = Expr::Field(Field::Address(Family::of(net.addr()), of));
    match bounds(&net) {
        (low, high) if low == high => {
            let op = if negated { Comparison::Ne } else { Comparison::Eq };
            Test::Compare { left, op, right: Expr::number(low) }
        }
        (low, high) => Test::Range { left, low, high, negated },
    }
}

/// The first and the last address, as numbers.
fn bounds(net: &IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

/// `fib saddr type != local`
pub(super) fn not_from_here() -> Test {
    let (iif, oif, mark) = (false, false, false);
    let fib = Fib { of: End::Source, iif, oif, mark, result: FibResult::Type };
    let left = Expr::Field(Field::Fib(fib));
    Test::Compare { left, op: Comparison::Ne, right: Expr::number(LOCAL) }
}

/// `meta mark & bit == 0`
pub(super) fn not_marked(bit: u32) -> Test {
    let left = Expr::bits(BitOp::And, Expr::Field(Field::Mark), Expr::number(bit));
    Test::Compare { left, op: Comparison::Eq, right: Expr::number(0u32) }
}
