//! `-m conntrack` and `-m state` (conntrack_mt in net/netfilter/xt_conntrack.c).
//!
//! Without a connection the kernel's match is over after the state: true if one was asked for and
//! fits, else false, whatever other options say. So where a state list fits packets without
//! connection (INVALID, UNTRACKED) the other options can't be said as tests of their own.

use unmasq_model::expr::{
    Direction, End, Expr, Field, XT_STATE_DNAT, XT_STATE_SNAT, ct_state, ct_status,
};
use unmasq_model::origin::Opaque;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Step, Test};

use super::push;
use crate::iptables::token::{Match, OptionRef, join};
use crate::iptables::value::{Network, equal, flags, port_range, within};

/// Appends the tests of a `conntrack` or `state` match.
pub(super) fn lower(m: Match<'_>, family: Family, steps: &mut Vec<Step>) -> Option<()> {
    let mut states = m.options().filter(is_state);
    let state = states.next();
    if states.next().is_some() || m.options().next().is_none() {
        return None;
    }
    let mut without_connection = false;
    if let Some(option) = state {
        let bits = flags(option.one()?, &STATES)?;
        let outside = ct_state::INVALID | ct_state::UNTRACKED;
        let fitting = if option.negated { !bits } else { bits };
        without_connection = fitting & outside != 0;
        let left = Expr::Field(Field::CtStateAndNat);
        push(steps, Test::AnyBit { left, bits: bits.into(), negated: option.negated });
    }
    let others = || m.options().filter(|option| !is_state(option));
    if without_connection && others().next().is_some() {
        push(steps, Test::Opaque(Opaque::new(join(others()))));
        return Some(());
    }
    for option in others() {
        // Expiry is not known, and narrows the match by itself.
        let test = if option.is(&["--ctexpire"]) { None } else { Some(lower_one(option, family)?) };
        push(steps, test.unwrap_or_else(|| Test::Opaque(Opaque::new(option.text))));
    }
    Some(())
}

fn is_state(option: &OptionRef<'_>) -> bool {
    option.is(&["--ctstate", "--state"])
}

const STATES: [(&str, u32); 7] = [
    ("INVALID", ct_state::INVALID),
    ("ESTABLISHED", ct_state::ESTABLISHED),
    ("RELATED", ct_state::RELATED),
    ("NEW", ct_state::NEW),
    ("UNTRACKED", ct_state::UNTRACKED),
    ("SNAT", XT_STATE_SNAT),
    ("DNAT", XT_STATE_DNAT),
];

/// `--ctstatus NONE` is no bit, and so never matches (parse_status in libxt_conntrack.c).
const STATUSES: [(&str, u32); 5] = [
    ("NONE", 0),
    ("EXPECTED", ct_status::EXPECTED),
    ("SEEN_REPLY", ct_status::SEEN_REPLY),
    ("ASSURED", ct_status::ASSURED),
    ("CONFIRMED", ct_status::CONFIRMED),
];

fn lower_one(option: OptionRef<'_>, family: Family) -> Option<Test> {
    let text = option.one()?;
    let negated = option.negated;
    let address = |direction, end| {
        let field = Field::CtAddress(direction, family, end);
        Some(Network::read(text, family)?.test(field, negated))
    };
    let port = |direction, end| {
        let (low, high) = port_range(text, ':')?;
        Some(within(Field::CtPort(direction, end), low.into(), high.into(), negated))
    };
    match option.name {
        "--ctstatus" => {
            let bits = flags(text, &STATUSES)?.into();
            Some(Test::AnyBit { left: Expr::Field(Field::CtStatus), bits, negated })
        }
        "--ctdir" if !negated => {
            let direction = flags(text, &[("ORIGINAL", 0), ("REPLY", 1)])?.into();
            Some(within(Field::CtDirection, direction, direction, false))
        }
        "--ctproto" => {
            let number = Protocol::from_name(text)?.0;
            let left = Expr::Field(Field::CtProtocol);
            Some(Test::Compare { left, op: equal(negated), right: Expr::number(number) })
        }
        "--ctorigsrc" => address(Direction::Original, End::Source),
        "--ctorigdst" => address(Direction::Original, End::Destination),
        "--ctreplsrc" => address(Direction::Reply, End::Source),
        "--ctrepldst" => address(Direction::Reply, End::Destination),
        "--ctorigsrcport" => port(Direction::Original, End::Source),
        "--ctorigdstport" => port(Direction::Original, End::Destination),
        "--ctreplsrcport" => port(Direction::Reply, End::Source),
        "--ctrepldstport" => port(Direction::Reply, End::Destination),
        _ => None,
    }
}
